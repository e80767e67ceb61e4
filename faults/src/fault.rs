//! The catalogue: what can happen to which part of a system.

use super::proxy::Mode;
use rand::{Rng, RngExt as _};
use std::{fmt, ops::RangeInclusive, time::Duration};

/// So often a silence lasts until gRPC itself finds it.
const LONG: f64 = 0.3;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// SIGKILL; healed by starting it again.
    Kill,
    /// SIGKILL and all of its data gone; healed by starting it again.
    Empty,
    /// SIGSTOP, for longer than the sessions of Kafka's group and of devices last; healed by SIGCONT.
    Pause,
    /// Connections are closed and refused.
    Cut,
    /// Connections are reset.
    Reset,
    /// Connections take everything and pass nothing on.
    HalfOpen,
    /// Everything arrives later.
    Delay,
    /// No space is left, and then nothing can be written at all.
    Fill,
    /// SIGTERM and a start again, one process after the other.
    Roll,
}

/// What it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A process of a service, by the name of its program.
    Service(&'static str),
    /// All processes of all services.
    Services,
    /// A server below the services; a broker of three is `kafka`.
    Server(&'static str),
    /// Connections to `postgres`, `redis`, `consul`, `kafka`, to the `grpc` of a service, or of `devices` to a gateway.
    Link(&'static str),
    /// The filesystem of the data directory.
    Disk,
}

/// Action and part: what the table has a line for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// What is done.
    pub action: Action,
    /// What it is done to.
    pub part: Part,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Kill => "kill",
            Action::Empty => "kill and empty",
            Action::Pause => "pause",
            Action::Cut => "cut",
            Action::Reset => "reset",
            Action::HalfOpen => "half-open",
            Action::Delay => "delay",
            Action::Fill => "fill",
            Action::Roll => "restart one by one",
        };
        match self.part {
            Part::Service(program) => write!(f, "{action} {program}"),
            Part::Services => write!(f, "{action} all services"),
            Part::Server("kafka") => write!(f, "{action} a kafka broker"),
            Part::Server(name) => write!(f, "{action} {name}"),
            Part::Link("devices") => write!(f, "{action} links of devices"),
            Part::Link(to) => write!(f, "{action} links to {to}"),
            Part::Disk => write!(f, "{action} the disk"),
        }
    }
}

impl Kind {
    /// Everything that can be done to a part: each action with it.
    pub fn of(part: Part, actions: &[Action]) -> Vec<Self> {
        actions.iter().map(|&action| Self { action, part }).collect()
    }

    /// Whether nothing can be acknowledged while it lasts.
    pub fn stops_everything(self) -> bool {
        match self.part {
            Part::Service("godwit") => matches!(self.action, Action::Kill | Action::Pause),
            Part::Disk => self.action == Action::Fill,
            _ => false,
        }
    }

    /// How long it lasts. A pause outlasts sessions: 6 s at Kafka's group, 5 s of a device at a gateway.
    fn hold(self) -> RangeInclusive<f64> {
        match self.action {
            Action::Kill => 0.5..=8.0,
            Action::Empty => 0.0..=2.0,
            Action::Pause => 7.0..=11.0,
            Action::Cut | Action::Reset => 0.5..=7.0,
            Action::HalfOpen => 4.0..=10.0,
            Action::Delay => 3.0..=8.0,
            Action::Fill => 1.0..=6.0,
            Action::Roll => 0.0..=0.0,
        }
    }

    /// How long it lasts instead now and then: longer than the 15 s after which a caller by gRPC takes a silent connection for
    /// dead.
    fn long_hold(self) -> Option<RangeInclusive<f64>> {
        let silent = matches!(self.action, Action::HalfOpen | Action::Pause);
        let called =
            matches!(self.part, Part::Service("db-service" | "pusher" | "ws-gateway") | Part::Link("grpc"));
        (silent && called).then_some(16.0..=20.0)
    }

