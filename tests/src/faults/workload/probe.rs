//! Whether everything works, from end to end.

use super::{NOT_TAKEN, Order, stage::Stage};
use crate::faults::ledger::Id;
use anyhow::{Result, bail};
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, timeout};

/// Sends a message from every gateway to every partition and waits until each has arrived at devices of all gateways.
pub(super) async fn run(stage: &Stage, patience: Duration) -> Result<Duration> {
    let begun = Instant::now();
    let mut jobs = Vec::new();
    for &(device, _) in &stage.cast.probes {
        for &conversation in &stage.cast.probed {
            let job = stage.book.begin(device, conversation, 0, false, true);
            jobs.push((device, job));
        }
    }
    let expected: HashSet<_> = jobs
        .iter()
        .filter_map(|(_, job)| Id::parse(&job.client_msg_id))
        .flat_map(|id| stage.cast.probes.iter().map(move |(device, _)| (*device, id)))
        .collect();
    stage.book.expect(expected);
    for (device, job) in jobs {
        let send = job.send;
        if !stage.hands[device as usize].order(Order::Send(job)) {
            stage.book.refused(send, NOT_TAKEN, true);
            bail!("a device that probes has not sent what it was given earlier");
        }
    }
    match timeout(patience, stage.book.expected()).await {
        Ok(()) => Ok(begun.elapsed()),
        Err(_) => bail!("{} receipts of a probe are missing after {patience:?}", stage.book.waits_for()),
    }
}
