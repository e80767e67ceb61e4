//! Users with several devices who talk while everything around them dies, and write down what they see.
//!
//! Half of the devices are run by the SDK, the others speak the protocol by hand. They are cut off and come back, their
//! programs are started again with what they had kept, members of groups are removed and added, and some try what they
//! may not do. All of it follows from a seed, as far as the timing of the machine allows.
//!
//! - `cast`: who takes part; `stage`: how they are brought to their places.
//! - `talk`, `comings`: what they do; `sdk`, `raw`: how their devices do it, over a `line` each.
//! - `probe`: whether everything works; `ending`: catching up and reading at the end.
//! - `book`: where all is written down.
//!
//! For a run of minutes the system should have a short `gateway.heartbeat` (about 3 s): it is how long a device takes to
//! see that its connection is dead.

mod book;
mod cast;
mod comings;
mod device;
mod ending;
mod line;
mod partition;
mod probe;
mod raw;
mod sdk;
mod stage;
mod talk;

use super::ledger::Ledger;
use anyhow::{Context as _, Result};
use book::Job;
use probe::Way;
use stage::Stage;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How much is going on. The default is for the distributed system.
#[derive(Clone, Debug)]
pub struct Options {
    /// Messages per second that are begun in all.
    pub rate: f64,
    /// Devices per second that go away, sleep, or are started again.
    pub absences: f64,
    /// Users beside those that probe, at least 8.
    pub users: usize,
    /// Groups with a stable membership, and as many again whose members come and go.
    pub groups: usize,
    /// Partitions of the topic of messages.
    pub partitions: u32,
    /// Longest wait of [`Workload::finish`].
    pub finish_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: 250.0,
            absences: 1.0,
            users: 24,
            groups: 6,
            partitions: 4,
            finish_patience: Duration::from_secs(300),
        }
    }
}

/// What a device is told to do.
#[derive(Debug)]
enum Order {
    /// Send a message.
    Send(Job),
    /// Send what another device of the user is sending.
    Copy(Job),
    /// Start the program again, with the state that was kept last or some time ago.
    Restart,
    /// Take nothing out of the events for so long.
    Doze(Duration),
}

/// Code of a send that its device did not even take: nobody has ever tried it.
pub(super) const NOT_TAKEN: &str = "not_taken";

/// Tries of [`Workload::probe_pushes`], and the longest wait of each.
const PUSH_TRIES: u32 = 3;
const PUSH_PATIENCE: Duration = Duration::from_secs(10);

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    stage: Arc<Stage>,
    rate: f64,
    finish_patience: Duration,
    /// One probe at a time.
    probing: Mutex<()>,
    stop: CancellationToken,
    /// Those who decide what is said and done.
    tasks: JoinSet<()>,
}

impl Workload {
    /// Makes users, devices and groups at gateways (`host:port`), and begins to send.
    ///
    /// # Errors
    /// If the system, which should be well at that time, refuses one of them.
    pub async fn start(seed: u64, gateways: Vec<String>, options: Options) -> Result<Self> {
        let stage = Arc::new(Stage::set(seed, gateways, &options).await?);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(talk::run(Arc::clone(&stage), seed, options.rate, stop.clone()));
        tasks.spawn(comings::absences(Arc::clone(&stage), !seed, options.absences, stop.clone()));
        for group in 0..stage.cast.groups.len() {
            tasks.spawn(comings::members(Arc::clone(&stage), group, seed, stop.clone()));
        }
        Ok(Self {
            stage,
            rate: options.rate,
            finish_patience: options.finish_patience,
            probing: Mutex::default(),
            stop,
            tasks,
        })
    }

    /// Sends a message from a device at every gateway to every partition, and waits until all have arrived at devices of
    /// all gateways. Devices try again until it works, so this measures how long the system needs to be well again.
    ///
    /// # Errors
    /// If that takes more than `patience`.
    pub async fn probe(&self, patience: Duration) -> Result<Duration> {
        let _one = self.probing.lock().await;
        probe::run(&self.stage, Way::Any, patience).await
    }

    /// The same, but what devices have to ask for does not count: they are told of it by the next pong, even if nothing is
    /// ever pushed. A push may be missed, so there are several tries.
    ///
    /// # Errors
    /// If something was not pushed in any of them.
    pub async fn probe_pushes(&self) -> Result<()> {
        let _one = self.probing.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            match probe::run(&self.stage, Way::Pushed, PUSH_PATIENCE).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == PUSH_TRIES => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Messages acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.stage.book.count_acked()
    }

    /// Messages per second that are begun.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The longest time since then that a device, which was meant to be online, waited for an acknowledgement, or is
    /// waiting now.
    pub fn longest_pause_since(&self, begin: Instant) -> Duration {
        self.stage.book.longest_pause_since(begin)
    }

    /// Ends: no more is sent, every device comes online, everything that waits gets its outcome, everybody catches up,
    /// and members read the histories. What does not within [`Options::finish_patience`] is in [`Ledger::unfinished`].
    ///
    /// # Errors
    /// If the suite itself fails.
    pub async fn finish(self) -> Result<Ledger> {
        let Self { stage, stop, mut tasks, finish_patience, .. } = self;
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.context("who decides what is said or done has panicked")?;
        }
        ending::settle(&stage, finish_patience).await;
        if let Err(error) = ending::read(&stage).await {
            stage.book.unfinished(format!("the histories could not be read: {error:#}"));
        }
        let stage = Arc::into_inner(stage).context("all that used the stage has ended")?;
        Ok(stage.strike().await?.close())
    }
}
