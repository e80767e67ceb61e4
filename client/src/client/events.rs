//! The bounded channel from the connection to the application. The state moves as the application takes events.

use crate::{
    Error,
    state::{Have, State},
    sync::{self, Change, Sync},
};
use abi::v1::{Changes, Entry, Signal, Update, Welcome};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc::{self, error::TrySendError};

/// Slots of the channel reserved for events other than changes.
const RESERVED: usize = 16;

/// An event of a device.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection was welcomed.
    Connected(Box<Welcome>),
    /// The device has received all changes up to now.
    CaughtUp,
    /// The next entry of a conversation: a message, a change of a message ([`crate::apply()`] applies it), a change of a
    /// group, or a kind that the application does not know and ignores.
    Entry(Box<Entry>),
    /// A page of what changed while the device was away. It replaces the application's copies of the heads, of the profile
    /// and of the blocks that it has. If `everything` is set, conversations that no page names do not exist. The entries
    /// follow one by one; some may have come before. The number of unread messages is therefore that of the head, plus the
    /// countable entries of others after its `countable_seq`.
    Changes(Box<Changes>),
    /// The user's own state changed while the device was connected: a conversation was read on some device, another member
    /// has read entries of the user, or settings, blocks or the profile changed.
    Update(Box<Update>),
    /// The server was restored from a backup older than the entries that this device has seen. In each listed conversation
    /// the server has kept the entries up to the given conversation_seq; later entries that the application has seen are
    /// not stored. The server assigns their numbers again: to other entries, or to the same ones if they were still in
    /// its log. Tell them apart by their message ids.
    Restored {
        /// The last kept conversation_seq per conversation; 0: none.
        kept: BTreeMap<String, u64>,
    },
    /// A signal of another user: typing, presence, delivered, or one of the product. Delivery is best effort.
    Signal(Box<Signal>),
    /// The connection was lost. The client reconnects after a pause.
    Disconnected {
        /// The reason.
        error: Error,
        /// The pause.
        retry_in: Duration,
    },
    /// The client has ended and will not connect again.
    Ended(Error),
}

/// An item of the channel.
#[derive(Debug)]
pub(super) enum Item {
    Event(Event),
    Change(Change, Option<Have>),
    Have(Have),
    Baseline(BTreeMap<String, u64>),
    Restored(u32, BTreeMap<String, u64>),
}

/// The events of a client, in order.
#[derive(Debug)]
pub struct Events {
    items: mpsc::Receiver<Item>,
    state: Arc<Mutex<State>>,
}

impl Events {
    /// The next event; `None` after [`Event::Ended`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.items.recv().await?;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match item {
                Item::Event(event) => return Some(event),
                Item::Change(change, have) => {
                    let event = match change {
                        Change::Entry(entry) => {
                            state.record(&entry);
                            Event::Entry(entry)
                        }
                        Change::Update(update) => Event::Update(update),
                        Change::Changes(changes) => Event::Changes(changes),
                    };
                    state.have = have.or(state.have);
                    return Some(event);
                }
                Item::Have(have) => state.have = Some(have),
                Item::Restored(generation, kept) => {
                    state.restore(generation, &kept);
                    if !kept.is_empty() {
                        return Some(Event::Restored { kept });
                    }
                }
                Item::Baseline(positions) => {
                    for (conversation, position) in positions {
                        state.positions.entry(conversation).or_insert(position);
                    }
                }
            }
        }
    }
}

/// The sending half. It never waits: changes that do not fit stay at the server.
#[derive(Debug)]
pub(super) struct EventSender {
    items: mpsc::Sender<Item>,
    /// A `have` that did not fit; a later one replaces it.
    unsent_have: Option<Have>,
    /// Positions that did not fit.
    unsent_baseline: BTreeMap<String, u64>,
    /// A new generation that did not fit. It is sent before anything else.
    unsent_restored: Option<(u32, BTreeMap<String, u64>)>,
}

pub(super) fn channel(capacity: usize, state: Arc<Mutex<State>>) -> (EventSender, Events) {
    // A page of history must fit beside changes and events that the application has not taken yet.
    let (items, out) = mpsc::channel(capacity.max(2 * sync::PAGE) + RESERVED);
    let sender =
        EventSender { items, unsent_have: None, unsent_baseline: BTreeMap::new(), unsent_restored: None };
    (sender, Events { items: out, state })
}

