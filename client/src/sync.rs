//! Catching up: which entries the application has seen, what is missing, and what to ask for it.
//!
//! A state machine without a socket. It is told what the server says and gives entries to hand over, each once and in
//! order per conversation, and requests to send. Two levels of knowledge keep it honest:
//!
//! - per conversation, a *position*: everything up to it was handed over. An entry is handed over only if it is the
//!   next one, or comes from a page of history after the position. Everything else is fetched.
//! - for the whole user, the receiver's seq. `have` is what is complete now. `promised` is what will be complete when
//!   all that was asked for has been answered; only then `have` becomes `promised`.
//!
//! When the server's data were restored from a backup, positions may be ahead of them, and the numbers above are given again.
//! A welcome with another *generation* says so. Then nothing is handed over until the heads have told how far
//! each conversation was kept, and positions go back to there.
//!
//! Memory is bounded by the number of conversations: entries that can't be handed over are not kept, they are fetched
//! again when there is room.

use crate::state::{Have, State};
use abi::{
    ApiError,
    v1::{Deliver, Entry, Head, HeadsPage, HistoryPage, ReceiverSeq},
};
use std::collections::{BTreeMap, VecDeque};

/// Entries in a page of history that is asked for.
pub const PAGE: usize = 100;
/// Heads in a page that is asked for.
pub const HEADS_PAGE: i32 = abi::MAX_PAGE;
/// Pages of history that are asked for at a time.
const MAX_ASKED: usize = 4;

/// Where a device begins that has no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first entry of every conversation that the user can see.
    #[default]
    Beginning,
    /// With what comes after the first [`crate::Event::CaughtUp`]; what comes shortly before that may be left out.
    Now,
}

/// What to ask the server.
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

/// Takes entries over. A position moves only past what was taken.
pub trait Taker {
    /// Takes an entry over, or gives it back when there is no place for it.
    fn take(&mut self, entry: Entry) -> Option<Entry>;
}

impl Taker for Vec<Entry> {
    fn take(&mut self, entry: Entry) -> Option<Entry> {
        self.push(entry);
        None
    }
}

/// A conversation of which something is missing.
#[derive(Debug)]
struct Fetch {
    /// There is an entry with this number.
    want: u64,
    /// What was known to exist when the page that is on its way was asked for.
    asked: Option<u64>,
}

/// The state machine. See the module's page.
#[derive(Debug)]
pub struct Sync {
    have: Option<Have>,
    promised: Option<Have>,
    positions: BTreeMap<String, u64>,
    /// Heads are being read; the conversation after which the next page begins.
    round: Option<Round>,
    /// Something happened that only another reading of heads explains.
    again: Option<Have>,
    fetches: BTreeMap<String, Fetch>,
    /// Conversations in `fetches` that are not asked for yet.
    queue: VecDeque<String>,
    asked: usize,
    /// The first heads set positions and fetch nothing.
    baseline: bool,
    /// Positions set by the baseline since [`Sync::take_baseline`].
    new_positions: BTreeMap<String, u64>,
    /// Of the server's data, that `positions` are of.
    generation: u32,
    /// The server is in another generation, and how far positions hold there is being read.
    rewind: Option<Rewind>,
    /// For [`Sync::take_restored`].
    restored: Option<(u32, BTreeMap<String, u64>)>,
}

/// On the way into another generation.
#[derive(Debug)]
struct Rewind {
    /// The one of the server.
    generation: u32,
    /// It began from the device's: entries up to `kept_seq` of a head are the same. Otherwise nothing is known to be.
    follows: bool,
    /// Positions in the device's generation.
    old: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Round {
    after: String,
    asked: bool,
}

impl Sync {
    /// Goes on from a state.
    pub fn new(state: State, start: Start) -> Self {
        Self {
            baseline: start == Start::Now && state.is_new(),
            have: state.have,
            promised: state.have,
            positions: state.positions,
            generation: state.generation,
            rewind: None,
            restored: None,
            round: None,
            again: None,
            fetches: BTreeMap::new(),
            queue: VecDeque::new(),
            asked: 0,
            new_positions: BTreeMap::new(),
        }
    }

    /// The receiver's seq up to which everything was handed over, as `hello` tells it.
    pub fn have(&self) -> Option<ReceiverSeq> {
        self.have.map(Into::into)
    }

    /// Up to where a conversation was handed over.
    pub fn position(&self, conversation: &str) -> Option<u64> {
        self.positions.get(conversation).copied()
    }

    /// Whether nothing is missing as far as is known.
    pub fn is_idle(&self) -> bool {
        self.round.is_none() && self.again.is_none() && self.fetches.is_empty()
    }

