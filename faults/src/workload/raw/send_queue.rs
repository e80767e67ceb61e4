//! The messages that a raw device has to send: one queue per conversation, which keeps their order.

use crate::workload::command::SendJob;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// A message without a final answer.
#[derive(Debug)]
struct Outgoing {
    job: SendJob,
    in_flight: bool,
    attempts: u32,
}

#[derive(Debug, Default)]
struct ConversationQueue {
    outgoing: VecDeque<Outgoing>,
    /// No message is sent before this time.
    retry_at: Option<Instant>,
    /// Retries are sent one at a time, each after all messages in flight have been answered.
    serially: bool,
}

/// The queues of all conversations.
#[derive(Debug)]
pub(super) struct SendQueues {
    queues: BTreeMap<String, ConversationQueue>,
    /// Most messages of a conversation in flight.
    depth: usize,
    /// After a lost connection, send all unanswered messages again without waiting for answers in between.
    resend_together: bool,
}

impl SendQueues {
    pub(super) fn new(depth: usize, resend_together: bool) -> Self {
        Self { queues: BTreeMap::new(), depth, resend_together }
    }

    pub(super) fn push(&mut self, job: SendJob) {
        let queue = self.queues.entry(job.conversation.clone()).or_default();
        queue.outgoing.push_back(Outgoing { job, in_flight: false, attempts: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The next message to send.
    pub(super) fn next(&mut self, now: Instant) -> Option<SendJob> {
        self.queues.values_mut().find_map(|queue| queue.next(now, self.depth))
    }

    /// A message has its final answer. Returns whether there was only one attempt.
    pub(super) fn complete(&mut self, job: &SendJob) -> bool {
        let Some(queue) = self.queues.get_mut(&job.conversation) else { return false };
        let Some(at) = queue.outgoing.iter().position(|outgoing| outgoing.job.send == job.send) else {
            return false;
        };
        let removed = queue.outgoing.remove(at);
        if queue.outgoing.is_empty() {
            self.queues.remove(&job.conversation);
        }
        removed.is_some_and(|outgoing| outgoing.attempts == 1)
    }

    /// A message was refused temporarily. Its queue pauses until `until`.
    pub(super) fn retry(&mut self, job: &SendJob, until: Instant) {
        let Some(queue) = self.queues.get_mut(&job.conversation) else { return };
        queue.retry_at = Some(until);
        // It is sent again only after the later messages in flight have been answered.
        queue.serially = true;
        for outgoing in queue.outgoing.iter_mut().filter(|outgoing| outgoing.job.send == job.send) {
            outgoing.in_flight = false;
        }
    }

    /// The connection is lost: send all messages again.
    pub(super) fn disconnected(&mut self) {
        for queue in self.queues.values_mut() {
            queue.retry_at = None;
            queue.serially = !self.resend_together;
            queue.outgoing.iter_mut().for_each(|outgoing| outgoing.in_flight = false);
        }
    }

    /// Messages without a final answer.
    pub(super) fn unsent(&self) -> impl Iterator<Item = u32> {
        self.queues.values().flat_map(|queue| queue.outgoing.iter().map(|outgoing| outgoing.job.send))
    }
}

impl ConversationQueue {
    fn next(&mut self, now: Instant, depth: usize) -> Option<SendJob> {
        if self.retry_at.is_some_and(|until| until > now) {
            return None;
        }
        let in_flight = self.outgoing.iter().filter(|outgoing| outgoing.in_flight).count();
        let next = self.outgoing.iter_mut().find(|outgoing| !outgoing.in_flight)?;
        if in_flight >= depth || (self.serially && next.attempts > 0 && in_flight > 0) {
            return None;
        }
        next.in_flight = true;
        next.attempts += 1;
        let job = next.job.clone();
        // A retry is not copied: a second copy would be a retry of the first one.
        next.job.may_be_copied = false;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn job(send: u32) -> SendJob {
        let draft = client::text("").into();
        SendJob {
            send,
            conversation: "c".into(),
            client_msg_id: send.to_string(),
            draft,
            may_be_copied: true,
        }
    }

    #[test]
    fn one_message_in_flight_keeps_the_order_through_refusals() {
        let (now, mut queues) = (Instant::now(), SendQueues::new(1, false));
        (0..3).for_each(|send| queues.push(job(send)));
        let first = queues.next(now).unwrap();
        assert_eq!((first.send, first.may_be_copied), (0, true));
        assert!(queues.next(now).is_none());
        queues.retry(&job(0), now + Duration::from_secs(1));
        assert!(queues.next(now).is_none(), "the queue pauses");
        let later = now + Duration::from_secs(2);
        let second = queues.next(later).unwrap();
        assert_eq!((second.send, second.may_be_copied), (0, false));
        assert!(!queues.complete(&job(0)), "that was the second attempt");
        assert_eq!(queues.next(later).unwrap().send, 1);
        queues.disconnected();
        assert_eq!(queues.next(later).unwrap().send, 1);
    }

    #[test]
    fn refused_messages_are_retried_in_order_after_all_answers() {
        let (now, mut queues) = (Instant::now(), SendQueues::new(2, false));
        (0..3).for_each(|send| queues.push(job(send)));
        queues.next(now).unwrap();
        queues.next(now).unwrap();
        assert!(queues.next(now).is_none());
        queues.retry(&job(0), now);
        assert!(queues.next(now).is_none(), "the other message has no answer");
        queues.retry(&job(1), now);
        assert_eq!(queues.next(now).unwrap().send, 0);
        assert!(queues.next(now).is_none(), "retries are sent one at a time");
        queues.disconnected();
        assert_eq!(queues.next(now).unwrap().send, 0);
        assert!(!queues.complete(&job(0)));
        assert_eq!(queues.next(now).unwrap().send, 1);
        assert_eq!(queues.next(now).unwrap().send, 2, "it is a first attempt");
        assert_eq!(queues.unsent().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn unanswered_messages_are_resent_together_after_a_lost_connection() {
        let (now, mut queues) = (Instant::now(), SendQueues::new(3, true));
        (0..4).for_each(|send| queues.push(job(send)));
        (0..3).for_each(|send| assert_eq!(queues.next(now).unwrap().send, send));
        queues.disconnected();
        (0..3).for_each(|send| assert_eq!(queues.next(now).unwrap().send, send));
        assert!(queues.next(now).is_none());
        queues.complete(&job(0));
        queues.retry(&job(1), now);
        assert!(queues.next(now).is_none(), "after a refusal, retries are sent one at a time");
        queues.retry(&job(2), now);
        assert_eq!(queues.next(now).unwrap().send, 1);
        assert!(queues.next(now).is_none());
    }
}
