//! Catching up: which changes the application has seen, which are missing, and what to request.
//!
//! [`Sync`] is a state machine without a socket and without a clock. Its input is the server's frames; its output is changes
//! for the application (entries, each once and in order per conversation; updates; pages of heads) and requests to send. It
//! tracks progress on two levels:
//!
//! - Per conversation, a *position*: all entries up to it were handed over. An entry is handed over only if it is the
//!   next one, or if it comes from a page of history after the position. All other entries are fetched.
//! - For the whole user, the receiver seq. Up to `known`, every change was handed over or is an entry that will be fetched.
//!   Once these entries have arrived, `have` becomes `known`.
//!
//! A delivery moves `known` if it continues from there and has all of its changes. Otherwise a push is missing, or it was
//! overtaken. The device therefore waits for it ([`Sync::awaited`]) before it asks for `changes`.
//!
//! After the server was restored from a backup, positions may be ahead of its data, and it assigns the same numbers
//! again. A welcome with another *generation* signals this. No entry is handed over until the heads show how far each
//! conversation was kept; positions then go back to there.
//!
//! Memory is bounded by the number of conversations. Entries that the application cannot take yet are dropped and
//! fetched again later.

mod answers;
mod change;
mod early;
mod gaps;
mod generation;
mod patience;

pub use change::{Change, Sink};
pub use patience::{OVERTAKING, Patience};

use crate::state::{Have, State};
use abi::v1::{Deliver, Entry, GetChanges, GetHistory, ReceiverSeq, client_frame::Frame};
use early::{Delivery, Early};
use gaps::Gaps;
use generation::Rewind;
use std::collections::BTreeMap;

/// Entries in a requested page of history.
pub const PAGE: usize = 100;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// What has changed since a receiver seq.
    Changes {
        /// `None`: the answer has everything.
        have: Option<ReceiverSeq>,
        /// `next` of the previous page. Empty: the first page.
        cursor: String,
    },
    /// Entries after a position, oldest first.
    History {
        /// Conversation id.
        conversation: String,
        /// Position.
        after: u64,
    },
}

impl Request {
    /// The frame to send. `entries`: the size of a page of history.
    pub fn frame(&self, entries: i32) -> Frame {
        match self {
            Self::Changes { have, cursor } => {
                Frame::Changes(GetChanges { have: *have, cursor: cursor.clone(), limit: abi::MAX_PAGE })
            }
            Self::History { conversation, after } => Frame::History(GetHistory {
                conversation: conversation.clone(),
                after: *after,
                limit: entries,
                ..GetHistory::default()
            }),
        }
    }
}

/// The state machine. See the module's page.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Hash))]
pub struct Sync {
    have: Option<Have>,
    /// Every change up to here was handed over or is in `gaps`. Equal to `have` except while something is missing.
    known: Option<Have>,
    /// The last receiver seq that the server has reported.
    latest: Option<Have>,
    /// Deliveries beyond `known`.
    early: Early,
    /// A push did not arrive in time: ask for the changes.
    is_overdue: bool,
    /// The pages of changes that are being read.
    scan: Option<Scan>,
    positions: BTreeMap<String, u64>,
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

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Hash))]
struct Scan {
    have: Option<ReceiverSeq>,
    /// The epoch of `latest` when the reading began.
    epoch: Option<u32>,
    /// `next` of the previous page.
    cursor: String,
    in_flight: bool,
}

impl Sync {
    /// Continues from a state.
    pub fn new(state: State, start: Start) -> Self {
        Self {
            baseline: start == Start::Now && state.is_new(),
            have: state.have,
            known: state.have,
            latest: None,
            early: Early::default(),
            is_overdue: false,
            scan: None,
            positions: state.positions,
            gaps: Gaps::default(),
            new_positions: BTreeMap::new(),
            generation: state.generation,
            rewind: None,
            restored: None,
        }
    }

    /// The receiver seq up to which all changes were handed over, for `hello`.
    pub fn have(&self) -> Option<ReceiverSeq> {
        self.have.map(Into::into)
    }

    /// The position in a conversation.
    pub fn position(&self, conversation: &str) -> Option<u64> {
        self.positions.get(conversation).copied()
    }

    /// Whether no change is known to be missing.
    pub fn is_idle(&self) -> bool {
        self.scan.is_none() && !self.needs_scan() && self.awaited().is_none() && self.gaps.is_empty()
    }

    /// Whether the next page waits only for capacity in the application.
    pub fn waits_for_capacity(&self) -> bool {
        let page = self.scan.as_ref().is_some_and(|scan| !scan.in_flight) || self.needs_scan();
        page || self.gaps.has_queued() && self.gaps.in_flight() == 0 && self.rewind.is_none()
    }

    /// Changes that the pages in flight may bring. A page of heads is one change.
    pub fn reserved(&self) -> usize {
        let page = self.scan.as_ref().is_some_and(|scan| scan.in_flight);
        self.gaps.in_flight() * PAGE + usize::from(page)
    }