    /// Whether a page of history waits for room.
    pub fn waits_for_room(&self) -> bool {
        !self.queue.is_empty() && self.asked == 0 && self.rewind.is_none()
    }

    /// Places that the pages on their way need.
    pub fn promised_places(&self) -> usize {
        self.asked * PAGE
    }

    /// Positions that were set without entries, since the last call.
    pub fn take_baseline(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.new_positions)
    }

    /// Conversations in which the device went back because the server's data did, with how far they were kept, and the
    /// generation in which that is so; since the last call.
    pub fn take_restored(&mut self) -> Option<(u32, BTreeMap<String, u64>)> {
        self.restored.take()
    }

    /// What the welcome says of generations; before [`Sync::on_welcome`].
    pub fn on_generation(&mut self, now: u32, before: u32) {
        if let Some(unfinished) = self.rewind.take() {
            self.positions = unfinished.old;
        }
        if now == self.generation {
            return;
        }
        if self.positions.is_empty() {
            self.generation = now;
            self.restored = Some((now, BTreeMap::new()));
        } else {
            let (follows, old) = (before == self.generation, std::mem::take(&mut self.positions));
            self.rewind = Some(Rewind { generation: now, follows, old });
        }
    }

    /// A connection was welcomed. What was asked on an earlier one is forgotten.
    pub fn on_welcome(&mut self, now: Option<ReceiverSeq>) {
        self.fetches.clear();
        self.queue.clear();
        self.asked = 0;
        self.round = None;
        self.again = None;
        self.promised = self.have;
        let now = Have::from(now.unwrap_or_default());
        if self.have != Some(now) || self.rewind.is_some() {
            self.again = Some(now);
        }
    }

    /// The server said where the receiver's seq is (a pong).
    pub fn on_seq(&mut self, now: Option<ReceiverSeq>) {
        self.look(Have::from(now.unwrap_or_default()), 0, false);
    }

    /// Entries came. `room` is how many can be handed over; those go to `out`.
    pub fn on_deliver(&mut self, deliver: Deliver, room: usize, out: &mut impl Taker) {
        let mut left = room.saturating_sub(self.promised_places());
        let (raised, whole) = (deliver.raised, deliver.entries.len() as u64 == u64::from(deliver.raised));
        for entry in deliver.entries {
            let number = entry.conversation_seq;
            if self.rewind.is_some() {
                self.want(entry.conversation, number);
                continue;
            }
            let position = match self.positions.get_mut(&entry.conversation) {
                Some(position) => position,
                None => {
                    // At the baseline, "now" begins with what is delivered; later, with the first visible entry.
                    let before = if self.baseline { number.saturating_sub(1) } else { 0 };
                    if self.baseline {
                        self.new_positions.insert(entry.conversation.clone(), before);
                    }
                    self.positions.entry(entry.conversation.clone()).or_insert(before)
                }
            };
            if number <= *position {
                continue;
            }
            let is_next = number - *position == 1 && left > 0;
            match if is_next { out.take(entry) } else { Some(entry) } {
                None => (*position, left) = (number, left - 1),
                Some(entry) => self.want(entry.conversation, number),
            }
        }
        if let Some(seq) = deliver.receiver_seq {
            self.look(seq.into(), raised, whole);
        }
    }

    /// Compares the server's seq with what is promised. `whole`: the last `raised` changes up to it were in the frame.
    fn look(&mut self, now: Have, raised: u32, whole: bool) {
        let Some(promised) = self.promised.filter(|promised| promised.epoch == now.epoch) else {
            self.again = Some(now);
            return;
        };
        if now.seq <= promised.seq {
            return;
        }
        if whole && now.seq - u64::from(raised).min(now.seq) <= promised.seq {
            self.promised = Some(now);
        } else {
            self.again = match self.again {
                Some(again) if again.epoch == now.epoch && again.seq > now.seq => Some(again),
                _ => Some(now),
            };
        }
    }

    fn want(&mut self, conversation: String, number: u64) {
        if let Some(fetch) = self.fetches.get_mut(&conversation) {
            fetch.want = fetch.want.max(number);
        } else {
            self.queue.push_back(conversation.clone());
            self.fetches.insert(conversation, Fetch { want: number, asked: None });
        }
    }

