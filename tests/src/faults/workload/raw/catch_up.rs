//! Catching up as docs/protocol.md tells it: one question at a time, nothing clever.

use abi::v1::{Deliver, Entry, HeadsPage, HistoryPage, ReceiverSeq};
use client::{State, state::Have};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Pause before history is asked again that did not have what it should have.
const PAUSE: Duration = Duration::from_millis(200);

/// A question.
#[derive(Debug)]
pub(super) enum Want {
    Heads { after: String },
    History { conversation: String, after: u64 },
}

/// What a device has, and what it has to ask.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    have: Option<Have>,
    positions: BTreeMap<String, u64>,
    /// What `have` becomes when all questions are answered.
    target: Option<Have>,
    /// What the server said meanwhile: another round.
    again: Option<Have>,
    /// Heads are to be read after this conversation.
    heads: Option<String>,
    /// Conversations with the highest number that is known to be there.
    missing: BTreeMap<String, u64>,
    asked: bool,
    paused: Option<Instant>,
    /// `have`, when everything up to it has come since the last look.
    complete: Option<Have>,
}

impl CatchUp {
    pub(super) fn new(state: State) -> Self {
        Self { have: state.have, positions: state.positions, ..Self::default() }
    }

    pub(super) fn state(&self) -> State {
        State { have: self.have, positions: self.positions.clone() }
    }

    pub(super) fn have(&self) -> Option<ReceiverSeq> {
        self.have.map(Into::into)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.target.is_none() && self.missing.is_empty()
    }

    /// The receiver's seq up to which everything is here, when that is news.
    pub(super) fn take_complete(&mut self) -> Option<Have> {
        self.complete.take()
    }

    pub(super) fn disconnected(&mut self) {
        let (have, positions) = (self.have, std::mem::take(&mut self.positions));
        *self = Self { have, positions, ..Self::default() };
    }

    /// The server said where the receiver's seq is, by `welcome` or `pong`. Gives whether everything is here.
    pub(super) fn told(&mut self, now: ReceiverSeq) -> bool {
        let now = Have::from(now);
        if self.have != Some(now) {
            self.sync(now);
            return false;
        }
        if self.is_idle() {
            self.complete = self.have;
        }
        self.is_idle()
    }

    /// Takes a delivery; what is to be shown goes to `out`.
    pub(super) fn deliver(&mut self, deliver: Deliver, out: &mut Vec<Entry>) {
        let whole = deliver.entries.len() as u64 == u64::from(deliver.raised);
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
        match self.have {
            Some(have) if have.epoch == now.epoch && now.seq <= have.seq => {}
            Some(have)
                if have.epoch == now.epoch
                    && now.seq - u64::from(deliver.raised).min(now.seq) == have.seq
                    && whole
                    && self.is_idle() =>
            {
                self.have = Some(now);
                self.complete = self.have;
            }
            _ => self.sync(now),
        }
    }

    fn sync(&mut self, now: Have) {
        if self.target.is_some() {
            self.again = Some(now);
        } else {
            self.target = Some(now);
            self.heads = Some(String::new());
        }
    }

    /// The next question, if there is one now. It has to be asked.
    pub(super) fn want(&mut self, now: Instant) -> Option<Want> {
        if self.asked || self.paused.is_some_and(|until| until > now) {
            return None;
        }
        self.paused = None;
        let want = if let Some(after) = &self.heads {
            Want::Heads { after: after.clone() }
        } else {
            let conversation = self.missing.keys().next()?.clone();
            let after = self.positions.get(&conversation).copied().unwrap_or(0);
            Want::History { conversation, after }
        };
        self.asked = true;
        Some(want)
    }

    pub(super) fn heads(&mut self, page: HeadsPage) {
        self.asked = false;
        self.heads = page.heads.last().filter(|_| page.more).map(|last| last.conversation.clone());
        for head in page.heads {
            let before = head.visible_from.saturating_sub(1);
            let position = *self.positions.entry(head.conversation.clone()).or_insert(before);
            if head.conversation_seq > position {
                let missing = self.missing.entry(head.conversation).or_insert(0);
                *missing = head.conversation_seq.max(*missing);
            }
        }
        self.settle();
    }

    /// Takes a page; gives what is to be shown.
    pub(super) fn history(&mut self, conversation: &str, page: HistoryPage) -> Vec<Entry> {
        self.asked = false;
        let position = self.positions.entry(conversation.to_owned()).or_insert(0);
        let mut shown = Vec::new();
        for entry in page.entries {
            // Not the next one: what lies before is not for this user.
            if entry.conversation_seq > *position {
                *position = entry.conversation_seq;
                shown.push(entry);
            }
        }
        if self.missing.get(conversation).is_some_and(|missing| missing <= position) {
            self.missing.remove(conversation);
        } else if shown.is_empty() {
            self.paused = Some(Instant::now() + PAUSE);
        }
        self.settle();
        shown
    }

    pub(super) fn heads_failed(&mut self, until: Instant) {
        self.asked = false;
        self.paused = Some(until);
    }

    pub(super) fn history_failed(&mut self, conversation: &str, retryable: bool, until: Instant) {
        self.asked = false;
        if retryable {
            self.paused = Some(until);
        } else {
            // Not in it any more.
            self.missing.remove(conversation);
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.heads.is_some() || !self.missing.is_empty() || self.target.is_none() {
            return;
        }
        self.have = self.target.take();
        self.complete = self.have;
        if let Some(again) = self.again.take().filter(|again| self.have != Some(*again)) {
            self.sync(again);
        }
    }
}
