//! A rolling restart: every process of every service ends and comes back, one after the other, under the load of the
//! load generator, which reaches the gateways behind one address. As an upgrade they come back of another version, and once
//! more of the first one.

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
/// Between a service that is ready again and the next one.
const PAUSE: Duration = Duration::from_secs(2);
/// Before the first and after the last restart.
const CALM: Duration = Duration::from_secs(5);
/// The load goes on so long for each restart of everything, which is over by then.
const LOAD: Duration = Duration::from_secs(120);

/// What is rolled out.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// Programs of another version in a folder. The services start as these, are restarted as this build, and then back.
    pub from: Option<PathBuf>,
    /// Not back.
    pub one_way: bool,
}

impl Rollout {
    /// As what the services start, and as what they are restarted.
    fn steps(&self) -> (Programs<'_>, Vec<Programs<'_>>) {
        match self.from.as_deref().map(Programs::In) {
            None => (Programs::Own, vec![Programs::Own]),
            Some(old) if self.one_way => (old, vec![Programs::Own]),
            Some(old) => (old, vec![Programs::Own, old]),
        }
    }
}

/// Restarts everything and prints what the load generator counted. Gives whether no send failed for good and the promise was
/// kept.
///
/// # Errors
/// If the suite itself fails, or a service does not end in order or does not come back.
pub async fn run(
    folder: &Path,
    settings: &[String],
    rollout: &Rollout,
    mut say: impl FnMut(&str),
) -> Result<bool> {
    let (first, steps) = rollout.steps();
    let mut cluster = Cluster::start(folder, settings, first).await?;
    let gateways = cluster.bare_gateways().iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let edge = Proxy::balance(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), gateways).await?;
    let mut command = Command::new(process::path("godwit-cli")?);
    let duration = LOAD * u32::try_from(steps.len())?;
    let (rate, seconds) = (RATE.to_string(), duration.as_secs().to_string());
    command.args(["--json", "--url", &format!("http://{}", edge.address())]);
    command.args(["load", "pair", "--pairs", "50", "--rate", &rate, "--seconds", &seconds]);
    let mut load = Process::spawn("load", command)?;
    let begin = Instant::now();
    sleep(CALM).await;
    for programs in steps {
        for member in 0..cluster.members() {
            let begun = Instant::now();
            let name = cluster.restart(member, programs).await?;
            let (at, took) = (begin.elapsed().as_secs_f64(), begun.elapsed());
            say(&format!("{at:>5.1} s  {name} restarted{} in {took:.1?}", said_of(programs, first)));
            sleep(PAUSE).await;
        }
    }
    ensure!(begin.elapsed() < duration, "the restarts took longer than the load of {duration:?}");
    sleep(CALM).await;
    sleep(duration.saturating_sub(begin.elapsed())).await;
    let report = report(&mut load).await?;
    cluster.keep_logs()?;
    for name in [
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
    ] {
        say(&format!("{:<20} {:>12}", name.replace('_', " "), report[name]));
    }
    let kept = ["failed", "lost", "duplicated", "out_of_order"].iter().all(|name| report[*name] == 0);
    Ok(kept && report["acked"].as_u64().is_some_and(|acked| acked > 0))
}

fn said_of(programs: Programs<'_>, first: Programs<'_>) -> &'static str {
    match (programs, first) {
        (Programs::Own, Programs::In(_)) => " as this build",
        (Programs::In(_), _) => " as the other version",
        (Programs::Own, Programs::Own) => "",
    }
}

/// What the load generator says at its end.
async fn report(load: &mut Process) -> Result<Value> {
    // It waits for what is under way and reads everything back first.
    let deadline = Instant::now() + Duration::from_secs(120);
    while load.try_ended()?.is_none() {
        ensure!(Instant::now() < deadline, "the load does not end; it said: {}", load.said().join("\n"));
        sleep(Duration::from_millis(200)).await;
    }
    let said = load.said();
    let line = said.iter().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("the load said: {}", said.join("\n")))?;
    Ok(serde_json::from_str(line)?)
}
