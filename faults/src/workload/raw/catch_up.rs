//! Catching up as docs/protocol.md tells it: one question at a time, nothing clever.

use abi::v1::{Deliver, Entry, HeadsPage, HistoryPage, ReceiverSeq};
use client::{State, state::Have};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Pause before history is asked again that did not have what it should have.
const PAUSE: Duration = Duration::from_millis(200);

/// A question.
#[derive(Debug)]
pub(super) enum Want {
    Heads { after: String },
    History { conversation: String, after: u64 },
}

/// What a device has, and what it has to ask.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    have: Option<Have>,
    positions: BTreeMap<String, u64>,
    /// What `have` becomes when all questions are answered.
    target: Option<Have>,
    /// What the server said meanwhile: another round.
    again: Option<Have>,
    /// Heads are to be read after this conversation.
    heads: Option<String>,
    /// Conversations with the highest number that is known to be there.
    missing: BTreeMap<String, u64>,
    asked: bool,
    paused: Option<Instant>,
    /// `have`, when everything up to it has come since the last look.
    complete: Option<Have>,
}

impl CatchUp {
    pub(super) fn new(state: State) -> Self {
        Self { have: state.have, positions: state.positions, ..Self::default() }
    }

    pub(super) fn state(&self) -> State {
        State { have: self.have, positions: self.positions.clone(), ..State::default() }
    }

    pub(super) fn have(&self) -> Option<ReceiverSeq> {
        self.have.map(Into::into)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.target.is_none() && self.missing.is_empty()
    }

    /// The receiver's seq up to which everything is here, when that is news.
    pub(super) fn take_complete(&mut self) -> Option<Have> {
        self.complete.take()
    }

    pub(super) fn disconnected(&mut self) {
        let (have, positions) = (self.have, std::mem::take(&mut self.positions));
        *self = Self { have, positions, ..Self::default() };
    }

    /// The server said where the receiver's seq is, by `welcome` or `pong`. Gives whether everything is here.
    pub(super) fn told(&mut self, now: ReceiverSeq) -> bool {
        let now = Have::from(now);
        if self.have != Some(now) {
            self.sync(now);
            return false;
        }
        if self.is_idle() {
            self.complete = self.have;
        }
        self.is_idle()
    }

    /// Takes a delivery; what is to be shown goes to `out`.
    pub(super) fn deliver(&mut self, deliver: Deliver, out: &mut Vec<Entry>) {
        let whole = deliver.entries.len() as u64 == u64::from(deliver.raised);
        for entry in deliver.entries {
            let position = self.positions.entry(entry.conversation.clone()).or_insert(0);
            if entry.conversation_seq == *position + 1 {
                *position += 1;
                out.push(entry);
            } else if entry.conversation_seq > *position {
                let missing = self.missing.entry(entry.conversation).or_insert(0);
                *missing = entry.conversation_seq.max(*missing);
            }
        }
        let Some(now) = deliver.receiver_seq.map(Have::from) else { return };
        match self.have {
            Some(have) if have.epoch == now.epoch && now.seq <= have.seq => {}
            Some(have)
                if have.epoch == now.epoch
                    && now.seq - u64::from(deliver.raised).min(now.seq) == have.seq
                    && whole
                    && self.is_idle() =>
            {
                self.have = Some(now);
                self.complete = self.have;
            }
            _ => self.sync(now),
        }
    }

    fn sync(&mut self, now: Have) {
        if self.target.is_some() {
            self.again = Some(now);
        } else {
            self.target = Some(now);
            self.heads = Some(String::new());
        }
    }

    /// The next question, if there is one now. It has to be asked.
    pub(super) fn want(&mut self, now: Instant) -> Option<Want> {
        if self.asked || self.paused.is_some_and(|until| until > now) {
            return None;
        }
        self.paused = None;
        let want = if let Some(after) = &self.heads {
            Want::Heads { after: after.clone() }
        } else {
            let conversation = self.missing.keys().next()?.clone();
            let after = self.positions.get(&conversation).copied().unwrap_or(0);
            Want::History { conversation, after }
        };
        self.asked = true;
        Some(want)
    }

    pub(super) fn heads(&mut self, page: HeadsPage) {
        self.asked = false;
        self.heads = page.heads.last().filter(|_| page.more).map(|last| last.conversation.clone());
        for head in page.heads {
            let before = head.visible_from.saturating_sub(1);
            let position = *self.positions.entry(head.conversation.clone()).or_insert(before);
            if head.conversation_seq > position {
                let missing = self.missing.entry(head.conversation).or_insert(0);
                *missing = head.conversation_seq.max(*missing);
            }
        }
        self.settle();
    }

    /// Takes a page; gives what is to be shown.
    pub(super) fn history(&mut self, conversation: &str, page: HistoryPage) -> Vec<Entry> {
        self.asked = false;
        let position = self.positions.entry(conversation.to_owned()).or_insert(0);
        let mut shown = Vec::new();
        for entry in page.entries {
            // Not the next one: what lies before is not for this user.
            if entry.conversation_seq > *position {
                *position = entry.conversation_seq;
                shown.push(entry);
            }
        }
        if self.missing.get(conversation).is_some_and(|missing| missing <= position) {
            self.missing.remove(conversation);
        } else if shown.is_empty() {
            self.paused = Some(Instant::now() + PAUSE);
        }
        self.settle();
        shown
    }

    pub(super) fn heads_failed(&mut self, until: Instant) {
        self.asked = false;
        self.paused = Some(until);
    }

