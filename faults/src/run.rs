//! A whole run of the suite, from the start of a system to the table.

use super::{
    checker::{self, Verdict, Violation},
    cluster::{Cluster, Programs},
    fault::Breakable,
    ledger::{Ledger, Outcome as SendOutcome},
    nemesis::{self, Report},
    single::Single,
    store::StoreView,
    table,
    workload::{Options, Workload},
};
use anyhow::{Context as _, Result, bail};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The tested system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The services on real servers.
    Distributed,
    /// The one-process program.
    Embedded,
}

impl Mode {
    /// `distributed` or `embedded`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Distributed => "distributed",
            Self::Embedded => "embedded",
        }
    }
}

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seed of the load and of the faults.
    pub seed: u64,
    /// Duration of the faults.
    pub duration: Duration,
    /// The system to test.
    pub mode: Mode,
    /// Messages per second.
    pub rate: f64,
    /// Further settings for every program, as `section.key=value`.
    pub set: Vec<String>,
    /// The deliberate defect of the programs. Only the violations that it causes count.
    pub defect: Option<String>,
    /// A folder for data, logs and ledger of the run. It is created.
    pub folder: PathBuf,
}

/// Settings of every run. The short heartbeat finds half-open connections within 5 s (2.5 heartbeats). The short token life
/// makes devices refresh their tokens while faults are active.
const SETTINGS: [&str; 2] = ["gateway.heartbeat=2s", "auth.access_token_life=45s"];

impl Settings {
    /// Settings of every program; later ones override earlier ones.
    fn of_programs(&self) -> Vec<String> {
        SETTINGS.iter().map(|&setting| setting.to_owned()).chain(self.set.iter().cloned()).collect()
    }
}

/// Files that a failed run leaves in its folder.
const LEDGER: &str = "ledger.json.gz";
const STORE: &str = "store.json.gz";
/// The subfolder with the logs of all processes.
const LOGS: &str = "logs";

/// The results of a run.
struct Outcome {
    report: Report,
    ledger: Ledger,
    store: StoreView,
    verdict: Verdict,
}

impl Outcome {
    /// An activity that is missing, though it happens even in the shortest run. Without it the run proves nothing.
    fn missing_activity(&self) -> Option<&'static str> {
        let acked = self.ledger.sends.iter().filter(|send| matches!(send.outcome, SendOutcome::Acked { .. }));
        let senders: HashSet<_> = acked.map(|send| send.device).collect();
        let figures = &self.verdict.figures;
        let missing = [
            ("no faults", self.report.faults.is_empty()),
            // Probes alone do not reach half of the devices.
            ("no sends from most devices", senders.len() * 2 < self.ledger.devices.len()),
            ("no membership changes", figures.changes == 0),
            ("no claims of completeness", figures.claims == 0),
            ("no live entries", figures.live == 0),
            ("no history reads", figures.read == 0),
        ];
        missing.into_iter().find_map(|(name, is_missing)| is_missing.then_some(name))
    }
}

/// Starts a system, runs the workload and injects faults, and prints the results. Returns whether the guarantees held, or with
/// a deliberate defect, those that it breaks.
///
/// After a clean run the folder is removed. Otherwise it holds the ledger, the store and the log of every process.
///
/// # Errors
/// If the suite itself fails. The folder stays.
pub async fn run(settings: &Settings, mut print: impl FnMut(&str)) -> Result<bool> {
    let expected = settings.defect.as_deref().map(violations_of).transpose()?;
    std::fs::create_dir_all(&settings.folder).context("create the folder of the run")?;
    let Settings { seed, mode, .. } = settings;
    print(&format!("seed {seed}, {}, {:.0?} of faults", mode.name(), settings.duration));
    let outcome = match mode {
        Mode::Distributed => distributed(settings, &mut print).await,
        Mode::Embedded => embedded(settings, &mut print).await,
    };
    let folder = settings.folder.display();
    let outcome = outcome.with_context(|| format!("the logs are in {folder}"))?;
    for line in table::lines(mode.name(), *seed, &outcome.report, &outcome.verdict) {
        print(&line);
    }
    if outcome.report.findings.is_empty() && outcome.verdict.is_clean() {
        if let Some(missing) = outcome.missing_activity() {
            bail!("the run proves nothing: {missing}; the logs are in {folder}");
        }
        std::fs::remove_dir_all(&settings.folder)?;
        return Ok(true);
    }
    outcome.ledger.write(&settings.folder.join(LEDGER))?;
    outcome.store.write(&settings.folder.join(STORE))?;
    print(&format!("FAILED: the ledger and the logs are in {folder}; seed {seed}"));
    // Other findings do not prove the defect: a device can also fail to catch up because the machine is busy.
    Ok(expected.is_some_and(|kinds| kinds.iter().all(|kind| outcome.verdict.count(*kind) == 0)))
}

/// The violations that a deliberate defect causes. The suite must find at least one of them.
fn violations_of(defect: &str) -> Result<&'static [Violation]> {
    use Violation::{Duplicated, FalseClaim, Lost, Mismatch};
    Ok(match defect {
        "random-message-id" => &[Duplicated],
        "commit-before-save" => &[Lost],
        "push-before-save" => &[Mismatch, FalseClaim],
        unknown => bail!("unknown defect {unknown}"),
    })
}

