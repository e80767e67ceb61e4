//! A run of the suite, from the start of a system to the table.

use super::{
    checker::{self, Verdict},
    cluster::{Cluster, Programs},
    fault::Breakable,
    ledger::{Ledger, Outcome as Sent},
    nemesis::{self, Story},
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

/// Which system.
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

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides what users do and what is broken when.
    pub seed: u64,
    /// How long faults go on.
    pub duration: Duration,
    /// Which system.
    pub mode: Mode,
    /// Messages per second.
    pub rate: f64,
    /// Further settings of every program, `section.key=value`.
    pub set: Vec<String>,
    /// The programs have this deliberate defect: only what the checker finds of what it breaks counts.
    pub defect: Option<String>,
    /// A folder for data, logs and ledger of this run, which is made.
    pub folder: PathBuf,
}

/// What every run sets. A connection says so often that it is alive: what died half open is found in two and a half of them. And
/// access tokens are refreshed several times in a run, in the middle of faults.
const SETTINGS: [&str; 2] = ["gateway.heartbeat=2s", "auth.access_token_life=45s"];

impl Settings {
    /// Of every program; later ones win.
    fn of_programs(&self) -> Vec<String> {
        SETTINGS.iter().map(|&setting| setting.to_owned()).chain(self.set.iter().cloned()).collect()
    }
}

/// What a run keeps that found something.
const LEDGER: &str = "ledger.json.gz";
const STORE: &str = "store.json.gz";
/// Where the services' logs are.
const LOGS: &str = "logs";

/// What a run gave.
struct Outcome {
    story: Story,
    ledger: Ledger,
    store: StoreView,
    verdict: Verdict,
}

impl Outcome {
    /// What did not happen at all, though it does in the shortest of runs: a promise that nobody made use of was not kept.
    fn missing(&self) -> Option<&'static str> {
        let acked = self.ledger.sends.iter().filter(|send| matches!(send.outcome, Sent::Acked { .. }));
        let spoke: HashSet<_> = acked.map(|send| send.device).collect();
        let figures = &self.verdict.figures;
        let missing = [
            ("no fault", self.story.faults.is_empty()),
            // The few that probe are not those who talk.
            ("most devices said nothing", spoke.len() * 2 < self.ledger.devices.len()),
            ("no change of a group", figures.changes == 0),
            ("no device was told that it has everything", figures.claims == 0),
            ("nothing was shown live", figures.live == 0),
            ("no history was read", figures.read == 0),
        ];
        missing.into_iter().find_map(|(what, is_missing)| is_missing.then_some(what))
    }
}

/// Starts a system, lets users talk and things break, and prints what came of it. Gives whether the promise was kept, or with
/// a deliberate defect the part of it that this one breaks. If nothing was found the folder is gone then, and else it holds
/// the ledger, the log of every process and the list of faults.
///
/// # Errors
/// If the suite itself fails. The folder stays.
pub async fn run(settings: &Settings, mut say: impl FnMut(&str)) -> Result<bool> {
    let broken = settings.defect.as_deref().map(broken_by).transpose()?;
    std::fs::create_dir_all(&settings.folder).context("make the folder of the run")?;
    let Settings { seed, mode, .. } = settings;
    say(&format!("seed {seed}, {}, {:.0?} of faults", mode.name(), settings.duration));
    let done = match mode {
        Mode::Distributed => distributed(settings, &mut say).await,
        Mode::Embedded => embedded(settings, &mut say).await,
    };
    let kept = settings.folder.display();
    let outcome = done.with_context(|| format!("what the processes said is in {kept}"))?;
    for line in table::lines(mode.name(), *seed, &outcome.story, &outcome.verdict) {
        say(&line);
    }
    if outcome.story.findings.is_empty() && outcome.verdict.is_clean() {
        if let Some(missing) = outcome.missing() {
            bail!("too little happened to say anything: {missing}; what the processes said is in {kept}");
        }
        std::fs::remove_dir_all(&settings.folder)?;
        return Ok(true);
    }
    outcome.ledger.write(&settings.folder.join(LEDGER))?;
    outcome.store.write(&settings.folder.join(STORE))?;
    say(&format!("FAILED: the ledger and the logs are in {kept}; seed {seed}"));
    // Another finding is none of the defect: a busy machine can keep a device from catching up.
    Ok(broken.is_some_and(|kinds| kinds.iter().all(|kind| outcome.verdict.count(*kind) == 0)))
}

/// As what a deliberate defect has to be found: any of these.
fn broken_by(defect: &str) -> Result<&'static [checker::Kind]> {
    use checker::Kind::{Duplicated, Lied, Lost, Untrue};
    Ok(match defect {
        "random-message-id" => &[Duplicated],
        "commit-before-save" => &[Lost],
        "push-before-save" => &[Untrue, Lied],
        unknown => bail!("no such defect: {unknown}"),
    })
}