    pub(super) fn history_failed(&mut self, conversation: &str, retryable: bool, until: Instant) {
        self.asked = false;
        if retryable {
            self.paused = Some(until);
        } else {
            // Not in it any more.
            self.missing.remove(conversation);
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.heads.is_some() || !self.missing.is_empty() || self.target.is_none() {
            return;
        }
        self.have = self.target.take();
        self.complete = self.have;
        if let Some(again) = self.again.take().filter(|again| self.have != Some(*again)) {
            self.sync(again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::Head;

    fn seq(seq: u64) -> ReceiverSeq {
        ReceiverSeq { epoch: 1, seq }
    }

    fn have(seq: u64) -> Option<Have> {
        Some(Have { epoch: 1, seq })
    }

    fn entries(numbers: &[u64]) -> Vec<Entry> {
        let entry = |number: &u64| Entry {
            conversation: "g:1".into(),
            conversation_seq: *number,
            ..Entry::default()
        };
        numbers.iter().map(entry).collect()
    }

    fn deliver(catch_up: &mut CatchUp, now: u64, raised: u32, numbers: &[u64]) -> Vec<u64> {
        let mut shown = Vec::new();
        let deliver = Deliver { receiver_seq: Some(seq(now)), raised, entries: entries(numbers) };
        catch_up.deliver(deliver, &mut shown);
        shown.iter().map(|entry| entry.conversation_seq).collect()
    }

    fn history(catch_up: &mut CatchUp, numbers: &[u64]) -> Vec<u64> {
        let shown = catch_up.history("g:1", HistoryPage { entries: entries(numbers), more: false });
        shown.iter().map(|entry| entry.conversation_seq).collect()
    }

    fn heads(catch_up: &mut CatchUp, conversation_seq: u64, visible_from: u64) {
        let head = Head { conversation: "g:1".into(), conversation_seq, visible_from, ..Head::default() };
        catch_up.heads(HeadsPage { heads: vec![head], more: false });
    }

    /// A device that has (1, 5) and the conversation up to 3.
    fn caught_up() -> CatchUp {
        let mut catch_up = CatchUp::default();
        assert!(!catch_up.told(seq(5)));
        assert!(matches!(catch_up.want(Instant::now()), Some(Want::Heads { .. })));
        heads(&mut catch_up, 3, 1);
        assert_eq!(catch_up.take_complete(), None, "the entries are still missing");
        assert!(matches!(catch_up.want(Instant::now()), Some(Want::History { after: 0, .. })));
        assert_eq!(history(&mut catch_up, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(catch_up.take_complete(), have(5));
        catch_up
    }

    #[test]
    fn what_comes_next_is_shown_and_counts() {
        let mut catch_up = caught_up();
        assert_eq!(deliver(&mut catch_up, 7, 2, &[4, 5]), [4, 5]);
        assert_eq!(catch_up.take_complete(), have(7));
        assert!(catch_up.told(seq(7)));
        assert_eq!(deliver(&mut catch_up, 6, 1, &[4]), [] as [u64; 0], "it has that");
        assert!(catch_up.is_idle());
    }

    #[test]
    fn a_hole_is_fetched_before_anything_after_it_is_shown() {
        let mut catch_up = caught_up();
        assert_eq!(deliver(&mut catch_up, 7, 1, &[5]), [] as [u64; 0]);
        assert!(!catch_up.is_idle());
        assert_eq!(catch_up.take_complete(), None);
        assert!(matches!(catch_up.want(Instant::now()), Some(Want::Heads { .. })));
        heads(&mut catch_up, 5, 1);
        assert!(matches!(catch_up.want(Instant::now()), Some(Want::History { after: 3, .. })));
        assert_eq!(history(&mut catch_up, &[4, 5]), [4, 5]);
        assert_eq!(catch_up.take_complete(), have(7));
    }

    #[test]
    fn a_jump_of_the_number_is_looked_into() {
        let mut catch_up = caught_up();
        // 6 was counted for something else, which has not come.
        assert_eq!(deliver(&mut catch_up, 7, 1, &[4]), [4]);
        assert_eq!(catch_up.have(), Some(seq(5)));
        assert!(matches!(catch_up.want(Instant::now()), Some(Want::Heads { .. })));
        // What is said meanwhile makes another round.
        assert!(!catch_up.told(seq(9)));
        heads(&mut catch_up, 4, 1);
        assert_eq!(catch_up.take_complete(), have(7));
        assert!(matches!(catch_up.want(Instant::now()), Some(Want::Heads { .. })));
    }

    #[test]
    fn what_is_not_for_this_user_is_passed_over() {
        let mut catch_up = caught_up();
        assert!(!catch_up.told(seq(8)));
        assert!(catch_up.want(Instant::now()).is_some());
        heads(&mut catch_up, 9, 7);
        assert!(catch_up.want(Instant::now()).is_some());
        assert_eq!(history(&mut catch_up, &[7, 8, 9]), [7, 8, 9]);
        assert_eq!(catch_up.take_complete(), have(8));
        // Removed while something was missing: it is not asked for any more.
        assert_eq!(deliver(&mut catch_up, 9, 1, &[11]), [] as [u64; 0]);
        assert!(catch_up.want(Instant::now()).is_some());
        catch_up.heads(HeadsPage::default());
        assert!(catch_up.want(Instant::now()).is_some());
        catch_up.history_failed("g:1", false, Instant::now());
        assert_eq!(catch_up.take_complete(), have(9));
    }
}
