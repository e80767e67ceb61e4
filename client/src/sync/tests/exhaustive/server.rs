//! The server of the model: a store, a cache and pushes, as small as they can be.

use super::device::Push;

/// A planned change: an entry of a conversation, or a change of the user's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Entry(usize),
    Update,
    /// Two changes of the user's own state by two gateways. The one that is stored first is raised and pushed last.
    Updates,
}

/// The mistake of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    Nothing,
    /// The receiver seq is raised before the change can be read.
    RaisedBeforeStored,
    /// An answer to `changes` has a receiver seq that was read after the heads.
    SeqReadAfterHeads,
    /// A cache that lost its counters begins again in the same epoch.
    EpochKept,
    /// The generation stays the same after a restore.
    GenerationKept,
    /// A gateway pushes the state that it has written, not the one that it reads after it has raised the receiver seq.
    WrittenStatePushed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// The next planned change.
    pub(super) next: usize,
    /// The parts that are done of the next change.
    pub(super) parts: usize,
    /// The stored entries of each conversation; an id is used once.
    pub(super) stored: [Vec<u8>; 2],
    /// Entries that are visible to the user by the receiver seq.
    pub(super) raised: [usize; 2],
    /// The user's own state, and the last one that was raised.
    pub(super) version: u8,
    pub(super) raised_version: u8,
    pub(super) now: (u32, u64),
    /// Per subject (the conversations, the user's own state), the receiver seq of its last change.
    pub(super) index: [u64; 3],
    pub(super) generation: u32,
    pub(super) before: u32,
    /// The inheritance of this generation.
    pub(super) kept: [usize; 2],
    next_id: u8,
}

/// The subjects of an answer to `changes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subjects {
    pub(super) everything: bool,
    pub(super) changed: [bool; 3],
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            parts: 0,
            stored: Default::default(),
            raised: [0; 2],
            version: 0,
            raised_version: 0,
            now: (1, 0),
            index: [0; 3],
            generation: 1,
            before: 0,
            kept: [0; 2],
            next_id: 0,
        }
    }

    /// The next part of a change. Returns its push: a push that is on its way is like one that is not sent yet.
    pub(super) fn step(&mut self, item: Item, mistake: Mistake) -> Option<Push> {
        if self.parts == usize::from(mistake == Mistake::RaisedBeforeStored) {
            self.store(item);
        } else {
            self.raise(item);
        }
        self.parts += 1;
        let is_last = self.parts == if item == Item::Updates { 3 } else { 2 };
        let mut push = (self.parts > 1).then(|| self.push(item));
        if is_last {
            (self.next, self.parts) = (self.next + 1, 0);
        }
        if is_last && item == Item::Updates && mistake == Mistake::WrittenStatePushed {
            push = push.map(|push| Push { version: Some(self.version - 1), ..push });
        }
        push
    }

    fn store(&mut self, item: Item) {
        match item {
            Item::Entry(index) => {
                self.next_id += 1;
                self.stored[index].push(self.next_id);
            }
            Item::Update => self.version += 1,
            Item::Updates => self.version += 2,
        }
    }

    fn raise(&mut self, item: Item) {
        self.now.1 += 1;
        match item {
            Item::Entry(index) => {
                self.index[index] = self.now.1;
                self.raised[index] += 1;
            }
            Item::Update => {
                self.index[2] = self.now.1;
                self.raised_version += 1;
            }
            Item::Updates => {
                self.index[2] = self.now.1;
                self.raised_version = self.version;
            }
        }
    }

    fn push(&self, item: Item) -> Push {
        let entry =
            |index: usize| (index, self.stored[index].len() as u64, self.stored[index].last().copied());
        match item {
            Item::Entry(index) => Push { now: self.now, entry: Some(entry(index)), version: None },
            Item::Update | Item::Updates => Push { now: self.now, entry: None, version: Some(self.version) },
        }
    }

    /// The log redelivers the last change: it is a duplicate, raised and pushed as a notification.
    pub(super) fn redeliver(&mut self, plan: &[Item]) -> Push {
        self.now.1 += 1;
        match plan[self.next - 1] {
            Item::Entry(index) => self.index[index] = self.now.1,
            Item::Update | Item::Updates => self.index[2] = self.now.1,
        }
        Push { now: self.now, entry: None, version: None }
    }

    /// The cache has lost its content.
    pub(super) fn lose_cache(&mut self, mistake: Mistake) {
        let epoch = self.now.0 + u32::from(mistake != Mistake::EpochKept);
        self.now = (epoch, u64::from(mistake != Mistake::EpochKept));
        self.index = [0; 3];
    }

    /// The store is restored from a backup without the last entry of a conversation. The plan continues with other entries.
    pub(super) fn restore(&mut self, index: usize, mistake: Mistake) {
        self.stored[index].pop();
        self.raised[index] = self.raised[index].min(self.stored[index].len());
        self.kept = [self.stored[0].len(), self.stored[1].len()];
        if mistake != Mistake::GenerationKept {
            (self.before, self.generation) = (self.generation, self.generation + 1);
        }
    }

    /// What has changed since a receiver seq.
    pub(super) fn subjects(&self, have: Option<(u32, u64)>) -> Subjects {
        let since = have.filter(|have| have.0 == self.now.0 && have.1 <= self.now.1);
        let is_new = |changed_at: u64| since.is_none_or(|since| changed_at > since.1);
        Subjects { everything: since.is_none(), changed: self.index.map(is_new) }
    }
}
