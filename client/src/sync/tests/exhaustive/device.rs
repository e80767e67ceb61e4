//! A device of the model: a connection, pushes on their way to it, and its application.

use super::{
    super::*,
    server::{Mistake, Server, Subjects},
};
use abi::v1::Blocks;

const NAMES: [&str; 2] = ["a", "b"];

/// A push on its way. A push without content is a notification.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Push {
    pub(super) now: (u32, u64),
    /// Conversation, conversation_seq, id.
    pub(super) entry: Option<(usize, u64, Option<u8>)>,
    pub(super) version: Option<u8>,
}

/// A request, and how far the server is with it.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) enum Exchange {
    Asked(Request),
    /// The subjects are known, the heads are not read. The receiver seq may be read with them or after them.
    Looked(Subjects, Option<(u32, u64)>),
    Changes {
        now: (u32, u64),
        everything: bool,
        heads: Vec<(usize, u64, u64)>,
        version: Option<u8>,
    },
    /// Conversation, first conversation_seq, ids.
    History(usize, u64, Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Device {
    pub(super) sync: Sync,
    pub(super) is_connected: bool,
    pub(super) pushes: Vec<Push>,
    pub(super) exchange: Option<Exchange>,
    /// The application: the ids of the entries, the version of the user's state, the generation of both.
    pub(super) seen: [Vec<u8>; 2],
    pub(super) version: u8,
    pub(super) generation: u32,
}

impl Device {
    pub(super) fn new() -> Self {
        Self {
            sync: Sync::new(State::default(), Start::Beginning),
            is_connected: false,
            pushes: Vec::new(),
            exchange: None,
            seen: Default::default(),
            version: 0,
            generation: 0,
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.is_connected = false;
        self.pushes.clear();
        self.exchange = None;
    }

    pub(super) fn connect(&mut self, server: &Server) {
        self.is_connected = true;
        self.sync.on_generation(server.generation, server.before);
        self.sync.on_welcome(seq(server.now.0, server.now.1));
    }

    pub(super) fn read_push(&mut self, push: Push) {
        let entries = push.entry.map(|(index, seq, id)| stored_entry(index, seq, id.unwrap_or_default()));
        let deliver = Deliver {
            receiver_seq: seq(push.now.0, push.now.1),
            raised: 1,
            entries: entries.into_iter().collect(),
            updates: push.version.map(|version| update(&version.to_string())).into_iter().collect(),
        };
        let mut out = Vec::new();
        self.sync.on_deliver(deliver, 1_000, &mut out);
        self.show(out);
    }

    /// The next part of the exchange.
    pub(super) fn exchange(&mut self, server: &Server, mistake: Mistake) {
        let Some(exchange) = self.exchange.take() else { return };
        match exchange {
            Exchange::Asked(Request::Changes { have, .. }) => {
                let now = (mistake != Mistake::SeqReadAfterHeads).then_some(server.now);
                let subjects = server.subjects(have.map(|have| (have.epoch, have.seq)));
                let heads = now.is_none().then(|| answer(server, &subjects, (0, 0)));
                // With this mistake the heads are read at once, and the receiver seq when the answer is sent.
                self.exchange = Some(heads.unwrap_or(Exchange::Looked(subjects, now)));
            }
            Exchange::Asked(Request::History { conversation, after }) => {
                let index = index(&conversation);
                // One entry per page.
                let ids = server.stored[index].iter().skip(after as usize).take(1).copied().collect();
                self.exchange = Some(Exchange::History(index, after + 1, ids));
            }
            Exchange::Looked(subjects, now) => {
                self.exchange = Some(answer(server, &subjects, now.unwrap_or(server.now)));
            }
            Exchange::Changes { now, everything, heads, version } => {
                let now = if mistake == Mistake::SeqReadAfterHeads { server.now } else { now };
                let head = |(index, last, kept): (usize, u64, u64)| Head {
                    kept_seq: kept,
                    ..head(NAMES[index], last, 1)
                };
                let page = Changes {
                    receiver_seq: seq(now.0, now.1),
                    everything,
                    heads: heads.into_iter().map(head).collect(),
                    blocks: version.map(|version| Blocks { users: vec![version.to_string()], more: false }),
                    ..Changes::default()
                };
                let mut out = Vec::new();
                self.sync.on_changes(page, 1_000, &mut out);
                self.show(out);
            }
            Exchange::History(index, first, ids) => {
                let entries =
                    ids.iter().zip(first..).map(|(id, seq)| stored_entry(index, seq, *id)).collect();
                let mut out = Vec::new();
                // The page is not known to be the last one.
                let page = HistoryPage { entries, more: !ids.is_empty() };
                self.sync.on_history(NAMES[index], page, &mut out);
                self.show(out);
            }
        }
    }

    fn show(&mut self, out: Vec<Change>) {
        for change in out {
            match change {
                Change::Entry(entry) => {
                    self.seen[index(&entry.conversation)].push(entry.message_id.parse().unwrap())
                }
                Change::Update(update) => match update.kind {
                    Some(update::Kind::Block(block)) => self.version = block.user.parse().unwrap(),
                    other => panic!("not a block: {other:?}"),
                },
                Change::Changes(page) => {
                    let version = page.blocks.map(|blocks| blocks.users[0].parse().unwrap());
                    self.version = version.unwrap_or(self.version);
                }
            }
        }
    }

    /// What a client does after every step.
    pub(super) fn settle(&mut self) {
        if let Some((generation, kept)) = self.sync.take_restored() {
            self.generation = generation;
            for (conversation, kept) in kept {
                self.seen[index(&conversation)].truncate(kept as usize);
            }
        }
        self.sync.advance();
        if self.is_connected && self.exchange.is_none() {
            self.exchange = self.sync.next_request(1_000).map(Exchange::Asked);
        }
    }

    pub(super) fn has_all(&self, server: &Server) -> bool {
        self.seen == server.stored && self.version == server.version && self.sync.is_idle()
    }
}

fn index(conversation: &str) -> usize {
    NAMES.iter().position(|name| *name == conversation).unwrap()
}

fn stored_entry(index: usize, seq: u64, id: u8) -> Entry {
    Entry { message_id: id.to_string(), ..entry(NAMES[index], seq) }
}

fn answer(server: &Server, subjects: &Subjects, now: (u32, u64)) -> Exchange {
    let known = (0..2).filter(|index| subjects.changed[*index] && !server.stored[*index].is_empty());
    let heads = known.map(|index| (index, server.stored[index].len() as u64, server.kept[index] as u64));
    let version = subjects.changed[2].then_some(server.version);
    Exchange::Changes { now, everything: subjects.everything, heads: heads.collect(), version }
}
