//! The way from the connection to the application: bounded, and moving the state as things are taken out.

use crate::{
    Error,
    state::{Have, State},
    sync::{self, Sync},
};
use abi::v1::{Entry, ReadReceipt, Welcome};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc::{self, error::TrySendError};

/// Places in the channel that entries do not take.
const RESERVED: usize = 16;

/// What happens on a device.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection was welcomed.
    Connected(Welcome),
    /// The device has everything up to now.
    CaughtUp,
    /// The next entry of a conversation.
    Entry(Box<Entry>),
    /// The server's data were restored from a backup that is older than what this device has seen. Of each conversation that is
    /// named, the server has kept the entries up to the number given; what the application has with higher numbers
    /// it saw, but they are not stored. Those numbers come again, for other entries or, where the server still found them
    /// in its log, for the same: tell them apart by their message ids.
    Restored {
        /// The last number that was kept, by conversation; 0: none.
        kept: BTreeMap<String, u64>,
    },
    /// Somebody has read up to an entry. May be missed.
    Receipt(ReadReceipt),
    /// The connection was lost and is tried again after a pause.
    Disconnected {
        /// Why.
        error: Error,
        /// The pause.
        retry_in: Duration,
    },
    /// The client has ended and will not connect again.
    Ended(Error),
}

/// What travels in the channel.
#[derive(Debug)]
pub(super) enum Item {
    Event(Event),
    Entry(Box<Entry>, Option<Have>),
    Have(Have),
    Baseline(BTreeMap<String, u64>),
    Restored(u32, BTreeMap<String, u64>),
}

/// The events of a client, in their order.
#[derive(Debug)]
pub struct Events {
    items: mpsc::Receiver<Item>,
    state: Arc<Mutex<State>>,
}

impl Events {
    /// The next event; `None` after [`Event::Ended`]. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.items.recv().await?;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match item {
                Item::Event(event) => return Some(event),
                Item::Entry(entry, have) => {
                    state.took(&entry);
                    state.have = have.or(state.have);
                    return Some(Event::Entry(entry));
                }
                Item::Have(have) => state.have = Some(have),
                Item::Restored(generation, kept) => {
                    state.restored(generation, &kept);
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

/// The sending half. Never waits: what does not fit is left with the server.
#[derive(Debug)]
pub(super) struct EventSender {
    items: mpsc::Sender<Item>,
    /// A `have` that found no room; a later one replaces it.
    unsent: Option<Have>,
    /// The same for positions.
    unsent_baseline: BTreeMap<String, u64>,
    /// The same for another generation. Until it is sent nothing else is.
    unsent_restored: Option<(u32, BTreeMap<String, u64>)>,
}

pub(super) fn channel(capacity: usize, state: Arc<Mutex<State>>) -> (EventSender, Events) {
    // A page of history has to fit beside some entries and events that were not taken out yet.
    let (items, out) = mpsc::channel(capacity.max(2 * sync::PAGE) + RESERVED);
    let sender = EventSender { items, unsent: None, unsent_baseline: BTreeMap::new(), unsent_restored: None };
    (sender, Events { items: out, state })
}

impl EventSender {
    /// How many entries fit.
    pub(super) fn room(&self) -> usize {
        if self.items.is_closed() {
            // Nobody listens: entries are taken and forgotten.
            return usize::from(u16::MAX);
        }
        if self.unsent_restored.is_some() {
            return 0;
        }
        self.items.capacity().saturating_sub(RESERVED)
    }

    /// Waits until a page of history fits.
    pub(super) async fn wait_for_room(&self) {
        let _ = self.items.reserve_many(sync::PAGE + RESERVED).await;
    }

    /// Lets catching up take note of something, takes over the entries that it gives, and tells what is complete with them.
    pub(super) fn follow(&mut self, sync: &mut Sync, note: impl FnOnce(&mut Sync, &mut Places<'_>)) {
        let mut places = Places { items: &self.items, is_barred: self.unsent_restored.is_some(), last: None };
        note(sync, &mut places);
        let restored = sync.take_restored();
        if restored.as_ref().is_some_and(|(_, kept)| !kept.is_empty()) {
            // What was complete went back, too.
            self.unsent = None;
        }
        self.unsent = sync.settle().or(self.unsent);
        places.end(|| if self.unsent_baseline.is_empty() { self.unsent.take() } else { None });
        self.restored(restored);
        self.baseline(sync.take_baseline());
        // Not before the positions that it is true with.
        if self.unsent_restored.is_none()
            && self.unsent_baseline.is_empty()
            && self.unsent.is_some()
            && let Ok(place) = self.items.try_reserve()
            && let Some(have) = self.unsent.take()
        {
            place.send(Item::Have(have));
        }
    }

    /// Tells that the server's data are of another generation.
    fn restored(&mut self, restored: Option<(u32, BTreeMap<String, u64>)>) {
        // A later one replaces none that was not taken: positions of both went back.
        if let Some((generation, mut kept)) = restored {
            if let Some((_, earlier)) = self.unsent_restored.take() {
                for (conversation, number) in earlier {
                    kept.entry(conversation).and_modify(|kept| *kept = number.min(*kept)).or_insert(number);
                }
            }
            self.unsent_restored = Some((generation, kept));
        }
        if self.unsent_restored.is_some()
            && let Ok(place) = self.items.try_reserve()
            && let Some((generation, kept)) = self.unsent_restored.take()
        {
            place.send(Item::Restored(generation, kept));
        }
    }

    /// Tells of positions that were set without entries.
    fn baseline(&mut self, positions: BTreeMap<String, u64>) {
        self.unsent_baseline.extend(positions);
        if !self.unsent_baseline.is_empty()
            && let Ok(place) = self.items.try_reserve()
        {
            place.send(Item::Baseline(std::mem::take(&mut self.unsent_baseline)));
        }
    }

    /// Tells what somebody has read, where that takes no place of an entry on its way.
    pub(super) fn receipt(&self, receipt: ReadReceipt, sync: &Sync) {
        if self.room() > sync.promised_places() {
            self.event(Event::Receipt(receipt));
        }
    }

    /// Tells of something else. An application that takes nothing out misses it.
    pub(super) fn event(&self, event: Event) {
        let _ = self.items.try_send(Item::Event(event));
    }

    /// Tells the end, which is not missed.
    pub(super) async fn ended(&self, error: Error) {
        let _ = self.items.send(Item::Event(Event::Ended(error))).await;
    }
}

/// Places in the channel, each held before the entry for it is taken.
#[derive(Debug)]
pub(super) struct Places<'a> {
    items: &'a mpsc::Sender<Item>,
    /// Something has to be told before any entry.
    is_barred: bool,
    /// The last entry waits for what is complete with it.
    last: Option<(mpsc::Permit<'a, Item>, Box<Entry>)>,
}

impl Places<'_> {
    /// Hands over the last entry, with what is complete after it.
    fn end(self, have: impl FnOnce() -> Option<Have>) {
        if let Some((place, entry)) = self.last {
            place.send(Item::Entry(entry, have()));
        }
    }
}

impl sync::Taker for Places<'_> {
    fn take(&mut self, entry: Entry) -> Option<Entry> {
        if self.is_barred {
            return Some(entry);
        }
        match self.items.try_reserve() {
            Ok(place) => {
                if let Some((place, entry)) = self.last.replace((place, Box::new(entry))) {
                    place.send(Item::Entry(entry, None));
                }
                None
            }
            Err(TrySendError::Full(())) => Some(entry),
            // Nobody listens.
            Err(TrySendError::Closed(())) => None,
        }
    }
}

#[cfg(test)]
mod tests;
