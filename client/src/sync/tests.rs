use super::*;
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{Block, Changes, Head, HistoryPage, Update, update},
};
use std::time::{Duration, Instant};

mod catching_up;
mod exhaustive;
mod model;
mod overtaken;
mod restored;

fn seq(epoch: u32, seq: u64) -> Option<ReceiverSeq> {
    Some(ReceiverSeq { epoch, seq })
}

fn at(seq: u64) -> Option<Have> {
    Some(Have { epoch: 1, seq })
}

fn entry(conversation: &str, conversation_seq: u64) -> Entry {
    Entry { conversation: conversation.into(), conversation_seq, ..Entry::default() }
}

fn deliver(at: u64, raised: u32, entries: &[(&str, u64)]) -> Deliver {
    let entries = entries.iter().map(|(conversation, seq)| entry(conversation, *seq)).collect();
    Deliver { receiver_seq: seq(1, at), raised, entries, updates: Vec::new() }
}

fn update(user: &str) -> Update {
    let block = Block { user: user.into(), blocked: true };
    Update { kind: Some(update::Kind::Block(block)) }
}

fn updated(at: u64, user: &str) -> Deliver {
    Deliver { receiver_seq: seq(1, at), raised: 1, entries: Vec::new(), updates: vec![update(user)] }
}

fn head(conversation: &str, conversation_seq: u64, visible_from: u64) -> Head {
    Head { conversation: conversation.into(), conversation_seq, visible_from, ..Head::default() }
}

/// A device that has everything up to (1, 10) and position 5 in `a`.
fn device() -> Sync {
    let state =
        State { have: at(10), positions: [("a".to_owned(), 5)].into_iter().collect(), ..State::default() };
    let mut sync = Sync::new(state, Start::Beginning);
    sync.on_welcome(seq(1, 10));
    sync
}

/// What the application got, in short: `a6` for an entry, `+USER` for an update, `page` for a page of changes.
fn names(out: &[Change]) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Entry(entry) => format!("{}{}", entry.conversation, entry.conversation_seq),
        Change::Update(update) => match &update.kind {
            Some(update::Kind::Block(block)) => format!("+{}", block.user),
            other => panic!("not a block: {other:?}"),
        },
        Change::Changes(_) => "page".to_owned(),
    };
    out.iter().map(name).collect()
}

fn give(sync: &mut Sync, frame: Deliver) -> Vec<String> {
    let mut out = Vec::new();
    sync.on_deliver(frame, 1_000, &mut out);
    names(&out)
}

/// Answers a request for changes with one page.
fn changes(sync: &mut Sync, now: Option<ReceiverSeq>, heads: Vec<Head>) -> Vec<String> {
    let mut out = Vec::new();
    let page = Changes { receiver_seq: now, heads, ..Changes::default() };
    sync.on_changes(page, 1_000, &mut out);
    names(&out)
}

fn history(after: u64) -> Request {
    Request::History { conversation: "a".into(), after }
}

fn since(have: Option<ReceiverSeq>) -> Request {
    Request::Changes { have, cursor: String::new() }
}

fn page(sync: &mut Sync, range: std::ops::RangeInclusive<u64>, more: bool) -> Vec<String> {
    let mut out = Vec::new();
    let entries = range.map(|seq| entry("a", seq)).collect();
    sync.on_history("a", HistoryPage { entries, more }, &mut out);
    names(&out)
}
