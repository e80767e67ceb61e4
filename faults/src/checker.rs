//! Compares the ledger with the store, guarantee by guarantee (P1 to P9).
//!
//! `evidence` makes both easy to query. `stored` checks sends and histories, `changes` membership changes, `receipts`
//! the entries that devices showed, `claims` the statements of the server that a device is complete, and `delivered` pushed
//! entries and listed heads, `edits` edits, recalls and reactions against their replay in
//! `versions`, `heads` the heads at the end, and `signals` signals.

mod changes;
mod claims;
mod delivered;
mod edits;
mod evidence;
mod heads;
mod receipts;
mod signals;
mod stored;
mod verdict;
mod versions;

pub use verdict::{EXAMPLES, Figures, Verdict, Violation, Violations};

use super::{
    ledger::{Ledger, NOT_TAKEN, Observation, Outcome},
    store::StoreView,
};
use evidence::Evidence;

/// Compares a ledger with the store.
pub fn check(ledger: &Ledger, store: &StoreView) -> Verdict {
    let evidence = Evidence::new(ledger, store);
    let mut verdict = Verdict { figures: figures(ledger, store), ..Verdict::default() };
    stored::check(&evidence, &mut verdict);
    changes::check(&evidence, &mut verdict);
    receipts::check(&evidence, &mut verdict);
    claims::check(&evidence, &mut verdict);
    delivered::check(&evidence, &mut verdict);
    edits::check(&evidence, &mut verdict);
    heads::check(&evidence, &mut verdict);
    signals::check(&evidence, &mut verdict);
    for (device, at, reason) in &ledger.ended {
        verdict
            .report(Violation::Stuck, || format!("{} ended at {at} ms: {reason}", evidence.device(*device)));
    }
    for unfinished in &ledger.unfinished {
        verdict.report(Violation::Stuck, || unfinished.clone());
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
    for incarnation in ledger.devices.iter().flat_map(|device| &device.incarnations) {
        figures.incarnations += 1;
        for observation in &incarnation.observations {
            match observation {
                Observation::Entry(receipt) => {
                    figures.receipts += 1;
                    figures.live += u64::from(receipt.live);
                }
                Observation::Complete { .. } => figures.claims += 1,
                Observation::UpToDate { .. }
                | Observation::Delivered { .. }
                | Observation::Head { .. }
                | Observation::ReadPosition { .. }
                | Observation::Signal { .. }
                | Observation::ReadPositionRegressed { .. }
                | Observation::Unreadable { .. } => {}
            }
        }
    }
    figures
}

#[cfg(test)]
mod tests;