async fn distributed(settings: &Settings, print: &mut impl FnMut(&str)) -> Result<Outcome> {
    let programs = settings.of_programs();
    let mut cluster = Cluster::start(&settings.folder, &programs, Programs::Own).await?;
    print("2 ws-gateway, 2 consumer, 2 db-service, 2 pusher; 3 kafka brokers, postgres, redis, consul");
    let options = Options { rate: settings.rate, partitions: Cluster::PARTITIONS, ..Options::default() };
    let gateways = cluster.gateways();
    let result = run_with_faults(settings, &mut cluster, gateways, options, print).await;
    let panics = panics(&settings.folder.join(LOGS));
    // The logs matter most if the suite failed.
    cluster.collect_logs()?;
    let (mut report, ledger) = result?;
    report.findings.extend(panics?);
    Ok(compare(report, ledger, cluster.stored().await?))
}

async fn embedded(settings: &Settings, print: &mut impl FnMut(&str)) -> Result<Outcome> {
    let programs = settings.of_programs();
    let mut single = Single::start(&settings.folder, &programs).await?;
    print(if single.has_own_filesystem() {
        "godwit, with its data on a small filesystem of its own"
    } else {
        "godwit; user namespaces are not available, so a limit on the size of files simulates a full disk"
    });
    let options = Options { rate: settings.rate, partitions: 1, ..Options::default() };
    let gateways = single.gateways();
    let (mut report, ledger) = run_with_faults(settings, &mut single, gateways, options, print).await?;
    let store = single.stop_and_read_store(&mut report.findings).await?;
    report.findings.extend(panics(&settings.folder.join(LOGS))?);
    Ok(compare(report, ledger, store))
}

/// Runs the workload while faults are injected. Then all faults are healed and all devices catch up.
async fn run_with_faults(
    settings: &Settings,
    system: &mut impl Breakable,
    gateways: Vec<String>,
    options: Options,
    print: &mut impl FnMut(&str),
) -> Result<(Report, Ledger)> {
    let workload = Workload::start(settings.seed, gateways, options).await.context("start the workload")?;
    workload.probe(nemesis::RECOVERY_LIMIT).await.context("before the first fault")?;
    let deadline = Instant::now() + settings.duration;
    let mut report = nemesis::inject_until(system, &workload, settings.seed, deadline, &mut *print).await?;
    print(&format!(
        "{} faults, {} acknowledged; waiting until all devices have caught up",
        report.faults.len(),
        workload.acked()
    ));
    let ledger = nemesis::supervise(system, &mut report.findings, workload.finish()).await?;
    report.findings.extend(system.restart_exited().await?);
    Ok((report, ledger.context("final phase")?))
}

/// Panics in the logs of the services. A panic in a task does not end its process, so only the log shows it.
fn panics(logs: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        let log = std::fs::read(entry.path())?;
        let log = String::from_utf8_lossy(&log);
        let mut lines = log.lines().filter(|line| line.contains("panicked at"));
        if let Some(first) = lines.next() {
            let name = entry.file_name();
            found.push(format!("{} has {} panics, the first: {first}", name.display(), 1 + lines.count()));
        }
    }
    Ok(found)
}

fn compare(report: Report, ledger: Ledger, store: StoreView) -> Outcome {
    let verdict = checker::check(&ledger, &store);
    Outcome { report, ledger, store, verdict }
}

/// Checks the files of a failed run again, for example after a change of the checker.
///
/// # Errors
/// If the folder does not hold both files.
pub fn recheck(folder: &Path) -> Result<Verdict> {
    Ok(checker::check(&Ledger::read(&folder.join(LEDGER))?, &StoreView::read(&folder.join(STORE))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::{self, Action, Part},
        ledger::{Device, DeviceKind, Id, Send},
        nemesis::FaultRecord,
    };

    #[test]
    fn a_run_with_probes_alone_proves_nothing() {
        let device =
            |name: &str| Device { user: 0, name: name.into(), kind: DeviceKind::Raw, incarnations: vec![] };
        let devices = ["phone", "desk", "tablet"].map(device).to_vec();
        let fault = FaultRecord {
            kind: fault::Kind { action: Action::Fill, part: Part::Disk },
            target: String::new(),
            at: Duration::ZERO,
            lasted: Duration::ZERO,
            recovered_in: None,
            longest_pause: Duration::ZERO,
        };
        let mut outcome = Outcome {
            report: Report { faults: vec![fault], findings: vec![] },
            ledger: Ledger { devices, ..Ledger::default() },
            store: StoreView::default(),
            verdict: Verdict::default(),
        };
        let send = |device| Send {
            device,
            conversation: 0,
            client_msg_id: Id::default(),
            digest: 0,
            target: None,
            began: 0,
            ordered: true,
            forbidden: false,
            outcome: SendOutcome::Acked { message_id: Id::default(), at: 0 },
        };
        outcome.ledger.sends.push(send(0));
        assert_eq!(outcome.missing_activity(), Some("no sends from most devices"));
        outcome.ledger.sends.push(send(1));
        assert_eq!(outcome.missing_activity(), Some("no membership changes"));
        let figures = &mut outcome.verdict.figures;
        (figures.changes, figures.claims, figures.live, figures.read) = (1, 1, 1, 1);
        assert_eq!(outcome.missing_activity(), None);
        outcome.report.faults.clear();
        assert_eq!(outcome.missing_activity(), Some("no faults"));
    }

    #[test]
    fn a_panic_in_a_log_is_found() {
        let logs = tempfile::tempdir().unwrap();
        std::fs::write(logs.path().join("pusher-1.log"), "all is well\n").unwrap();
        assert!(panics(logs.path()).unwrap().is_empty());
        let log = "INFO ready\nthread 'a' (7) panicked at src/a.rs:1:1:\noh\nthread 'b' panicked at src/b.rs:2:2:\n";
        std::fs::write(logs.path().join("consumer-1.log"), log).unwrap();
        let found = panics(logs.path()).unwrap();
        assert_eq!(
            found,
            ["consumer-1.log has 2 panics, the first: thread 'a' (7) panicked at src/a.rs:1:1:"]
        );
    }
}