    /// Whether two may last at the same time. Two brokers of three at once is beyond what is promised, and a part whose
    /// links are broken while it is restarted would make the one fault hide the other.
    pub fn allows(self, other: Self) -> bool {
        let alone = |kind: Self| matches!(kind.action, Action::Roll | Action::Fill);
        let domain = |kind: Self| match kind.part {
            Part::Service("db-service" | "pusher") => "grpc",
            Part::Service("ws-gateway") => "devices",
            Part::Service(name) | Part::Server(name) | Part::Link(name) => name,
            Part::Services | Part::Disk => "",
        };
        !alone(self) && !alone(other) && domain(self) != domain(other)
    }
}

/// What happens once.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// Which of the part's instances; one more than there are means all of them.
    pub target: usize,
    /// How long it lasts.
    pub hold: Duration,
    /// What broken links do.
    pub mode: Mode,
}

impl Fault {
    /// A fault of a kind, where the part has so many instances. Links are broken, and services killed, one by one or all at once.
    pub fn draw(kind: Kind, instances: usize, rng: &mut impl Rng) -> Self {
        let targets = match (kind.action, kind.part) {
            (_, Part::Link(_)) | (Action::Kill, Part::Service(_)) => instances + 1,
            _ => instances,
        };
        let long = kind.long_hold().filter(|_| rng.random_bool(LONG));
        Self {
            kind,
            target: rng.random_range(0..targets.max(1)),
            hold: Duration::from_secs_f64(rng.random_range(long.unwrap_or(kind.hold()))),
            mode: match kind.action {
                Action::Cut => Mode::Cut,
                Action::Reset => Mode::Reset,
                Action::HalfOpen => Mode::HalfOpen,
                Action::Delay => Mode::Delay(Duration::from_millis(rng.random_range(20..=400))),
                _ => Mode::Pass,
            },
        }
    }
}

/// A system that faults can be done to.
pub trait Breakable {
    /// What can happen to it.
    fn kinds(&self) -> Vec<Kind>;
    /// How many instances a part has.
    fn instances(&self, part: Part) -> usize;
    /// The name of what a fault hits, for the log.
    fn target(&self, fault: &Fault) -> String;
    /// Makes it happen; it lasts from then on. What takes several steps, a restart of everything, has happened then.
    ///
    /// # Errors
    /// If the suite itself fails.
    fn inject(&mut self, fault: &Fault) -> impl Future<Output = anyhow::Result<()>>;
    /// Undoes it. What was started need not answer yet.
    ///
    /// # Errors
    /// If the suite itself fails, or a program does not start.
    fn heal(&mut self, fault: &Fault) -> impl Future<Output = anyhow::Result<()>>;
    /// Waits until what healing started answers.
    ///
    /// # Errors
    /// If it does not.
    fn settle(&mut self) -> impl Future<Output = anyhow::Result<()>>;
    /// Starts processes again that ended by themselves since the last time, and tells how each ended.
    ///
    /// # Errors
    /// If a program does not start.
    fn revive(&mut self) -> impl Future<Output = anyhow::Result<Vec<String>>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    fn drawn(action: Action, part: Part) -> Vec<Fault> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..100).map(|_| Fault::draw(Kind { action, part }, 2, &mut rng)).collect()
    }

    #[test]
    fn services_are_killed_one_by_one_or_all_at_once() {
        let killed = drawn(Action::Kill, Part::Service("pusher"));
        assert!((0..=2).all(|target| killed.iter().any(|fault| fault.target == target)));
        let servers = drawn(Action::Kill, Part::Server("kafka"));
        assert!(servers.iter().all(|fault| fault.target < 2), "only one broker may be away");
    }

    #[test]
    fn some_silences_are_found_by_grpc() {
        let found = |action, part| {
            let long =
                drawn(action, part).iter().filter(|fault| fault.hold > Duration::from_secs(15)).count();
            (1..100).contains(&long)
        };
        assert!(found(Action::HalfOpen, Part::Link("grpc")));
        assert!(found(Action::Pause, Part::Service("db-service")));
        assert!(!found(Action::Pause, Part::Service("godwit")));
        assert!(!found(Action::Cut, Part::Link("grpc")), "a cut is no silence");
    }
}
