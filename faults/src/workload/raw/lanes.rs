//! What a device has to send, in order per conversation.

use crate::workload::book::Job;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// A message on its way.
#[derive(Debug)]
struct Outgoing {
    job: Job,
    on_wire: bool,
    tries: u32,
    /// Another device sends it as well.
    copied: bool,
}

#[derive(Debug, Default)]
struct Lane {
    outgoing: VecDeque<Outgoing>,
    held: Option<Instant>,
    /// What is sent again goes alone, when it is known what became of all behind it.
    alone: bool,
}

/// The messages of all conversations.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: BTreeMap<String, Lane>,
    /// Messages of a conversation that may be on the wire.
    depth: usize,
    /// After a connection is lost, what is unanswered is sent again without waiting for one another.
    together: bool,
}

impl Lanes {
    pub(super) fn new(depth: usize, together: bool) -> Self {
        Self { lanes: BTreeMap::new(), depth, together }
    }

    pub(super) fn push(&mut self, job: Job) {
        let lane = self.lanes.entry(job.conversation.clone()).or_default();
        lane.outgoing.push_back(Outgoing { job, on_wire: false, tries: 0, copied: false });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The next message to write.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        self.lanes.values_mut().find_map(|lane| lane.next(now, self.depth))
    }

    /// A message was answered for good. Gives whether that was the only attempt there ever was.
    pub(super) fn done(&mut self, job: &Job) -> bool {
        let Some(lane) = self.lanes.get_mut(&job.conversation) else { return false };
        let Some(at) = lane.outgoing.iter().position(|outgoing| outgoing.job.send == job.send) else {
            return false;
        };
        let removed = lane.outgoing.remove(at);
        if lane.outgoing.is_empty() {
            self.lanes.remove(&job.conversation);
        }
        removed.is_some_and(|outgoing| outgoing.tries == 1 && !outgoing.copied)
    }

    /// Another device sends it as well. Gives whether that may put it before one that is on the wire.
    pub(super) fn copied(&mut self, job: &Job) -> bool {
        let lane = self.lanes.get_mut(&job.conversation).into_iter();
        for outgoing in
            lane.flat_map(|lane| &mut lane.outgoing).filter(|outgoing| outgoing.job.send == job.send)
        {
            outgoing.copied = true;
        }
        self.depth > 1
    }

    /// A message was refused for now: its conversation waits.
    pub(super) fn retry(&mut self, job: &Job, until: Instant) {
        let Some(lane) = self.lanes.get_mut(&job.conversation) else { return };
        lane.held = Some(until);
        // Before it is sent again it is known what became of all behind it.
        lane.alone = true;
        for outgoing in lane.outgoing.iter_mut().filter(|outgoing| outgoing.job.send == job.send) {
            outgoing.on_wire = false;
        }
    }

    /// The connection is gone: all is to be sent again.
    pub(super) fn reset(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.held = None;
            lane.alone = !self.together;
            lane.outgoing.iter_mut().for_each(|outgoing| outgoing.on_wire = false);
        }
    }

    /// All that was not answered for good.
    pub(super) fn unsent(&self) -> impl Iterator<Item = u32> {
        self.lanes.values().flat_map(|lane| lane.outgoing.iter().map(|outgoing| outgoing.job.send))
    }
}

impl Lane {
    fn next(&mut self, now: Instant, depth: usize) -> Option<Job> {
        if self.held.is_some_and(|until| until > now) {
            return None;
        }
        let on_wire = self.outgoing.iter().filter(|outgoing| outgoing.on_wire).count();
        let next = self.outgoing.iter_mut().find(|outgoing| !outgoing.on_wire)?;
        if on_wire >= depth || (self.alone && next.tries > 0 && on_wire > 0) {
            return None;
        }
        next.on_wire = true;
        next.tries += 1;
        Some(next.job.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn job(send: u32) -> Job {
        Job { send, conversation: "c".into(), client_msg_id: send.to_string(), text: String::new() }
    }

    #[test]
    fn one_at_a_time_keeps_its_order_through_refusals() {
        let (now, mut lanes) = (Instant::now(), Lanes::new(1, false));
        (0..3).for_each(|send| lanes.push(job(send)));
        assert_eq!(lanes.next(now).unwrap().send, 0);
        assert!(lanes.next(now).is_none());
        lanes.retry(&job(0), now + Duration::from_secs(1));
        assert!(lanes.next(now).is_none(), "it waits");
        let later = now + Duration::from_secs(2);
        assert_eq!(lanes.next(later).unwrap().send, 0);
        assert!(!lanes.done(&job(0)), "that was the second attempt");
        assert_eq!(lanes.next(later).unwrap().send, 1);
        lanes.reset();
        assert_eq!(lanes.next(later).unwrap().send, 1);
    }

    #[test]
    fn several_on_the_wire_are_sent_again_in_order_when_all_are_answered() {
        let (now, mut lanes) = (Instant::now(), Lanes::new(2, false));
        (0..3).for_each(|send| lanes.push(job(send)));
        lanes.next(now).unwrap();
        lanes.next(now).unwrap();
        assert!(lanes.next(now).is_none());
        lanes.retry(&job(0), now);
        assert!(lanes.next(now).is_none(), "the other is not answered");
        lanes.retry(&job(1), now);
        assert_eq!(lanes.next(now).unwrap().send, 0);
        assert!(lanes.next(now).is_none(), "what is sent again goes alone");
        lanes.reset();
        assert_eq!(lanes.next(now).unwrap().send, 0);
        assert!(!lanes.done(&job(0)));
        assert_eq!(lanes.next(now).unwrap().send, 1);
        assert_eq!(lanes.next(now).unwrap().send, 2, "it was never sent");
        assert_eq!(lanes.unsent().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_a_lost_connection_left_unanswered_is_sent_again_together() {
        let (now, mut lanes) = (Instant::now(), Lanes::new(3, true));
        (0..4).for_each(|send| lanes.push(job(send)));
        (0..3).for_each(|send| assert_eq!(lanes.next(now).unwrap().send, send));
        lanes.reset();
        (0..3).for_each(|send| assert_eq!(lanes.next(now).unwrap().send, send));
        assert!(lanes.next(now).is_none());
        lanes.done(&job(0));
        lanes.retry(&job(1), now);
        assert!(lanes.next(now).is_none(), "after a refusal it goes alone");
        lanes.retry(&job(2), now);
        assert_eq!(lanes.next(now).unwrap().send, 1);
        assert!(lanes.next(now).is_none());
    }
}
