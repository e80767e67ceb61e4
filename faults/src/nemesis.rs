//! Injects random faults into a system, heals them, and measures the recovery.

mod schedule;

use super::{
    fault::{Action, Breakable, Fault, Kind},
    workload::Workload,
};
use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use schedule::Schedule;
use std::{
    pin::pin,
    time::{Duration, Instant},
};
use tokio::time::{sleep, sleep_until};

/// Longest recovery. A system that takes longer is a finding.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Interval at which exited processes are looked for.
const SUPERVISION: Duration = Duration::from_millis(500);
/// Expected messages above which a fault that stops everything must delay at least one of them.
const ENOUGH_MESSAGES: f64 = 12.0;
/// Seconds between the recovery from one fault and the next fault.
const GAP: std::ops::Range<f64> = 0.2..2.5;

/// A fault that was injected.
#[derive(Clone, Debug)]
pub struct FaultRecord {
    /// Its kind.
    pub kind: Kind,
    /// Its target.
    pub target: String,
    /// When, since the start of the faults.
    pub at: Duration,
    /// From injection to the start of healing. For a rolling restart: its duration.
    pub lasted: Duration,
    /// From the start of healing, including the start of a killed service, until messages went through every gateway and
    /// every partition again.
    ///
    /// `None` if another fault lasted longer: its record has the recovery from both. `None` also for a rolling restart, which
    /// waits until each process is ready, so that nothing remains to recover from.
    pub recovered_in: Option<Duration>,
    /// The longest wait of a device for an acknowledgement since injection.
    pub longest_pause: Duration,
}

/// All injected faults, and the findings besides the checker's.
#[derive(Debug, Default)]
pub struct Report {
    /// The faults.
    pub faults: Vec<FaultRecord>,
    /// Events that must not happen, such as a process that exited by itself, or a system that did not recover.
    pub findings: Vec<String>,
}

impl Report {
    fn finding(&mut self, print: &mut impl FnMut(&str), finding: String) {
        print(&finding);
        self.findings.push(finding);
    }
}

/// Injects faults until a deadline, and prints a line for each one when it has ended.
///
/// # Errors
/// If the suite itself fails.
pub async fn inject_until(
    system: &mut impl Breakable,
    workload: &Workload,
    seed: u64,
    deadline: Instant,
    mut print: impl FnMut(&str),
) -> Result<Report> {
    let start = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut schedule = Schedule::new(system.kinds());
    let mut report = Report::default();
    while Instant::now() < deadline {
        let faults = schedule.draw(system, &mut rng);
        let names: Vec<_> = faults.iter().map(|fault| fault.kind.to_string()).collect();
        let names = names.join(" and ");
        let injected = inject_and_heal(system, &faults, &mut rng, &mut report.findings).await?;
        let healed = injected.iter().map(|injected| injected.healed).max().unwrap_or(start);
        let probe = workload.probe(RECOVERY_LIMIT);
        let recovered_in = match supervise(system, &mut report.findings, probe).await? {
            Ok(_) => Some(healed.elapsed()),
            Err(error) => {
                let at = start.elapsed();
                let finding = format!("{at:.0?} after the start: no recovery from {names}: {error:#}");
                report.finding(&mut print, finding);
                None
            }
        };
        for injected in &injected {
            let record = FaultRecord {
                kind: injected.fault.kind,
                target: system.target(&injected.fault),
                at: injected.begun - start,
                lasted: injected.healed - injected.begun,
                recovered_in: recovered_in.filter(|_| {
                    injected.healed == healed && injected.fault.kind.action != Action::RollingRestart
                }),
                longest_pause: workload.longest_pause_since(injected.begun),
            };
            add_record(&mut report, record, workload, &mut print);
        }
        system.wait_for_healing().await?;
        check_pushes(system, workload, recovered_in.is_some(), &names, &mut report, &mut print).await?;
        let gap = sleep(Duration::from_secs_f64(rng.random_range(GAP)));
        supervise(system, &mut report.findings, gap).await?;
    }
    Ok(report)
}