    /// Positions that were set without entries since the last call.
    pub fn take_baseline(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.new_positions)
    }

    /// The number of the first change whose push is missing although the server has reported later changes. `None`: no
    /// push is missing, or `changes` is asked already. The caller waits, normally for [`OVERTAKING`], and calls
    /// [`Sync::on_overdue`] if the value is still the same.
    pub fn awaited(&self) -> Option<u64> {
        if self.scan.is_some() || self.needs_scan() {
            return None;
        }
        let (known, latest) = self.known.zip(self.latest)?;
        (known.epoch == latest.epoch && known.seq < latest.seq).then(|| known.seq + 1)
    }

    /// The awaited push did not arrive in time.
    pub fn on_overdue(&mut self) {
        self.is_overdue |= self.awaited().is_some();
    }

    /// Whether `changes` has to be asked without a wait.
    fn needs_scan(&self) -> bool {
        let is_other_epoch = match (self.known, self.latest) {
            (_, None) => false,
            (known, Some(latest)) => known.is_none_or(|known| known.epoch != latest.epoch),
        };
        self.scan.is_none() && (self.is_overdue || is_other_epoch || self.rewind.is_some())
    }

    /// A connection was welcomed. Requests of an earlier connection are forgotten.
    pub fn on_welcome(&mut self, now: Option<ReceiverSeq>) {
        let now = Have::from(now.unwrap_or_default());
        self.gaps = Gaps::default();
        self.scan = None;
        self.early = Early::default();
        self.known = self.have;
        self.latest = Some(now);
        self.is_overdue = self.have != Some(now);
    }

    /// The server reported the receiver seq in a pong.
    pub fn on_seq(&mut self, now: Option<ReceiverSeq>) {
        self.observe(Have::from(now.unwrap_or_default()));
    }

    fn observe(&mut self, now: Have) {
        match &mut self.latest {
            Some(latest) if latest.epoch == now.epoch => latest.seq = latest.seq.max(now.seq),
            latest => *latest = Some(now),
        }
    }

    /// Entries and updates arrived. Up to `capacity` of them go to `sink`.
    pub fn on_deliver(&mut self, deliver: Deliver, capacity: usize, sink: &mut impl Sink) {
        let mut free = capacity.saturating_sub(self.reserved());
        let Deliver { receiver_seq, raised, entries, updates } = deliver;
        let end = Have::from(receiver_seq.unwrap_or_default());
        let is_complete = (entries.len() + updates.len()) as u64 >= u64::from(raised);
        let start = end.seq.saturating_sub(raised.into());
        let mut delivery = Delivery { start, end: end.seq, entries, updates };
        self.observe(end);
        let continues = self.known.is_some_and(|known| known.epoch == end.epoch && start <= known.seq);
        let is_takable = self.takes_updates() || delivery.updates.is_empty();
        if is_complete && continues && is_takable {
            self.take(delivery, &mut free, sink);
            self.take_early(&mut free, sink);
            return;
        }
        delivery.entries =
            delivery.entries.into_iter().filter_map(|entry| self.hand_over(entry, &mut free, sink)).collect();
        if is_complete && !self.early.hold(end.epoch, delivery) {
            self.is_overdue = true;
        }
    }

    /// Whether updates are handed over. While a page of changes is in flight they wait for it: the page may describe an older
    /// state, and the last one that the application gets must be the newest.
    fn takes_updates(&self) -> bool {
        self.scan.as_ref().is_none_or(|scan| !scan.in_flight)
    }

    /// Takes the deliveries that continue from `known`.
    fn take_early(&mut self, free: &mut usize, sink: &mut impl Sink) {
        while let Some(known) = self.known
            && let Some(delivery) = self.early.next(known.epoch, known.seq, self.takes_updates())
        {
            self.take(delivery, free, sink);
        }
    }

    /// Takes a delivery that continues from `known`.
    fn take(&mut self, delivery: Delivery, free: &mut usize, sink: &mut impl Sink) {
        for entry in delivery.entries {
            if let Some(entry) = self.hand_over(entry, free, sink) {
                self.gaps.add(entry.conversation, entry.conversation_seq);
            }
        }
        let Some(known) = self.known.filter(|known| known.seq < delivery.end) else { return };
        for update in delivery.updates {
            // Without space, `known` stays: a later answer to `changes` has the state that the update describes.
            if *free == 0 || sink.offer(Change::Update(Box::new(update))).is_some() {
                return;
            }
            *free -= 1;
        }
        self.known = Some(Have { seq: delivery.end, ..known });
    }

    /// Hands an entry over if it is the next one of its conversation. Returns an entry that has to be fetched.
    fn hand_over(&mut self, entry: Entry, free: &mut usize, sink: &mut impl Sink) -> Option<Entry> {
        if self.rewind.is_some() {
            return Some(entry);
        }
        let seq = entry.conversation_seq;
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
            return None;
        }
        if seq - *position > 1 || *free == 0 {
            return Some(entry);
        }
        match sink.offer(Change::Entry(Box::new(entry))) {
            Some(Change::Entry(entry)) => Some(*entry),
            _ => {
                (*position, *free) = (seq, *free - 1);
                None
            }
        }
    }

    /// The next request, if there is one. `capacity`: how many changes the application can take; a page is requested
    /// only if all of it fits.
    pub fn next_request(&mut self, capacity: usize) -> Option<Request> {
        if self.needs_scan() {
            self.is_overdue = false;
            // During a rewind every position has to be checked, so the device asks for everything.
            let have = self.known.filter(|_| self.rewind.is_none()).map(Into::into);
            let epoch = self.latest.map(|latest| latest.epoch);
            self.scan = Some(Scan { have, epoch, cursor: String::new(), in_flight: false });
        }
        let reserved = self.reserved();
        if let Some(scan) = self.scan.as_mut().filter(|scan| !scan.in_flight) {
            if capacity <= reserved {
                return None;
            }
            scan.in_flight = true;
            return Some(Request::Changes { have: scan.have, cursor: scan.cursor.clone() });
        }
        if self.rewind.is_some() || capacity < reserved + PAGE {
            return None;
        }
        let (conversation, after) = self.gaps.request_next(&self.positions)?;
        Some(Request::History { conversation, after })
    }
}

#[cfg(test)]
mod tests;