impl EventSender {
    /// Free slots for changes.
    pub(super) fn capacity(&self) -> usize {
        if self.items.is_closed() {
            // The application has dropped its half: changes are accepted and discarded.
            return usize::from(u16::MAX);
        }
        if self.unsent_restored.is_some() {
            return 0;
        }
        self.items.capacity().saturating_sub(RESERVED)
    }

    /// Waits until a page of history fits.
    pub(super) async fn wait_for_capacity(&self) {
        let _ = self.items.reserve_many(sync::PAGE + RESERVED).await;
    }

    /// Applies an update to `sync`, and sends the resulting changes and progress to the application.
    pub(super) fn update(&mut self, sync: &mut Sync, update: impl FnOnce(&mut Sync, &mut Slots<'_>)) {
        let mut slots = Slots { items: &self.items, is_blocked: self.unsent_restored.is_some(), last: None };
        update(sync, &mut slots);
        let restored = sync.take_restored();
        if restored.as_ref().is_some_and(|(_, kept)| !kept.is_empty()) {
            // `have` decreased, too.
            self.unsent_have = None;
        }
        self.unsent_have = sync.advance().or(self.unsent_have);
        slots.finish(|| if self.unsent_baseline.is_empty() { self.unsent_have.take() } else { None });
        self.send_restored(restored);
        self.send_baseline(sync.take_baseline());
        // `have` is true only together with these positions, so it follows them.
        if self.unsent_restored.is_none()
            && self.unsent_baseline.is_empty()
            && self.unsent_have.is_some()
            && let Ok(slot) = self.items.try_reserve()
            && let Some(have) = self.unsent_have.take()
        {
            slot.send(Item::Have(have));
        }
    }

    /// Sends a change of the generation.
    fn send_restored(&mut self, restored: Option<(u32, BTreeMap<String, u64>)>) {
        // If an earlier change is still unsent, merge them: both have decreased positions.
        if let Some((generation, mut kept)) = restored {
            if let Some((_, earlier)) = self.unsent_restored.take() {
                for (conversation, number) in earlier {
                    kept.entry(conversation).and_modify(|kept| *kept = number.min(*kept)).or_insert(number);
                }
            }
            self.unsent_restored = Some((generation, kept));
        }
        if self.unsent_restored.is_some()
            && let Ok(slot) = self.items.try_reserve()
            && let Some((generation, kept)) = self.unsent_restored.take()
        {
            slot.send(Item::Restored(generation, kept));
        }
    }

    /// Sends positions that were set without entries.
    fn send_baseline(&mut self, positions: BTreeMap<String, u64>) {
        self.unsent_baseline.extend(positions);
        if !self.unsent_baseline.is_empty()
            && let Ok(slot) = self.items.try_reserve()
        {
            slot.send(Item::Baseline(std::mem::take(&mut self.unsent_baseline)));
        }
    }

    /// Sends a signal, unless the slot is needed for a page in flight.
    pub(super) fn signal(&self, signal: Signal, sync: &Sync) {
        if self.capacity() > sync.reserved() {
            self.event(Event::Signal(Box::new(signal)));
        }
    }

    /// Sends another event. It is dropped while the channel is full.
    pub(super) fn event(&self, event: Event) {
        let _ = self.items.try_send(Item::Event(event));
    }

    /// Sends the end; waits until it fits.
    pub(super) async fn ended(&self, error: Error) {
        let _ = self.items.send(Item::Event(Event::Ended(error))).await;
    }
}

/// Slots of the channel, each reserved before its change is accepted.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    items: &'a mpsc::Sender<Item>,
    /// Another item has to be sent before any change.
    is_blocked: bool,
    /// The last change, held back to carry the `have` that it completes.
    last: Option<(mpsc::Permit<'a, Item>, Change)>,
}

impl Slots<'_> {
    /// Sends the last change together with `have`.
    fn finish(self, have: impl FnOnce() -> Option<Have>) {
        if let Some((slot, change)) = self.last {
            slot.send(Item::Change(change, have()));
        }
    }
}

impl sync::Sink for Slots<'_> {
    fn offer(&mut self, change: Change) -> Option<Change> {
        if self.is_blocked {
            return Some(change);
        }
        match self.items.try_reserve() {
            Ok(slot) => {
                if let Some((slot, change)) = self.last.replace((slot, change)) {
                    slot.send(Item::Change(change, None));
                }
                None
            }
            Err(TrySendError::Full(())) => Some(change),
            // The application has dropped its half: the change is discarded.
            Err(TrySendError::Closed(())) => None,
        }
    }
}

#[cfg(test)]
mod tests;