    /// The next request, if there is one and its answer would find room.
    pub fn next_request(&mut self, room: usize) -> Option<Request> {
        if self.round.is_none()
            && let Some(now) = self.again.take()
        {
            // What is in the heads from here on includes everything up to `now`.
            self.promised = Some(now);
            self.round = Some(Round { after: String::new(), asked: false });
        }
        if let Some(round) = self.round.as_mut().filter(|round| !round.asked) {
            round.asked = true;
            return Some(Request::Heads { after: round.after.clone() });
        }
        if self.rewind.is_some() || self.asked >= MAX_ASKED || room < self.promised_places() + PAGE {
            return None;
        }
        let conversation = self.queue.pop_front()?;
        let fetch = self.fetches.get_mut(&conversation).expect("a queued conversation has its fetch");
        fetch.asked = Some(fetch.want);
        self.asked += 1;
        let after = self.positions.get(&conversation).copied().unwrap_or(0);
        Some(Request::History { conversation, after })
    }

    /// A page of heads came.
    pub fn on_heads(&mut self, page: HeadsPage) {
        let Some(round) = self.round.as_mut() else { return };
        round.asked = false;
        match page.heads.last() {
            Some(last) if page.more => round.after.clone_from(&last.conversation),
            _ => self.round = None,
        }
        for head in page.heads {
            self.on_head(head);
        }
        if self.round.is_none() {
            self.baseline = false;
            self.end_rewind();
        }
    }

    /// All heads were read: every position is one of the server's generation.
    fn end_rewind(&mut self) {
        let Some(Rewind { generation, old, .. }) = self.rewind.take() else { return };
        // What has no head any more was kept not at all, as far as this user can see.
        let kept = |conversation: &str| self.positions.get(conversation).copied().unwrap_or(0);
        let back = old.into_iter().filter_map(|(conversation, position)| {
            let kept = kept(&conversation);
            (kept < position).then_some((conversation, kept))
        });
        let back: BTreeMap<_, _> = back.collect();
        if !back.is_empty() {
            // Wherever the receiver's seq stands: what follows the kept entries is not here.
            self.have = None;
        }
        self.restored = Some((generation, back));
        self.generation = generation;
    }

    fn on_head(&mut self, head: Head) {
        let before_visible = head.visible_from.saturating_sub(1);
        if let Some(Rewind { follows, old, .. }) = &self.rewind
            && let Some(position) = old.get(&head.conversation)
        {
            let kept = if *follows { head.kept_seq.min(*position) } else { 0 };
            self.positions.insert(head.conversation.clone(), kept);
        }
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
            self.want(head.conversation, head.conversation_seq);
        }
    }

    /// A page of history came. It was asked for with room; what finds none all the same is asked for again.
    pub fn on_history(&mut self, conversation: &str, page: HistoryPage, out: &mut impl Taker) {
        let Some(fetch) = self.fetches.get_mut(conversation) else { return };
        let Some(asked) = fetch.asked.take() else { return };
        self.asked -= 1;
        let position = self.positions.entry(conversation.to_owned()).or_insert(0);
        let (before, mut is_full) = (*position, false);
        for entry in page.entries {
            // The page is the truth about what the user can see: a jump is an invisible part, not a gap. What is not of
            // this conversation was not asked for.
            let number = entry.conversation_seq;
            if entry.conversation == conversation && number > *position {
                is_full = out.take(entry).is_some();
                if is_full {
                    break;
                }
                *position = number;
            }
        }
        // A server that says "more" and gives nothing new is not asked for ever.
        let more = is_full || page.more && *position > before;
        // A page that was asked for before an entry was known may lack it.
        if *position < fetch.want && (more || asked < fetch.want) {
            self.queue.push_back(conversation.to_owned());
        } else {
            self.fetches.remove(conversation);
        }
    }

    /// A request failed. One that may succeed later is asked again by the next [`Sync::next_request`].
    pub fn on_failed(&mut self, request: &Request, fault: &ApiError) {
        match request {
            Request::Heads { .. } => {
                if let Some(round) = self.round.as_mut() {
                    round.asked = false;
                }
            }
            Request::History { conversation, .. } => {
                let Some(fetch) = self.fetches.get_mut(conversation) else { return };
                if fetch.asked.take().is_none() {
                    return;
                }
                self.asked -= 1;
                if fault.code.is_retryable() {
                    self.queue.push_back(conversation.clone());
                } else {
                    // Not for this user any more: there is nothing left to fetch.
                    self.fetches.remove(conversation);
                }
            }
        }
    }

    /// Moves `have` if everything that was promised is here; gives it if it moved.
    pub fn settle(&mut self) -> Option<Have> {
        if self.round.is_some()
            || self.rewind.is_some()
            || !self.fetches.is_empty()
            || self.promised == self.have
        {
            return None;
        }
        self.have = self.promised;
        self.have
    }
}

#[cfg(test)]
mod tests;
