//! A rolling restart under load: every process of every service stops and starts again, one after the other, while the load
//! generator sends through one balanced address. In an upgrade the services change to another version, and then back.

use super::{
    cluster::{Cluster, Programs},
    proxy::Proxy,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tests::process::{self, Process};
use tokio::time::sleep;

/// Messages per second.
const RATE: u32 = 500;
/// Pause between a service that is ready again and the next restart.
const PAUSE: Duration = Duration::from_secs(2);
/// Load before the first restart and after the last one.
const STEADY: Duration = Duration::from_secs(5);
/// Duration of the load per restart of all services. The restarts must take less time.
const LOAD: Duration = Duration::from_secs(120);
/// Longest wait for the load generator to complete its sends and read all messages back.
const LOAD_END: Duration = Duration::from_secs(120);

/// Figures of the load generator that are printed.
const FIGURES: [&str; 11] = [
    "sent",
    "acked",
    "received",
    "stored",
    "failed",
    "lost",
    "duplicated",
    "out_of_order",
    "refused",
    "reconnects",
    "longest_pause_ms",
];

/// The versions of a rolling restart.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// A folder with programs of another version. The services start in that version, change to this build, and change back.
    pub from: Option<PathBuf>,
    /// Do not change back.
    pub one_way: bool,
}

impl Rollout {
    /// The version that the services start in, and the versions that they change to.
    fn steps(&self) -> (Programs<'_>, Vec<Programs<'_>>) {
        match self.from.as_deref().map(Programs::In) {
            None => (Programs::Own, vec![Programs::Own]),
            Some(old) if self.one_way => (old, vec![Programs::Own]),
            Some(old) => (old, vec![Programs::Own, old]),
        }
    }
}

/// Restarts all services under load and prints the figures of the load generator. Returns whether no send failed and no message
/// was lost, duplicated or out of order.
///
/// # Errors
/// If the suite itself fails, or a service does not exit with 0 or does not become ready.
pub async fn run(
    folder: &Path,
    settings: &[String],
    rollout: &Rollout,
    mut print: impl FnMut(&str),
) -> Result<bool> {
    let (first, steps) = rollout.steps();
    let mut cluster = Cluster::start(folder, settings, first).await?;
    let gateways = cluster.direct_gateways();
    let gateways = gateways.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let balancer = Proxy::balance(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), gateways).await?;
    let duration = LOAD * u32::try_from(steps.len())?;
    let mut load = start_load(balancer.address(), duration)?;
    let start = Instant::now();
    sleep(STEADY).await;
    for programs in steps {
        for service in 0..cluster.services() {
            let begun = Instant::now();
            let name = cluster.restart(service, programs).await?;
            let (at, took) = (start.elapsed().as_secs_f64(), begun.elapsed());
            print(&format!("{at:>5.1} s  {name} restarted{} in {took:.1?}", version_suffix(programs, first)));
            sleep(PAUSE).await;
        }
    }
    ensure!(
        start.elapsed() < duration,
        "the restarts took longer than the load, which ends after {duration:?}"
    );
    sleep(STEADY).await;
    sleep(duration.saturating_sub(start.elapsed())).await;
    let report = load_report(&mut load).await?;
    cluster.collect_logs()?;
    for name in FIGURES {
        print(&format!("{:<20} {:>12}", name.replace('_', " "), report[name]));
    }
    let clean = ["failed", "lost", "duplicated", "out_of_order"].iter().all(|name| report[*name] == 0);
    Ok(clean && report["acked"].as_u64().is_some_and(|acked| acked > 0))
}

fn start_load(gateway: SocketAddr, duration: Duration) -> Result<Process> {
    let mut command = Command::new(process::path("godwit-cli")?);
    let (rate, seconds) = (RATE.to_string(), duration.as_secs().to_string());
    command.args(["--json", "--url", &format!("http://{gateway}")]);
    command.args(["load", "pair", "--pairs", "50", "--rate", &rate, "--seconds", &seconds]);
    Process::spawn("load", command)
}

fn version_suffix(programs: Programs<'_>, first: Programs<'_>) -> &'static str {
    match (programs, first) {
        (Programs::Own, Programs::In(_)) => " as this build",
        (Programs::In(_), _) => " as the other version",
        (Programs::Own, Programs::Own) => "",
    }
}

/// Waits for the load generator to exit and parses its report.
async fn load_report(load: &mut Process) -> Result<Value> {
    let deadline = Instant::now() + LOAD_END;
    while load.try_ended()?.is_none() {
        ensure!(
            Instant::now() < deadline,
            "the load generator did not exit within {LOAD_END:?}; its output:\n{}",
            load.output().join("\n")
        );
        sleep(Duration::from_millis(200)).await;
    }
    let output = load.output();
    let line = output.iter().rev().find(|line| line.starts_with('{'));
    let line = line
        .with_context(|| format!("no report in the output of the load generator:\n{}", output.join("\n")))?;
    Ok(serde_json::from_str(line)?)
}
