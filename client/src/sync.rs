//! Catching up: which entries the application has seen, which are missing, and what to request.
//!
//! [`Sync`] is a state machine without a socket. Its input is the server's frames; its output is entries for the
//! application, each once and in order per conversation, and requests to send. It tracks progress on two levels:
//!
//! - Per conversation, a *position*: all entries up to it were handed over. An entry is handed over only if it is the
//!   next one, or if it comes from a page of history after the position. All other entries are fetched.
//! - For the whole user, the receiver seq. `have` is complete now. `target` is complete once all requested pages have
//!   arrived; only then `have` becomes `target`.
//!
//! After the server was restored from a backup, positions may be ahead of its data, and it assigns the same numbers
//! again. A welcome with another *generation* signals this. No entry is handed over until the heads show how far each
//! conversation was kept; positions then go back to there.
//!
//! Memory is bounded by the number of conversations. Entries that the application cannot take yet are dropped and
//! fetched again later.

mod gaps;
mod generation;

use crate::state::{Have, State};
use abi::{
    ApiError,
    v1::{Deliver, Entry, Head, HeadsPage, HistoryPage, ReceiverSeq},
};
use gaps::Gaps;
use generation::Rewind;
use std::collections::BTreeMap;

/// Entries in a requested page of history.
pub const PAGE: usize = 100;
/// Heads in a requested page.
pub const HEADS_PAGE: i32 = abi::MAX_PAGE;

/// Where a device without a state begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first entry of every conversation that the user can see.
    #[default]
    Beginning,
    /// With the entries after the first [`crate::Event::CaughtUp`]. Entries shortly before it may be left out.
    Now,
}

/// A request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Heads after a conversation id.
    Heads {
        /// Empty: from the beginning.
        after: String,
    },
    /// Entries after a position, oldest first.
    History {
        /// Conversation id.
        conversation: String,
        /// Position.
        after: u64,
    },
}

/// The application's side of [`Sync`]. A position moves only past accepted entries.
pub trait EntrySink {
    /// Accepts an entry, or returns it if the sink is full.
    fn offer(&mut self, entry: Entry) -> Option<Entry>;
}

impl EntrySink for Vec<Entry> {
    fn offer(&mut self, entry: Entry) -> Option<Entry> {
        self.push(entry);
        None
    }
}

/// The state machine. See the module's page.
#[derive(Debug)]
pub struct Sync {
    have: Option<Have>,
    target: Option<Have>,
    positions: BTreeMap<String, u64>,
    /// The reading of heads in progress.
    heads_scan: Option<HeadsScan>,
    /// The heads have to be read again; the receiver seq that this reading will cover.
    rescan: Option<Have>,
    gaps: Gaps,
    /// The first heads set positions and fetch nothing.
    baseline: bool,
    /// Positions that the baseline has set since the last [`Sync::take_baseline`].
    new_positions: BTreeMap<String, u64>,
    /// The generation of the server's data that `positions` refer to.
    generation: u32,
    /// Set while the server is in another generation and the heads are being read to correct the positions.
    rewind: Option<Rewind>,
    /// For [`Sync::take_restored`].
    restored: Option<(u32, BTreeMap<String, u64>)>,
}

#[derive(Debug)]
struct HeadsScan {
    /// The last conversation of the previous page.
    after: String,
    in_flight: bool,
}

impl Sync {
    /// Continues from a state.
    pub fn new(state: State, start: Start) -> Self {
        Self {
            baseline: start == Start::Now && state.is_new(),
            have: state.have,
            target: state.have,
            positions: state.positions,
            generation: state.generation,
            rewind: None,
            restored: None,
            heads_scan: None,
            rescan: None,
            gaps: Gaps::default(),
            new_positions: BTreeMap::new(),
        }
    }

    /// The receiver seq up to which all entries were handed over, for `hello`.
    pub fn have(&self) -> Option<ReceiverSeq> {
        self.have.map(Into::into)
    }

    /// The position in a conversation.
    pub fn position(&self, conversation: &str) -> Option<u64> {
        self.positions.get(conversation).copied()
    }

    /// Whether no entry is known to be missing.
    pub fn is_idle(&self) -> bool {
        self.heads_scan.is_none() && self.rescan.is_none() && self.gaps.is_empty()
    }

    /// Whether the next page of history waits only for capacity in the application.
    pub fn waits_for_capacity(&self) -> bool {
        self.gaps.has_queued() && self.gaps.in_flight() == 0 && self.rewind.is_none()
    }

    /// Entries that the pages in flight may bring.
    pub fn reserved(&self) -> usize {
        self.gaps.in_flight() * PAGE
    }

