//! Catching up as docs/protocol.md describes it, in the simplest way: one request at a time.

use abi::v1::{Changes, Deliver, Entry, HistoryPage, ReceiverSeq};
use client::{State, state::Have};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Pause before a history request is repeated that did not return the expected entries.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a delivery may be overtaken by a later one before the device asks for changes.
const OVERTAKING: Duration = Duration::from_millis(250);

/// A request that is needed to catch up.
#[derive(Debug)]
pub(super) enum Fetch {
    Changes { have: Option<ReceiverSeq>, cursor: String },
    History { conversation: String, after: u64 },
}

/// The entries that a device has, and the requests for the missing ones.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    have: Option<Have>,
    positions: BTreeMap<String, u64>,
    /// The value of `have` after all requests of this sync.
    target: Option<Have>,
    /// A receiver seq that the server announced during the sync: it needs another sync.
    next_target: Option<Have>,
    /// The cursor of the next page of changes; `None` if no page is needed.
    cursor: Option<String>,
    /// Deliveries that count from a later receiver seq than the device has: their first and last seq. They may have overtaken
    /// another one.
    ahead: Vec<(u64, Have)>,
    /// When the device asks for changes if no delivery has closed the gap.
    ask_at: Option<Instant>,
    /// Conversations with missing entries, and the highest `conversation_seq` known to exist.
    missing: BTreeMap<String, u64>,
    in_flight: bool,
    paused_until: Option<Instant>,
    /// `have`, if everything up to it has arrived since the last [`CatchUp::take_complete`].
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

    /// The receiver seq up to which the device has everything, once after each change.
    pub(super) fn take_complete(&mut self) -> Option<Have> {
        self.complete.take()
    }

    pub(super) fn disconnected(&mut self) {
        let (have, positions) = (self.have, std::mem::take(&mut self.positions));
        *self = Self { have, positions, ..Self::default() };
    }

    /// The server announced its receiver seq in `welcome` or `pong`. Returns whether the device has everything.
    pub(super) fn announced(&mut self, now: ReceiverSeq) -> bool {
        let now = Have::from(now);
        if self.have != Some(now) {
            self.start_sync(now);
            return false;
        }
        if self.is_idle() {
            self.complete = self.have;
        }
        self.is_idle()
    }

    /// Processes a delivery. Entries to show are added to `out`.
    pub(super) fn deliver(&mut self, deliver: Deliver, out: &mut Vec<Entry>) {
        let counted = deliver.entries.len() + deliver.updates.len();
        let is_whole = counted as u64 == u64::from(deliver.raised);
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
        let Some(have) = self.have.filter(|have| have.epoch == now.epoch) else {
            self.start_sync(now);
            return;
        };
        if now.seq <= have.seq {
            return;
        }
        let before = now.seq - u64::from(deliver.raised).min(now.seq);
        if !is_whole {
            self.start_sync(now);
        } else if self.target.is_some() {
            // The changes that are being read may not include it.
            self.next_target = Some(now);
        } else {
            self.ahead.push((before, now));
            self.close_gap();
        }
    }

    /// Moves `have` over the deliveries that follow it. The others wait for the ones that they have overtaken.
    fn close_gap(&mut self) {
        let Some(mut have) = self.have else { return };
        self.ahead.sort_unstable_by_key(|(before, _)| *before);
        let mut is_moved = false;
        self.ahead.retain(|(before, now)| {
            let follows = *before <= have.seq;
            if follows && now.seq > have.seq {
                have = *now;
                is_moved = true;
            }
            !follows
        });
        match self.ahead.is_empty() {
            true => self.ask_at = None,
            false => self.ask_at = self.ask_at.or(Some(Instant::now() + OVERTAKING)),
        }
        if is_moved && self.missing.is_empty() {
            self.have = Some(have);
            self.complete = self.have;
        } else if is_moved {
            self.start_sync(have);
        }
    }

    fn start_sync(&mut self, now: Have) {
        if self.target.is_some() {
            self.next_target = Some(now);
        } else {
            self.target = Some(now);
            self.cursor = Some(String::new());
        }
    }

    /// The next request, if one is due. The caller must send it.
    pub(super) fn next_fetch(&mut self, now: Instant) -> Option<Fetch> {
        if self.in_flight || self.paused_until.is_some_and(|until| until > now) {
            return None;
        }
        self.paused_until = None;
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            if let Some((_, last)) = self.ahead.pop() {
                self.ahead.clear();
                self.start_sync(last);
            }
        }
        let fetch = if let Some(cursor) = &self.cursor {
            Fetch::Changes { have: self.have(), cursor: cursor.clone() }
        } else {
            let conversation = self.missing.keys().next()?.clone();
            let after = self.positions.get(&conversation).copied().unwrap_or(0);
            Fetch::History { conversation, after }
        };
        self.in_flight = true;
        Some(fetch)
    }

    pub(super) fn changes(&mut self, page: Changes) {
        self.in_flight = false;
        // The answer says up to where it has everything.
        self.target = page.receiver_seq.map(Have::from);
        self.cursor = Some(page.next).filter(|next| !next.is_empty());
        for head in page.heads {
            let before = head.visible_from.saturating_sub(1);
            let position = *self.positions.entry(head.conversation.clone()).or_insert(before);
            if head.conversation_seq > position {
                let missing = self.missing.entry(head.conversation).or_insert(0);
                *missing = head.conversation_seq.max(*missing);
            }
        }
        self.finish_sync_if_complete();
    }

    /// Processes a page of history and returns the entries to show.
    pub(super) fn history(&mut self, conversation: &str, page: HistoryPage) -> Vec<Entry> {
        self.in_flight = false;
        let position = self.positions.entry(conversation.to_owned()).or_insert(0);
        let mut shown = Vec::new();
        for entry in page.entries {
            // A gap before the entry holds entries that the user may not see.
            if entry.conversation_seq > *position {
                *position = entry.conversation_seq;
                shown.push(entry);
            }
        }
        if self.missing.get(conversation).is_some_and(|missing| missing <= position) {
            self.missing.remove(conversation);
        } else if shown.is_empty() {
            self.paused_until = Some(Instant::now() + RETRY_PAUSE);
        }
        self.finish_sync_if_complete();
        shown
    }

    pub(super) fn changes_failed(&mut self, until: Instant) {
        self.in_flight = false;
        self.paused_until = Some(until);
    }

    pub(super) fn history_failed(&mut self, conversation: &str, retryable: bool, until: Instant) {
        self.in_flight = false;
        if retryable {
            self.paused_until = Some(until);
        } else {
            // The user is not a member any more.
            self.missing.remove(conversation);
            self.finish_sync_if_complete();
        }
    }

    fn finish_sync_if_complete(&mut self) {
        if self.cursor.is_some() || !self.missing.is_empty() || self.target.is_none() {
            return;
        }
        self.have = self.target.take();
        self.complete = self.have;
        self.ahead.clear();
        self.ask_at = None;
        let covers = |have: Option<Have>, target: &Have| {
            have.is_some_and(|have| have.epoch == target.epoch && have.seq >= target.seq)
        };
        if let Some(next_target) =
            self.next_target.take().filter(|next_target| !covers(self.have, next_target))
        {
            self.start_sync(next_target);
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
        let deliver =
            Deliver { receiver_seq: Some(seq(now)), raised, entries: entries(numbers), updates: Vec::new() };
        catch_up.deliver(deliver, &mut shown);
        shown.iter().map(|entry| entry.conversation_seq).collect()
    }

    fn history(catch_up: &mut CatchUp, numbers: &[u64]) -> Vec<u64> {
        let shown = catch_up.history("g:1", HistoryPage { entries: entries(numbers), more: false });
        shown.iter().map(|entry| entry.conversation_seq).collect()
    }

    fn changes(catch_up: &mut CatchUp, now: u64, conversation_seq: u64, visible_from: u64) {
        let head = Head { conversation: "g:1".into(), conversation_seq, visible_from, ..Head::default() };
        let receiver_seq = Some(seq(now));
        catch_up.changes(Changes { receiver_seq, heads: vec![head], ..Changes::default() });
    }

    /// A device that has (1, 5) and the conversation up to 3.
    fn caught_up() -> CatchUp {
        let mut catch_up = CatchUp::default();
        assert!(!catch_up.announced(seq(5)));
        assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::Changes { .. })));
        changes(&mut catch_up, 5, 3, 1);
        assert_eq!(catch_up.take_complete(), None, "the entries are still missing");
        assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::History { after: 0, .. })));
        assert_eq!(history(&mut catch_up, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(catch_up.take_complete(), have(5));
        catch_up
    }

    #[test]
    fn the_next_entries_are_shown_and_raise_the_seq() {
        let mut catch_up = caught_up();
        assert_eq!(deliver(&mut catch_up, 7, 2, &[4, 5]), [4, 5]);
        assert_eq!(catch_up.take_complete(), have(7));
        assert!(catch_up.announced(seq(7)));
        assert_eq!(deliver(&mut catch_up, 6, 1, &[4]), [] as [u64; 0], "the device has it");
        assert!(catch_up.is_idle());
    }

    #[test]
    fn a_gap_is_fetched_before_later_entries_are_shown() {
        let mut catch_up = caught_up();
        assert_eq!(deliver(&mut catch_up, 7, 1, &[5]), [] as [u64; 0]);
        assert!(!catch_up.is_idle());
        assert_eq!(catch_up.take_complete(), None);
        assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::History { after: 3, .. })));
        assert_eq!(history(&mut catch_up, &[4, 5]), [4, 5]);
        assert_eq!(catch_up.take_complete(), None, "seq 6 may count something else");
        let later = Instant::now() + OVERTAKING;
        assert!(matches!(catch_up.next_fetch(later), Some(Fetch::Changes { .. })));
        changes(&mut catch_up, 7, 5, 1);
        assert_eq!(catch_up.take_complete(), have(7));
    }

    #[test]
    fn a_jump_of_the_seq_starts_a_sync() {
        let mut catch_up = caught_up();
        // Seq 6 counts an entry that has not arrived.
        assert_eq!(deliver(&mut catch_up, 7, 1, &[4]), [4]);
        assert_eq!(catch_up.have(), Some(seq(5)));
        assert!(catch_up.next_fetch(Instant::now()).is_none(), "another delivery may have been overtaken");
        let later = Instant::now() + OVERTAKING;
        assert!(matches!(catch_up.next_fetch(later), Some(Fetch::Changes { .. })));
        // An announcement during the sync needs another sync.
        assert!(!catch_up.announced(seq(9)));
        changes(&mut catch_up, 7, 4, 1);
        assert_eq!(catch_up.take_complete(), have(7));
        assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::Changes { .. })));
    }

    #[test]
    fn an_overtaken_delivery_is_waited_for() {
        let mut catch_up = caught_up();
        assert_eq!(deliver(&mut catch_up, 7, 1, &[]), [] as [u64; 0]);
        let mut catch_up = caught_up();
        assert_eq!(deliver(&mut catch_up, 8, 1, &[9]), [] as [u64; 0]);
        assert_eq!(catch_up.have(), Some(seq(5)));
    }

    #[test]
    fn entries_that_the_user_may_not_see_are_skipped() {
        let mut catch_up = caught_up();
        assert!(!catch_up.announced(seq(8)));
        assert!(catch_up.next_fetch(Instant::now()).is_some());
        changes(&mut catch_up, 8, 9, 7);
        assert!(catch_up.next_fetch(Instant::now()).is_some());
        assert_eq!(history(&mut catch_up, &[7, 8, 9]), [7, 8, 9]);
        assert_eq!(catch_up.take_complete(), have(8));
        // The user is removed while entries are missing. The device stops requesting them.
        assert_eq!(deliver(&mut catch_up, 9, 1, &[11]), [] as [u64; 0]);
        assert!(catch_up.next_fetch(Instant::now()).is_some());
        catch_up.changes(Changes { receiver_seq: Some(seq(9)), ..Changes::default() });
        assert!(catch_up.next_fetch(Instant::now()).is_some());
        catch_up.history_failed("g:1", false, Instant::now());
        assert_eq!(catch_up.take_complete(), have(9));
    }
}
