//! End-to-end probes.

use super::{
    arrivals::Arrivals,
    command::{Command, Intent},
    environment::Environment,
};
use crate::ledger::{Id, NOT_TAKEN};
use anyhow::{Result, bail};
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, timeout};

/// The ways of arrival that count for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// A push, or a fetch after a pong with a higher receiver seq.
    Any,
    /// A push alone.
    Push,
}

/// Sends a message from every gateway to every partition, and waits until each has arrived at devices of all gateways.
pub(super) async fn run(environment: &Environment, via: Via, limit: Duration) -> Result<Duration> {
    let Environment { recorder, population, .. } = environment;
    let arrivals: &Arrivals = match via {
        Via::Any => &recorder.arrivals,
        Via::Push => &recorder.pushed_arrivals,
    };
    let begun = Instant::now();
    let mut jobs = Vec::new();
    for &(device, _) in &population.probes {
        for &conversation in &population.probed {
            jobs.push((
                device,
                recorder.begin_send(device, conversation, &Intent::Message { size: 0 }, false, true),
            ));
        }
    }
    let expected: HashSet<_> = jobs
        .iter()
        .filter_map(|(_, job)| Id::parse(&job.client_msg_id))
        .flat_map(|id| population.probes.iter().map(move |(device, _)| (*device, id)))
        .collect();
    arrivals.expect(expected);
    for (device, job) in jobs {
        let send = job.send;
        if !environment.devices[device as usize].command(Command::Send(job)) {
            recorder.refused(send, NOT_TAKEN, true);
            bail!("the command queue of a probe device is full: it has not sent earlier probes");
        }
    }
    match timeout(limit, arrivals.wait()).await {
        Ok(()) => Ok(begun.elapsed()),
        Err(_) => {
            let missing = arrivals.missing_count();
            let mut reasons = vec![format!("{missing} arrivals of a probe are missing after {limit:?}")];
            reasons.extend(recorder.ended_devices());
            bail!(reasons.join("; "))
        }
    }
}