    /// Positions that were set without entries since the last call.
    pub fn take_baseline(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.new_positions)
    }

    /// A connection was welcomed. Requests of an earlier connection are forgotten.
    pub fn on_welcome(&mut self, now: Option<ReceiverSeq>) {
        self.gaps = Gaps::default();
        self.heads_scan = None;
        self.rescan = None;
        self.target = self.have;
        let now = Have::from(now.unwrap_or_default());
        if self.have != Some(now) || self.rewind.is_some() {
            self.rescan = Some(now);
        }
    }

    /// The server reported the receiver seq in a pong.
    pub fn on_seq(&mut self, now: Option<ReceiverSeq>) {
        self.compare(Have::from(now.unwrap_or_default()), 0, false);
    }

    /// Entries arrived. Up to `capacity` of them go to `sink`.
    pub fn on_deliver(&mut self, deliver: Deliver, capacity: usize, sink: &mut impl EntrySink) {
        let mut free = capacity.saturating_sub(self.reserved());
        let (raised, complete) = (deliver.raised, deliver.entries.len() as u64 == u64::from(deliver.raised));
        for entry in deliver.entries {
            let seq = entry.conversation_seq;
            if self.rewind.is_some() {
                self.gaps.add(entry.conversation, seq);
                continue;
            }
            let position = match self.positions.get_mut(&entry.conversation) {
                Some(position) => position,
                None => {
                    // During the baseline, the conversation begins with this entry; later, with its first visible one.
                    let before = if self.baseline { seq.saturating_sub(1) } else { 0 };
                    if self.baseline {
                        self.new_positions.insert(entry.conversation.clone(), before);
                    }
                    self.positions.entry(entry.conversation.clone()).or_insert(before)
                }
            };
            if seq <= *position {
                continue;
            }
            let is_next = seq - *position == 1 && free > 0;
            match if is_next { sink.offer(entry) } else { Some(entry) } {
                None => (*position, free) = (seq, free - 1),
                Some(entry) => self.gaps.add(entry.conversation, seq),
            }
        }
        if let Some(seq) = deliver.receiver_seq {
            self.compare(seq.into(), raised, complete);
        }
    }

    /// Compares the server's receiver seq with the target. `complete`: the frame held all of the last `raised` changes.
    fn compare(&mut self, now: Have, raised: u32, complete: bool) {
        let Some(target) = self.target.filter(|target| target.epoch == now.epoch) else {
            self.rescan = Some(now);
            return;
        };
        if now.seq <= target.seq {
            return;
        }
        if complete && now.seq - u64::from(raised).min(now.seq) <= target.seq {
            self.target = Some(now);
        } else {
            self.rescan = match self.rescan {
                Some(rescan) if rescan.epoch == now.epoch && rescan.seq > now.seq => Some(rescan),
                _ => Some(now),
            };
        }
    }

    /// The next request, if there is one. `capacity`: how many entries the application can take; a page is requested
    /// only if all of it fits.
    pub fn next_request(&mut self, capacity: usize) -> Option<Request> {
        if self.heads_scan.is_none()
            && let Some(now) = self.rescan.take()
        {
            // The heads read from here on include all changes up to `now`.
            self.target = Some(now);
            self.heads_scan = Some(HeadsScan { after: String::new(), in_flight: false });
        }
        if let Some(scan) = self.heads_scan.as_mut().filter(|scan| !scan.in_flight) {
            scan.in_flight = true;
            return Some(Request::Heads { after: scan.after.clone() });
        }
        if self.rewind.is_some() || capacity < self.reserved() + PAGE {
            return None;
        }
        let conversation = self.gaps.request_next()?;
        let after = self.positions.get(&conversation).copied().unwrap_or(0);
        Some(Request::History { conversation, after })
    }

    /// A page of heads arrived.
    pub fn on_heads(&mut self, page: HeadsPage) {
        let Some(scan) = self.heads_scan.as_mut() else { return };
        scan.in_flight = false;
        match page.heads.last() {
            Some(last) if page.more => scan.after.clone_from(&last.conversation),
            _ => self.heads_scan = None,
        }
        for head in page.heads {
            self.on_head(head);
        }
        if self.heads_scan.is_none() {
            self.baseline = false;
            self.end_rewind();
        }
    }

    fn on_head(&mut self, head: Head) {
        let before_visible = head.visible_from.saturating_sub(1);
        self.rewind_to(&head);
        match self.positions.get_mut(&head.conversation) {
            Some(position) => *position = (*position).max(before_visible),
            None => {
                let from = if self.baseline { head.conversation_seq } else { before_visible };
                if self.baseline {
                    self.new_positions.insert(head.conversation.clone(), from);
                }
                self.positions.insert(head.conversation.clone(), from);
            }
        }
        if self.positions[&head.conversation] < head.conversation_seq {
            self.gaps.add(head.conversation, head.conversation_seq);
        }
    }

    /// A page of history arrived. Entries that the sink does not accept are requested again.
    pub fn on_history(&mut self, conversation: &str, page: HistoryPage, sink: &mut impl EntrySink) {
        let Some(requested) = self.gaps.answered(conversation) else { return };
        let position = self.positions.entry(conversation.to_owned()).or_insert(0);
        let (before, mut is_full) = (*position, false);
        for entry in page.entries {
            // A jump within the page is a part that the user may not see, not a gap. Entries of other conversations were
            // not requested.
            let seq = entry.conversation_seq;
            if entry.conversation == conversation && seq > *position {
                is_full = sink.offer(entry).is_some();
                if is_full {
                    break;
                }
                *position = seq;
            }
        }
        // Without progress, "more" is ignored: a faulty server must not cause an endless loop of requests.
        let more = is_full || page.more && *position > before;
        self.gaps.close_or_requeue(conversation, *position, requested, more);
    }

    /// A request failed. If the error is retryable, [`Sync::next_request`] returns the request again.
    pub fn on_failed(&mut self, request: &Request, error: &ApiError) {
        match request {
            Request::Heads { .. } => {
                if let Some(scan) = self.heads_scan.as_mut() {
                    scan.in_flight = false;
                }
            }
            Request::History { conversation, .. } => {
                self.gaps.failed(conversation, error.code.is_retryable());
            }
        }
    }

    /// Moves `have` to the target if all requested pages have arrived; returns it if it moved.
    pub fn advance(&mut self) -> Option<Have> {
        if self.heads_scan.is_some()
            || self.rewind.is_some()
            || !self.gaps.is_empty()
            || self.target == self.have
        {
            return None;
        }
        self.have = self.target;
        self.have
    }
}

#[cfg(test)]
mod tests;
