//! Whether everything works, from end to end.

use super::{NOT_TAKEN, Order, stage::Stage};
use crate::ledger::{DeviceId, Id};
use anyhow::{Result, bail};
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// Receipts that are waited for, one set at a time.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    missing: Mutex<HashSet<(DeviceId, Id)>>,
    all: Notify,
}

impl Awaited {
    fn missing(&self) -> MutexGuard<'_, HashSet<(DeviceId, Id)>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each of these devices is to get each of these messages.
    fn expect(&self, receipts: HashSet<(DeviceId, Id)>) {
        *self.missing() = receipts;
    }

    /// A device got a message.
    pub(super) fn came(&self, device: DeviceId, client_msg_id: &str) {
        let Some(id) = Id::parse(client_msg_id) else { return };
        let mut missing = self.missing();
        if missing.remove(&(device, id)) && missing.is_empty() {
            self.all.notify_waiters();
        }
    }

    /// Waits for all that is expected.
    async fn all(&self) {
        loop {
            let all = self.all.notified();
            if self.missing().is_empty() {
                return;
            }
            all.await;
        }
    }
}

/// How a message may come to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Also by a question, as when a pong has told that there is something.
    Any,
    /// The server says it unasked.
    Pushed,
}

/// Sends a message from every gateway to every partition and waits until each has arrived at devices of all gateways.
pub(super) async fn run(stage: &Stage, way: Way, patience: Duration) -> Result<Duration> {
    let awaited = match way {
        Way::Any => &stage.book.probe,
        Way::Pushed => &stage.book.pushes,
    };
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
    awaited.expect(expected);
    for (device, job) in jobs {
        let send = job.send;
        if !stage.hands[device as usize].order(Order::Send(job)) {
            stage.book.refused(send, NOT_TAKEN, true);
            bail!("a device that probes has not sent what it was given earlier");
        }
    }
    match timeout(patience, awaited.all()).await {
        Ok(()) => Ok(begun.elapsed()),
        Err(_) => {
            let mut why = vec![format!(
                "{} receipts of a probe are missing after {patience:?}",
                awaited.missing().len()
            )];
            why.extend(stage.book.all_ended());
            bail!(why.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_expected_may_come_before_it_is_waited_for() {
        let (awaited, id) = (Awaited::default(), Id([7; 16]));
        awaited.expect([(0, id), (1, id)].into());
        awaited.came(0, &id.to_string());
        awaited.came(0, &id.to_string());
        assert_eq!(awaited.missing().len(), 1);
        awaited.came(1, &id.to_string());
        awaited.all().await;
    }
}
