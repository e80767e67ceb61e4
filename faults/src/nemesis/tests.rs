use super::*;
use crate::fault::Part;

#[test]
fn every_kind_comes_once_before_any_comes_again() {
    let kinds = Kind::of(Part::Server("redis"), &[Action::Kill, Action::Pause, Action::Wipe]);
    let (mut schedule, mut rng) = (Schedule::new(kinds.clone()), StdRng::seed_from_u64(7));
    let mut sorted = kinds.clone();
    sorted.sort();
    for _ in 0..3 {
        let mut round: Vec<_> = kinds.iter().filter_map(|_| schedule.next(&mut rng, |_| true)).collect();
        round.sort();
        assert_eq!(round, sorted);
    }
    assert_eq!(schedule.next(&mut rng, |_| false), None);
}

/// A system with three instances of every part, in which faults have no effect.
struct Immune {
    kinds: Vec<Kind>,
    /// Processes that exited by themselves. An injected fault clears them.
    exits: Vec<String>,
}

impl Breakable for Immune {
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
        self.exits.clear();
        Ok(())
    }

    async fn heal(&mut self, _: &Fault) -> Result<()> {
        Ok(())
    }

    async fn wait_for_healing(&mut self) -> Result<()> {
        Ok(())
    }

    async fn restart_exited(&mut self) -> Result<Vec<String>> {
        Ok(std::mem::take(&mut self.exits))
    }
}

#[tokio::test]
async fn a_process_that_exited_before_a_kill_is_reported() {
    let kinds = Kind::of(Part::Service("consumer"), &[Action::Kill]);
    let mut rng = StdRng::seed_from_u64(1);
    let mut fault = Fault::draw(kinds[0], 3, &mut rng);
    fault.duration = Duration::ZERO;
    let mut system = Immune { kinds, exits: vec!["by itself".into()] };
    let mut exits = Vec::new();
    inject_and_heal(&mut system, &[fault], &mut rng, &mut exits).await.unwrap();
    assert_eq!(exits, ["by itself"]);
}

#[test]
fn a_seed_determines_the_faults() {
    let drawn = |seed| {
        let kinds = [
            Kind::of(Part::Service("consumer"), &[Action::Kill, Action::Pause]),
            Kind::of(Part::Link("grpc"), &[Action::Cut, Action::Delay, Action::HalfOpen]),
            Kind::of(Part::Server("redis"), &[Action::Kill, Action::Wipe]),
        ];
        let system = Immune { kinds: kinds.concat(), exits: vec![] };
        let (mut schedule, mut rng) = (Schedule::new(system.kinds()), StdRng::seed_from_u64(seed));
        let rounds = (0..20).map(|_| schedule.draw(&system, &mut rng)).collect::<Vec<_>>();
        assert!(rounds.iter().any(|faults| faults.len() == 2), "no two faults overlap");
        format!("{rounds:?}")
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn a_fault_that_delays_no_message_has_no_effect() {
    let record = |kind, lasted, longest_pause| FaultRecord {
        kind,
        target: String::new(),
        at: Duration::ZERO,
        lasted: Duration::from_secs(lasted),
        recovered_in: None,
        longest_pause: Duration::from_secs(longest_pause),
    };
    let fill = Kind { action: Action::Fill, part: Part::Disk };
    assert!(has_no_effect(&record(fill, 6, 2), 100.0));
    assert!(!has_no_effect(&record(fill, 6, 3), 100.0));
    assert!(!has_no_effect(&record(fill, 6, 0), 1.0), "too few messages were sent");
    let one_of_two = Kind { action: Action::Kill, part: Part::Service("consumer") };
    assert!(!has_no_effect(&record(one_of_two, 6, 0), 100.0), "the other instance continues");
}

#[test]
fn two_brokers_never_fail_at_once() {
    let kind = |action, part| Kind { action, part };
    let broker = kind(Action::Kill, Part::Server("kafka"));
    assert!(!broker.may_overlap(kind(Action::Pause, Part::Server("kafka"))));
    assert!(!broker.may_overlap(kind(Action::Cut, Part::Link("kafka"))));
    assert!(!broker.may_overlap(kind(Action::RollingRestart, Part::Services)));
    assert!(broker.may_overlap(kind(Action::Kill, Part::Server("redis"))));
}
