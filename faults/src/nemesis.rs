//! Breaks a system by chance, heals it, and measures how long it took to be well again.

use super::{
    fault::{Action, Breakable, Fault, Kind},
    workload::Workload,
};
use anyhow::Result;
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use std::{
    collections::VecDeque,
    pin::pin,
    time::{Duration, Instant},
};
use tokio::time::{sleep, sleep_until};

/// A system that is not well again by then is a finding.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// So often a second fault comes while the first one lasts.
const OVERLAP: f64 = 0.3;
/// So often the supervisor looks after the processes.
const SUPERVISION: Duration = Duration::from_millis(500);
/// Messages of which one at least has to wait for a fault that stops everything.
const ENOUGH: f64 = 12.0;
/// Seconds between the recovery from one fault and the next one.
const GAP: std::ops::Range<f64> = 0.2..2.5;

/// A fault that happened.
#[derive(Clone, Debug)]
pub struct FaultRecord {
    /// What was done.
    pub kind: Kind,
    /// To whom.
    pub target: String,
    /// When, counted from the beginning of the workload.
    pub at: Duration,
    /// From when it was there until healing began; of a restart of everything, the time that it took.
    pub held: Duration,
    /// From there, with the start of the service that was killed, until messages went through every gateway and every
    /// partition again. `None` while another fault lasted longer; then that one has the recovery from both. `None` also of
    /// a restart of everything, in which each process is waited for until it is ready: nothing is left to recover from.
    pub recovered_in: Option<Duration>,
    /// The longest that a device waited for an acknowledgement meanwhile.
    pub pause: Duration,
}

/// All that happened.
#[derive(Debug, Default)]
pub struct Story {
    /// The faults.
    pub faults: Vec<FaultRecord>,
    /// What may not happen: a process that ended by itself, a system that did not recover.
    pub findings: Vec<String>,
}

/// Lets faults happen until a time is over, and tells of each as it ends.
///
/// # Errors
/// If the suite itself fails.
pub async fn torment(
    system: &mut impl Breakable,
    workload: &Workload,
    seed: u64,
    until: Instant,
    mut tell: impl FnMut(&str),
) -> Result<Story> {
    let begin = Instant::now();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bag = Bag::new(system.kinds());
    let mut story = Story::default();
    while Instant::now() < until {
        let faults = draw(&mut bag, system, &mut rng);
        let names: Vec<_> = faults.iter().map(|fault| fault.kind.to_string()).collect();
        let names = names.join(" and ");
        let round = round(system, &faults, &mut rng, &mut story.findings).await?;
        let healing = round.iter().map(|happened| happened.healed).max().unwrap_or(begin);
        let probe = workload.probe(RECOVERY_LIMIT);
        let recovered = match supervise(system, &mut story.findings, probe).await? {
            Ok(_) => Some(healing.elapsed()),
            Err(error) => {
                let at = begin.elapsed();
                let finding = format!("{at:.0?} after the beginning: not well after {names}: {error:#}");
                tell(&finding);
                story.findings.push(finding);
                None
            }
        };
        for happened in &round {
            let record = FaultRecord {
                kind: happened.fault.kind,
                target: system.target(&happened.fault),
                at: happened.begun - begin,
                held: happened.healed - happened.begun,
                recovered_in: recovered
                    .filter(|_| happened.healed == healing && happened.fault.kind.action != Action::Roll),
                pause: workload.longest_pause_since(happened.begun),
            };
            let number = story.faults.len() + 1;
            tell(&line(number, &record, workload.acked()));
            if has_no_effect(&record, workload.rate()) {
                let finding = format!("fault #{number}, {}, took no effect", record.kind);
                tell(&finding);
                story.findings.push(finding);
            }
            story.faults.push(record);
        }
        system.settle().await?;
        if recovered.is_some() {
            let pushes = supervise(system, &mut story.findings, workload.probe_pushes()).await?;
            if let Err(error) = pushes {
                let finding = format!("nothing is pushed any more after {names}: {error:#}");
                tell(&finding);
                story.findings.push(finding);
            }
        } else {
            // It may take longer than it should, and still come back.
            let probe = workload.probe(2 * RECOVERY_LIMIT);
            let _ = supervise(system, &mut story.findings, probe).await?;
        }
        let gap = sleep(Duration::from_secs_f64(rng.random_range(GAP)));
        supervise(system, &mut story.findings, gap).await?;
    }
    Ok(story)
}

