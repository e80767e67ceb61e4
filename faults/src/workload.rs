//! Users with several devices that exchange messages while faults are injected, and record their observations.
//!
//! Half of the devices use the SDK, the others their own implementation of the protocol. Devices are disrupted: they go
//! offline, sleep, or restart with a saved state. Members of groups are removed and added again, and some users send to
//! conversations that they must not use. The seed determines all of it, as far as the timing of the machine allows.
//!
//! - `population`: users, devices and conversations. `environment`: creates and starts them.
//! - `traffic`, `churn`, `settings`: messages and changes of them, disruptions, membership changes, and changes of settings and signals. They send a `command` to each device concerned.
//! - `sdk`, `raw`: the two implementations of a device, each behind a `device_link`.
//! - `probe`: end-to-end probes. `final_phase`: catching up and reading histories at the end.
//! - `recorder`: writes the ledger.
//!
//! For a run of minutes the system needs a short `gateway.heartbeat` (about 3 s): a device finds a dead connection within 2.5
//! heartbeats.

mod arrivals;
mod churn;
mod command;
mod device;
mod device_link;
mod environment;
mod final_phase;
mod options;
mod partition;
mod population;
mod probe;
mod raw;
mod recorder;
mod sdk;
mod settings;
mod traffic;

pub use options::Options;

use super::ledger::Ledger;
use anyhow::{Context as _, Result};
use environment::Environment;
use probe::Via;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Attempts of [`Workload::probe_pushes`], and the longest wait of each.
const PUSH_ATTEMPTS: u32 = 3;
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    environment: Arc<Environment>,
    rate: f64,
    finish_timeout: Duration,
    /// Held by the running probe: there is one at a time.
    probing: Mutex<()>,
    stop: CancellationToken,
    /// Tasks that send commands to devices and change memberships.
    tasks: JoinSet<()>,
}

impl Workload {
    /// Creates users, devices and groups at gateways (`host:port`), and begins to send.
    ///
    /// # Errors
    /// If the system, which should be healthy at this time, refuses a request.
    pub async fn start(seed: u64, gateways: Vec<String>, options: Options) -> Result<Self> {
        let environment = Arc::new(Environment::build(seed, gateways, &options).await?);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(traffic::run(Arc::clone(&environment), seed, options.rate, stop.clone()));
        let disruptions = options.disruptions;
        tasks.spawn(churn::disrupt_devices(Arc::clone(&environment), !seed, disruptions, stop.clone()));
        tasks.spawn(settings::change(Arc::clone(&environment), seed.rotate_left(1), stop.clone()));
        tasks.spawn(settings::signal(Arc::clone(&environment), seed.rotate_left(2), stop.clone()));
        for group in 0..environment.population.groups.len() {
            tasks.spawn(churn::change_members(Arc::clone(&environment), group, seed, stop.clone()));
        }
        Ok(Self {
            environment,
            rate: options.rate,
            finish_timeout: options.finish_timeout,
            probing: Mutex::default(),
            stop,
            tasks,
        })
    }

    /// Sends a message from a device at every gateway to every partition, and waits until all have arrived at devices of all
    /// gateways. The devices retry until it works, so the returned time is the time that the system needs to recover.
    ///
    /// # Errors
    /// If it takes longer than `limit`.
    pub async fn probe(&self, limit: Duration) -> Result<Duration> {
        let _one = self.probing.lock().await;
        probe::run(&self.environment, Via::Any, limit).await
    }

    /// Probes, but counts only pushes. Without pushes, devices still learn of messages from the next pong and fetch them. A
    /// single push may be lost, so there are several attempts.
    ///
    /// # Errors
    /// If a push is missing in every attempt.
    pub async fn probe_pushes(&self) -> Result<()> {
        let _one = self.probing.lock().await;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match probe::run(&self.environment, Via::Push, PUSH_TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(error) if attempts == PUSH_ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// The number of acknowledged messages.
    pub fn acked(&self) -> u64 {
        self.environment.recorder.acked_count()
    }

    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The longest wait of a device for an acknowledgement since `begin`, including waits that have not ended. Waits of
    /// disrupted devices do not count.
    pub fn longest_pause_since(&self, begin: Instant) -> Duration {
        self.environment.recorder.longest_pause_since(begin)
    }

    /// Ends the workload: stops sending, brings every device online, waits until every send has an outcome and every device
    /// has caught up, and reads the histories. Work that is still open after [`Options::finish_timeout`] is listed in
    /// [`Ledger::unfinished`].
    ///
    /// # Errors
    /// If the suite itself fails.
    pub async fn finish(self) -> Result<Ledger> {
        let Self { environment, stop, mut tasks, finish_timeout, .. } = self;
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task of the workload has panicked")?;
        }
        final_phase::wait_until_caught_up(&environment, finish_timeout).await;
        if let Err(error) = final_phase::read_histories(&environment).await {
            environment.recorder.unfinished(format!("the histories could not be read: {error:#}"));
        }
        let environment = Arc::into_inner(environment).context("a task still uses the environment")?;
        Ok(environment.shut_down().await?.take_ledger())
    }
}