async fn distributed(settings: &Settings, say: &mut impl FnMut(&str)) -> Result<Outcome> {
    let programs = settings.of_programs();
    let mut cluster = Cluster::start(&settings.folder, &programs, Programs::Own).await?;
    say("2 ws-gateway, 2 consumer, 2 db-service, 2 pusher; 3 kafka brokers, postgres, redis, consul");
    let options = Options { rate: settings.rate, partitions: Cluster::PARTITIONS, ..Options::default() };
    let gateways = cluster.gateways();
    let outcome = torment(settings, &mut cluster, gateways, options, say).await;
    let panics = panics(&settings.folder.join(LOGS));
    // Also, and above all, if the suite gave up.
    cluster.keep_logs()?;
    let (mut story, ledger) = outcome?;
    story.findings.extend(panics?);
    Ok(judge((story, ledger), cluster.stored().await?))
}

async fn embedded(settings: &Settings, say: &mut impl FnMut(&str)) -> Result<Outcome> {
    let programs = settings.of_programs();
    let mut single = Single::start(&settings.folder, &programs).await?;
    say(if single.disk_is_real() {
        "godwit, with its data on a small filesystem of its own"
    } else {
        "godwit; no user namespaces here, so a limit on the size of files stands in for a full disk"
    });
    let options = Options { rate: settings.rate, partitions: 1, ..Options::default() };
    let gateways = single.gateways();
    let (mut story, ledger) = torment(settings, &mut single, gateways, options, say).await?;
    let store = single.stored(&mut story.findings).await?;
    story.findings.extend(panics(&settings.folder.join(LOGS))?);
    Ok(judge((story, ledger), store))
}

/// Users talk while faults happen; then all is well, and everybody catches up.
async fn torment(
    settings: &Settings,
    system: &mut impl Breakable,
    gateways: Vec<String>,
    options: Options,
    say: &mut impl FnMut(&str),
) -> Result<(Story, Ledger)> {
    let workload = Workload::start(settings.seed, gateways, options).await.context("start the workload")?;
    workload.probe(nemesis::RECOVERY_LIMIT).await.context("before any fault")?;
    let until = Instant::now() + settings.duration;
    let mut story = nemesis::torment(system, &workload, settings.seed, until, &mut *say).await?;
    say(&format!("{} faults, {} acknowledged; everybody catches up", story.faults.len(), workload.acked()));
    let caught_up = nemesis::supervise(system, &mut story.findings, workload.finish()).await?;
    story.findings.extend(system.revive().await?);
    let ledger = caught_up.context("catch up")?;
    Ok((story, ledger))
}

/// Who has panicked, by the logs of the services: a task that does so ends without its process.
fn panics(logs: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        let said = std::fs::read(entry.path())?;
        let said = String::from_utf8_lossy(&said);
        let mut lines = said.lines().filter(|line| line.contains("panicked at"));
        if let Some(first) = lines.next() {
            let name = entry.file_name();
            found.push(format!("{} has {} panics, the first: {first}", name.display(), 1 + lines.count()));
        }
    }
    Ok(found)
}

fn judge((story, ledger): (Story, Ledger), store: StoreView) -> Outcome {
    let verdict = checker::check(&ledger, &store);
    Outcome { story, ledger, store, verdict }
}

/// Compares once more what a run has kept: after a change of the checker.
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
        ledger::{Device, Id, Kind, Send},
        nemesis::FaultRecord,
    };

    #[test]
    fn a_run_in_which_only_probes_went_on_says_nothing() {
        let device = |name: &str| Device { user: 0, name: name.into(), kind: Kind::Raw, lives: vec![] };
        let devices = ["phone", "desk", "tablet"].map(device).to_vec();
        let fault = FaultRecord {
            kind: fault::Kind { action: Action::Fill, part: Part::Disk },
            target: String::new(),
            at: Duration::ZERO,
            held: Duration::ZERO,
            recovered_in: None,
            pause: Duration::ZERO,
        };
        let mut outcome = Outcome {
            story: Story { faults: vec![fault], findings: vec![] },
            ledger: Ledger { devices, ..Ledger::default() },
            store: StoreView::default(),
            verdict: Verdict::default(),
        };
        let send = |device| Send {
            device,
            conversation: 0,
            client_msg_id: Id::default(),
            digest: 0,
            began: 0,
            ordered: true,
            forbidden: false,
            outcome: Sent::Acked { message_id: Id::default(), at: 0 },
        };
        outcome.ledger.sends.push(send(0));
        assert_eq!(outcome.missing(), Some("most devices said nothing"));
        outcome.ledger.sends.push(send(1));
        assert_eq!(outcome.missing(), Some("no change of a group"));
        let figures = &mut outcome.verdict.figures;
        (figures.changes, figures.claims, figures.live, figures.read) = (1, 1, 1, 1);
        assert_eq!(outcome.missing(), None);
        outcome.story.faults.clear();
        assert_eq!(outcome.missing(), Some("no fault"));
    }

    #[test]
    fn a_panic_in_a_log_is_found() {
        let logs = tempfile::tempdir().unwrap();
        std::fs::write(logs.path().join("pusher-1.log"), "all is well\n").unwrap();
        assert!(panics(logs.path()).unwrap().is_empty());
        let said = "INFO ready\nthread 'a' (7) panicked at src/a.rs:1:1:\noh\nthread 'b' panicked at src/b.rs:2:2:\n";
        std::fs::write(logs.path().join("consumer-1.log"), said).unwrap();
        let found = panics(logs.path()).unwrap();
        assert_eq!(
            found,
            ["consumer-1.log has 2 panics, the first: thread 'a' (7) panicked at src/a.rs:1:1:"]
        );
    }
}