/// Does something, and meanwhile starts again what ended by itself, as whatever runs services does.
///
/// # Errors
/// If a program does not start.
pub(super) async fn supervise<T>(
    system: &mut impl Breakable,
    ended: &mut Vec<String>,
    work: impl Future<Output = T>,
) -> Result<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = sleep(SUPERVISION) => ended.extend(system.revive().await?),
        }
    }
}

/// Whether messages were acknowledged as if nothing was, during a fault that lets nobody acknowledge anything. When fewer
/// than [`ENOUGH`] were begun in half of the time that it lasted, nobody can tell.
fn has_no_effect(record: &FaultRecord, rate: f64) -> bool {
    let half = record.held / 2;
    record.kind.stops_everything() && half.as_secs_f64() * rate >= ENOUGH && record.pause < half
}

fn line(number: usize, record: &FaultRecord, acked: u64) -> String {
    let recovered = record.recovered_in.map_or("-".into(), |time| format!("{:.1} s", time.as_secs_f64()));
    format!(
        "{:>6.0} s  #{number:<3} {:<28} {:<16} held {:>4.1} s, recovered in {recovered:>6}, longest pause {:>4.1} s, \
         {acked} acknowledged",
        record.at.as_secs_f64(),
        record.kind.to_string(),
        record.target,
        record.held.as_secs_f64(),
        record.pause.as_secs_f64(),
    )
}

/// One fault, or two that last at the same time.
fn draw(bag: &mut Bag, system: &impl Breakable, rng: &mut StdRng) -> Vec<Fault> {
    let first = bag.next(rng, |_| true);
    let second =
        rng.random_bool(OVERLAP).then(|| bag.next(rng, |kind| first.is_some_and(|f| f.allows(kind))));
    let kinds = [first, second.flatten()].into_iter().flatten();
    kinds.map(|kind| Fault::draw(kind, system.instances(kind.part), rng)).collect()
}

/// A fault, from its beginning to the beginning of its healing.
struct Happened {
    fault: Fault,
    begun: Instant,
    healed: Instant,
}

/// Makes faults happen, the second while the first lasts, and heals each when its time is over.
async fn round(
    system: &mut impl Breakable,
    faults: &[Fault],
    rng: &mut StdRng,
    ended: &mut Vec<String>,
) -> Result<Vec<Happened>> {
    let mut lasting: Vec<(Fault, Instant)> = Vec::new();
    for fault in faults {
        if let Some((first, _)) = lasting.first() {
            let until_second = sleep(first.hold.mul_f64(rng.random_range(0.0..0.8)));
            supervise(system, ended, until_second).await?;
        }
        // Whoever has ended by itself since the last look must not pass for killed.
        ended.extend(system.revive().await?);
        let before = Instant::now();
        system.inject(fault).await?;
        // It lasts from when it is there, and a disk is filled in seconds; but a restart of everything is over by now.
        let begun = if fault.kind.action == Action::Roll { before } else { Instant::now() };
        lasting.push((fault.clone(), begun));
    }
    lasting.sort_by_key(|(fault, begun)| *begun + fault.hold);
    let mut happened = Vec::new();
    for (fault, begun) in lasting {
        supervise(system, ended, sleep_until((begun + fault.hold).into())).await?;
        let healed = Instant::now();
        system.heal(&fault).await?;
        happened.push(Happened { fault, begun, healed });
    }
    Ok(happened)
}

/// Every kind once, in random order, before any comes again.
struct Bag {
    all: Vec<Kind>,
    left: VecDeque<Kind>,
}

impl Bag {
    fn new(all: Vec<Kind>) -> Self {
        Self { all, left: VecDeque::new() }
    }