fn add_record(report: &mut Report, record: FaultRecord, workload: &Workload, print: &mut impl FnMut(&str)) {
    let number = report.faults.len() + 1;
    print(&line(number, &record, workload.acked()));
    if has_no_effect(&record, workload.rate()) {
        report.finding(print, format!("fault #{number}, {}, had no effect", record.kind));
    }
    report.faults.push(record);
}

/// Checks that messages are pushed again. After a failed recovery it gives the system more time instead.
async fn check_pushes(
    system: &mut impl Breakable,
    workload: &Workload,
    recovered: bool,
    names: &str,
    report: &mut Report,
    print: &mut impl FnMut(&str),
) -> Result<()> {
    if !recovered {
        let probe = workload.probe(2 * RECOVERY_LIMIT);
        let _ = supervise(system, &mut report.findings, probe).await?;
    } else if let Err(error) = supervise(system, &mut report.findings, workload.probe_pushes()).await? {
        report.finding(print, format!("no pushes after {names}: {error:#}"));
    }
    Ok(())
}

/// Runs `work`, and meanwhile restarts processes that exit, as a service manager does.
///
/// # Errors
/// If a program does not start.
pub(super) async fn supervise<T>(
    system: &mut impl Breakable,
    exits: &mut Vec<String>,
    work: impl Future<Output = T>,
) -> Result<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = sleep(SUPERVISION) => exits.extend(system.restart_exited().await?),
        }
    }
}

/// Whether messages were acknowledged during a fault that stops everything. This can't be decided if fewer than
/// [`ENOUGH_MESSAGES`] were expected in half of the fault's time.
fn has_no_effect(record: &FaultRecord, rate: f64) -> bool {
    let half = record.lasted / 2;
    record.kind.stops_everything()
        && half.as_secs_f64() * rate >= ENOUGH_MESSAGES
        && record.longest_pause < half
}

fn line(number: usize, record: &FaultRecord, acked: u64) -> String {
    let recovered = record.recovered_in.map_or("-".into(), |time| format!("{:.1} s", time.as_secs_f64()));
    format!(
        "{:>6.0} s  #{number:<3} {:<28} {:<16} lasted {:>4.1} s, recovered in {recovered:>6}, longest pause {:>4.1} s, \
         {acked} acknowledged",
        record.at.as_secs_f64(),
        record.kind.to_string(),
        record.target,
        record.lasted.as_secs_f64(),
        record.longest_pause.as_secs_f64(),
    )
}

/// A fault with its start and the start of its healing.
struct Injected {
    fault: Fault,
    begun: Instant,
    healed: Instant,
}

/// Injects the faults, the second one while the first one lasts, and heals each when its time is over.
async fn inject_and_heal(
    system: &mut impl Breakable,
    faults: &[Fault],
    rng: &mut StdRng,
    exits: &mut Vec<String>,
) -> Result<Vec<Injected>> {
    let mut active: Vec<(Fault, Instant)> = Vec::new();
    for fault in faults {
        if let Some((first, _)) = active.first() {
            let until_second = sleep(first.duration.mul_f64(rng.random_range(0.0..0.8)));
            supervise(system, exits, until_second).await?;
        }
        // Otherwise a process that exited by itself would be taken for a killed one.
        exits.extend(system.restart_exited().await?);
        let before = Instant::now();
        system.inject(fault).await?;
        // A fault begins once it is in effect: filling a disk takes seconds. But a rolling restart is over by now.
        let begun = if fault.kind.action == Action::RollingRestart { before } else { Instant::now() };
        active.push((fault.clone(), begun));
    }
    active.sort_by_key(|(fault, begun)| *begun + fault.duration);
    let mut injected = Vec::new();
    for (fault, begun) in active {
        supervise(system, exits, sleep_until((begun + fault.duration).into())).await?;
        let healed = Instant::now();
        system.heal(&fault).await?;
        injected.push(Injected { fault, begun, healed });
    }
    Ok(injected)
}

#[cfg(test)]
mod tests;
