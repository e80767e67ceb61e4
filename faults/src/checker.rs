//! Compares what was seen with what is stored, line by line of the promise.

mod case;
mod claims;
mod devices;
mod pushed;
mod stored;

use super::{
    ledger::{Ledger, Outcome, Seen},
    store::StoreView,
    workload::NOT_TAKEN,
};
use case::Case;
use std::{collections::BTreeMap, fmt};

/// Examples that are kept of each kind of finding.
pub const EXAMPLES: usize = 10;

/// A way in which the promise can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// P1: acknowledged, and not stored, or not shown to a device that should have it.
    Lost,
    /// P1, P3: shown, or read as history, and not stored, or not in that place. Or a read position that was answered, and is not
    /// stored.
    Untrue,
    /// P2: one `client_msg_id` with two ids or two numbers, or shown twice.
    Duplicated,
    /// P3: the order of a sender, or the order of a conversation at a device, is not kept.
    OutOfOrder,
    /// P4: the numbers of a conversation are not 1, 2, 3, ...
    Gap,
    /// P4, P5: a device was told that it has everything, and had not.
    Lied,
    /// P5: a device lacks an entry at the end, or was shown one without those before it.
    Incomplete,
    /// P8: shown to, or taken from, somebody who is not in the conversation.
    Unauthorised,
    /// P9: a device or a send did not come back by itself.
    Stuck,
}

impl Kind {
    /// All kinds, in the order of the promise.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Untrue,
        Self::Duplicated,
        Self::OutOfOrder,
        Self::Gap,
        Self::Lied,
        Self::Incomplete,
        Self::Unauthorised,
        Self::Stuck,
    ];

    /// The lines of the promise that it breaks, and its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "P1 lost",
            Self::Untrue => "P1 shown otherwise than stored",
            Self::Duplicated => "P2 duplicated",
            Self::OutOfOrder => "P3 out of order",
            Self::Gap => "P4 gap in conversation_seq",
            Self::Lied => "P4/P5 receiver's seq that lied",
            Self::Incomplete => "P5 not caught up",
            Self::Unauthorised => "P8 unauthorised",
            Self::Stuck => "P9 did not come back",
        }
    }
}

/// How often something was found, with the first examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How often.
    pub count: u64,
    /// At most [`EXAMPLES`], each a sentence.
    pub examples: Vec<String>,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages that were begun.
    pub sent: u64,
    /// Acknowledged messages.
    pub acked: u64,
    /// Messages that were refused for good.
    pub refused: u64,
    /// Messages of which nobody knows.
    pub unknown: u64,
    /// Acknowledgements of retries after an acknowledgement.
    pub later_acks: u64,
    /// Entries in the store.
    pub stored: u64,
    /// Entries shown to devices.
    pub receipts: u64,
    /// Of those, shown while the device was up to date.
    pub live: u64,
    /// Times that a device was told that it has everything.
    pub claims: u64,
    /// Entries that were compared through the history of a member.
    pub read: u64,
    /// Changes of groups.
    pub changes: u64,
    /// Conversations.
    pub conversations: u64,
    /// Devices.
    pub devices: u64,
    /// Their lives.
    pub lives: u64,
}

/// What the comparison gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was compared.
    pub figures: Figures,
    /// What was found; a kind without a finding is absent.
    pub found: BTreeMap<Kind, Found>,
}

impl Verdict {
    /// Whether the promise was kept.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// How often something was found.
    pub fn count(&self, kind: Kind) -> u64 {
        self.found.get(&kind).map_or(0, |found| found.count)
    }

    /// Takes note of a finding; its sentence is made only while examples are wanted.
    fn find(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let found = self.found.entry(kind).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(example());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in Kind::ALL {
            writeln!(f, "{:<32} {}", kind.name(), self.count(kind))?;
            for example in self.found.get(&kind).into_iter().flat_map(|found| &found.examples) {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}

/// Compares a ledger with the store.
pub fn check(ledger: &Ledger, store: &StoreView) -> Verdict {
    let case = Case::new(ledger, store);
    let mut verdict = Verdict { figures: figures(ledger, store), ..Verdict::default() };
    stored::numbers(&case, &mut verdict);
    stored::origins(&case, &mut verdict);
    stored::sends(&case, &mut verdict);
    stored::order(&case, &mut verdict);
    stored::order_of_users(&case, &mut verdict);
    stored::order_of_changes(&case, &mut verdict);
    stored::changes(&case, &mut verdict);
    stored::histories(&case, &mut verdict);
    devices::receipts(&case, &mut verdict);
    claims::check(&case, &mut verdict);
    pushed::check(&case, &mut verdict);
    for (device, at, reason) in &ledger.ended {
        verdict.find(Kind::Stuck, || format!("{} ended at {at} ms: {reason}", case.device(*device)));
    }
    for unfinished in &ledger.unfinished {
        verdict.find(Kind::Stuck, || unfinished.clone());
    }
    verdict
}

fn figures(ledger: &Ledger, store: &StoreView) -> Figures {
    let mut figures = Figures {
        later_acks: ledger.later_acks.len() as u64,
        stored: store.conversations.values().map(|conversation| conversation.entries.len() as u64).sum(),
        read: ledger.histories.iter().map(|history| history.entries.len() as u64).sum(),
        changes: ledger.changes.len() as u64,
        conversations: store.conversations.len() as u64,
        devices: ledger.devices.len() as u64,
        ..Figures::default()
    };
    for send in &ledger.sends {
        match &send.outcome {
            Outcome::Refused { code, .. } if code == NOT_TAKEN => continue,
            Outcome::Refused { .. } => figures.refused += 1,
            Outcome::Acked { .. } => figures.acked += 1,
            Outcome::Unknown => figures.unknown += 1,
        }
        figures.sent += 1;
    }
    for life in ledger.devices.iter().flat_map(|device| &device.lives) {
        figures.lives += 1;
        for seen in &life.seen {
            match seen {
                Seen::Entry(receipt) => {
                    figures.receipts += 1;
                    figures.live += u64::from(receipt.live);
                }
                Seen::Complete { .. } => figures.claims += 1,
                Seen::UpToDate { .. }
                | Seen::Counted { .. }
                | Seen::Head { .. }
                | Seen::Unread { .. }
                | Seen::Unreadable { .. } => {}
            }
        }
    }
    figures
}

#[cfg(test)]
mod tests;