    /// The next one that is allowed.
    fn next(&mut self, rng: &mut impl Rng, allowed: impl Fn(Kind) -> bool) -> Option<Kind> {
        if self.left.is_empty() {
            self.all.shuffle(rng);
            self.left = self.all.iter().copied().collect();
        }
        let position = self.left.iter().position(|&kind| allowed(kind))?;
        self.left.remove(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Part;

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        let kinds = Kind::of(Part::Server("redis"), &[Action::Kill, Action::Pause, Action::Empty]);
        let (mut bag, mut rng) = (Bag::new(kinds.clone()), StdRng::seed_from_u64(7));
        for _ in 0..3 {
            let mut round: Vec<_> = kinds.iter().filter_map(|_| bag.next(&mut rng, |_| true)).collect();
            round.sort();
            assert_eq!(
                round,
                kinds
                    .iter()
                    .copied()
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>()
            );
        }
        assert_eq!(bag.next(&mut rng, |_| false), None);
    }

    /// A system of three of everything to which nothing happens.
    struct Patient {
        kinds: Vec<Kind>,
        /// Who has ended by itself; forgotten when something is done to the system.
        ended: Vec<String>,
    }

    impl Breakable for Patient {
        fn kinds(&self) -> Vec<Kind> {
            self.kinds.clone()
        }

        fn instances(&self, _: Part) -> usize {
            3
        }

        fn target(&self, fault: &Fault) -> String {
            fault.target.to_string()
        }

        async fn inject(&mut self, _: &Fault) -> Result<()> {
            self.ended.clear();
            Ok(())
        }

        async fn heal(&mut self, _: &Fault) -> Result<()> {
            Ok(())
        }

        async fn settle(&mut self) -> Result<()> {
            Ok(())
        }

        async fn revive(&mut self) -> Result<Vec<String>> {
            Ok(std::mem::take(&mut self.ended))
        }
    }

    #[tokio::test]
    async fn who_ended_by_itself_before_a_kill_is_found() {
        let kinds = Kind::of(Part::Service("consumer"), &[Action::Kill]);
        let mut rng = StdRng::seed_from_u64(1);
        let mut fault = Fault::draw(kinds[0], 3, &mut rng);
        fault.hold = Duration::ZERO;
        let mut system = Patient { kinds, ended: vec!["by itself".into()] };
        let mut ended = Vec::new();
        round(&mut system, &[fault], &mut rng, &mut ended).await.unwrap();
        assert_eq!(ended, ["by itself"]);
    }

    #[test]
    fn a_seed_gives_the_same_faults() {
        let drawn = |seed| {
            let kinds = [
                Kind::of(Part::Service("consumer"), &[Action::Kill, Action::Pause]),
                Kind::of(Part::Link("grpc"), &[Action::Cut, Action::Delay, Action::HalfOpen]),
                Kind::of(Part::Server("redis"), &[Action::Kill, Action::Empty]),
            ];
            let system = Patient { kinds: kinds.concat(), ended: vec![] };
            let (mut bag, mut rng) = (Bag::new(system.kinds()), StdRng::seed_from_u64(seed));
            let rounds = (0..20).map(|_| draw(&mut bag, &system, &mut rng)).collect::<Vec<_>>();
            assert!(rounds.iter().any(|faults| faults.len() == 2), "none at the same time");
            format!("{rounds:?}")
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn a_fault_that_nobody_has_to_wait_for_took_no_effect() {
        let record = |kind, held, pause| FaultRecord {
            kind,
            target: String::new(),
            at: Duration::ZERO,
            held: Duration::from_secs(held),
            recovered_in: None,
            pause: Duration::from_secs(pause),
        };
        let fill = Kind { action: Action::Fill, part: Part::Disk };
        assert!(has_no_effect(&record(fill, 6, 2), 100.0));
        assert!(!has_no_effect(&record(fill, 6, 3), 100.0));
        assert!(!has_no_effect(&record(fill, 6, 0), 1.0), "nobody said anything");
        let one_of_two = Kind { action: Action::Kill, part: Part::Service("consumer") };
        assert!(!has_no_effect(&record(one_of_two, 6, 0), 100.0), "the other goes on");
    }

    #[test]
    fn never_two_brokers_at_once() {
        let kind = |action, part| Kind { action, part };
        let broker = kind(Action::Kill, Part::Server("kafka"));
        assert!(!broker.allows(kind(Action::Pause, Part::Server("kafka"))));
        assert!(!broker.allows(kind(Action::Cut, Part::Link("kafka"))));
        assert!(!broker.allows(kind(Action::Roll, Part::Services)));
        assert!(broker.allows(kind(Action::Kill, Part::Server("redis"))));
    }
}
