//! The result of the comparison: violations by kind, with examples, and totals.

use std::{collections::BTreeMap, fmt};

/// Examples that are kept per kind of violation.
pub const EXAMPLES: usize = 10;

/// A kind of violation of the guarantees P1 to P9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// P1: an acknowledged message is not stored, or was not shown to a device that should have it.
    Lost,
    /// P1, P3: a device showed, or read as history, an entry that is not stored like that. Or a read position was answered
    /// and is not stored.
    Mismatch,
    /// P2: one `client_msg_id` has two message ids or two positions, or a device showed an entry twice.
    Duplicated,
    /// P3: entries are not in the order of the sender, or a device did not show them in the order of the conversation.
    OutOfOrder,
    /// P4: the `conversation_seq` of a conversation are not 1, 2, 3, ...
    Gap,
    /// P4, P5: the server stated that a device has everything, and an entry was missing.
    FalseClaim,
    /// P5: a device lacks an entry at the end, or showed an entry without the ones before it.
    Incomplete,
    /// P8: an entry was shown to, or accepted from, a user who is not a member of the conversation.
    Unauthorised,
    /// P9: a device or a send did not recover by itself.
    Stuck,
}

impl Violation {
    /// All kinds, in the order of the guarantees.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Mismatch,
        Self::Duplicated,
        Self::OutOfOrder,
        Self::Gap,
        Self::FalseClaim,
        Self::Incomplete,
        Self::Unauthorised,
        Self::Stuck,
    ];

    /// The violated guarantees and a name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "P1 lost",
            Self::Mismatch => "P1 different from the store",
            Self::Duplicated => "P2 duplicated",
            Self::OutOfOrder => "P3 out of order",
            Self::Gap => "P4 gap in conversation_seq",
            Self::FalseClaim => "P4/P5 false claim",
            Self::Incomplete => "P5 not caught up",
            Self::Unauthorised => "P8 unauthorised",
            Self::Stuck => "P9 did not recover",
        }
    }
}

/// The violations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// Their number.
    pub count: u64,
    /// The first [`EXAMPLES`] of them, each a sentence.
    pub examples: Vec<String>,
}

/// Totals of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Sends that reached their device.
    pub sent: u64,
    /// Acknowledged messages.
    pub acked: u64,
    /// Permanently refused messages.
    pub refused: u64,
    /// Messages without a final answer.
    pub unknown: u64,
    /// Acknowledgements of retries, after the first acknowledgement.
    pub later_acks: u64,
    /// Entries in the store.
    pub stored: u64,
    /// Entries that devices showed.
    pub receipts: u64,
    /// Entries that a device showed while it was up to date.
    pub live: u64,
    /// How often a device had every entry that its receiver seq counts.
    pub claims: u64,
    /// Entries in the histories that users read.
    pub read: u64,
    /// Membership changes.
    pub changes: u64,
    /// Conversations in the store.
    pub conversations: u64,
    /// Devices.
    pub devices: u64,
    /// Incarnations of all devices.
    pub incarnations: u64,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Totals.
    pub figures: Figures,
    /// Violations; a kind without any is absent.
    pub violations: BTreeMap<Violation, Violations>,
}

impl Verdict {
    /// Whether there is no violation.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The number of violations of a kind.
    pub fn count(&self, violation: Violation) -> u64 {
        self.violations.get(&violation).map_or(0, |found| found.count)
    }

    /// Adds a violation. `example` is called only while examples are kept.
    pub(super) fn report(&mut self, violation: Violation, example: impl FnOnce() -> String) {
        let found = self.violations.entry(violation).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(example());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in Violation::ALL {
            writeln!(f, "{:<32} {}", violation.name(), self.count(violation))?;
            for example in self.violations.get(&violation).into_iter().flat_map(|found| &found.examples) {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}
