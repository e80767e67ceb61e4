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
mod tests;
