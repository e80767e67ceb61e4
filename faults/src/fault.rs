//! The catalogue of faults: actions, the parts of a system that they apply to, and the system's interface for them.

use super::proxy::Mode;
use rand::{Rng, RngExt as _};
use std::{fmt, ops::RangeInclusive, time::Duration};

/// Probability that a pause or half-open link lasts until gRPC's keepalive detects it.
const LONG: f64 = 0.3;

/// An action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// SIGKILL. Healed by starting the process again.
    Kill,
    /// SIGKILL and loss of all data. Healed by starting the server again.
    Wipe,
    /// SIGSTOP for longer than Kafka's session timeout and a device's heartbeat timeout. Healed by SIGCONT.
    Pause,
    /// Connections are closed and refused.
    Cut,
    /// Connections are reset.
    Reset,
    /// Connections accept all bytes and forward none.
    HalfOpen,
    /// Connections forward all bytes late.
    Delay,
    /// The disk has no space left; after some seconds all writes fail.
    Fill,
    /// SIGTERM and a new start of one process after the other.
    RollingRestart,
}

/// A part of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An instance of a service, by the name of its program.
    Service(&'static str),
    /// All instances of all services.
    Services,
    /// A server that the services use; `kafka` is one of three brokers.
    Server(&'static str),
    /// Connections to `postgres`, `redis`, `consul` or `kafka`, to the `grpc` of a service, or from `devices` to a gateway.
    Link(&'static str),
    /// The filesystem of the data directory.
    Disk,
}

/// A kind of fault: an action on a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// The action.
    pub action: Action,
    /// The part.
    pub part: Part,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Kill => "kill",
            Action::Wipe => "kill and wipe",
            Action::Pause => "pause",
            Action::Cut => "cut",
            Action::Reset => "reset",
            Action::HalfOpen => "half-open",
            Action::Delay => "delay",
            Action::Fill => "fill",
            Action::RollingRestart => "rolling restart of",
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
    /// One kind per action, all on the same part.
    pub fn of(part: Part, actions: &[Action]) -> Vec<Self> {
        actions.iter().map(|&action| Self { action, part }).collect()
    }

    /// Whether no message can be acknowledged while the fault lasts.
    pub fn stops_everything(self) -> bool {
        match self.part {
            Part::Service("godwit") => matches!(self.action, Action::Kill | Action::Pause),
            Part::Disk => self.action == Action::Fill,
            _ => false,
        }
    }

    /// Seconds that the fault lasts. A pause is longer than Kafka's session timeout (6 s) and a gateway's heartbeat timeout for
    /// devices (5 s).
    fn duration(self) -> RangeInclusive<f64> {
        match self.action {
            Action::Kill => 0.5..=8.0,
            Action::Wipe => 0.0..=2.0,
            Action::Pause => 7.0..=11.0,
            Action::Cut | Action::Reset => 0.5..=7.0,
            Action::HalfOpen => 4.0..=10.0,
            Action::Delay => 3.0..=8.0,
            Action::Fill => 1.0..=6.0,
            Action::RollingRestart => 0.0..=0.0,
        }
    }

    /// Seconds that some faults last instead: more than the 15 s after which gRPC's keepalive closes a silent connection.
    fn long_duration(self) -> Option<RangeInclusive<f64>> {
        let silent = matches!(self.action, Action::HalfOpen | Action::Pause);
        let uses_grpc =
            matches!(self.part, Part::Service("db-service" | "pusher" | "ws-gateway") | Part::Link("grpc"));
        (silent && uses_grpc).then_some(16.0..=20.0)
    }

    /// Whether two faults may overlap. Two of three brokers must not fail at once: the guarantees do not cover that. And a fault
    /// of a part would hide a fault of the links to the same part.
    pub fn may_overlap(self, other: Self) -> bool {
        let alone = |kind: Self| matches!(kind.action, Action::RollingRestart | Action::Fill);
        let domain = |kind: Self| match kind.part {
            Part::Service("db-service" | "pusher") => "grpc",
            Part::Service("ws-gateway") => "devices",
            Part::Service(name) | Part::Server(name) | Part::Link(name) => name,
            Part::Services | Part::Disk => "",
        };
        !alone(self) && !alone(other) && domain(self) != domain(other)
    }
}

/// A single fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// The index of the part's instance; the number of instances means all of them.
    pub target: usize,
    /// How long it lasts.
    pub duration: Duration,
    /// The mode of a link's proxy.
    pub mode: Mode,
}

impl Fault {
    /// Draws a fault of a kind; `instances` is the number of the part's instances. Link faults and kills of a service hit one
    /// instance or all of them.
    pub fn draw(kind: Kind, instances: usize, rng: &mut impl Rng) -> Self {
        let targets = match (kind.action, kind.part) {
            (_, Part::Link(_)) | (Action::Kill, Part::Service(_)) => instances + 1,
            _ => instances,
        };
        let long = kind.long_duration().filter(|_| rng.random_bool(LONG));
        Self {
            kind,
            target: rng.random_range(0..targets.max(1)),
            duration: Duration::from_secs_f64(rng.random_range(long.unwrap_or(kind.duration()))),
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

/// A system that faults can be injected into.
pub trait Breakable {
    /// The kinds of faults that apply to it.
    fn kinds(&self) -> Vec<Kind>;
    /// The number of instances of a part.
    fn instances(&self, part: Part) -> usize;
    /// The name of a fault's target, for the log.
    fn target(&self, fault: &Fault) -> String;
    /// Injects a fault, which lasts until [`Breakable::heal`]. A rolling restart is complete when this returns.
    ///
    /// # Errors
    /// If the suite itself fails.
    fn inject(&mut self, fault: &Fault) -> impl Future<Output = anyhow::Result<()>>;
    /// Heals a fault. A process that this starts need not be ready when this returns.
    ///
    /// # Errors
    /// If the suite itself fails, or a program does not start.
    fn heal(&mut self, fault: &Fault) -> impl Future<Output = anyhow::Result<()>>;
    /// Waits until all servers that healing started are ready.
    ///
    /// # Errors
    /// If one does not become ready.
    fn wait_for_healing(&mut self) -> impl Future<Output = anyhow::Result<()>>;
    /// Restarts processes that exited by themselves since the last call. Returns a description of each exit.
    ///
    /// # Errors
    /// If a program does not start.
    fn restart_exited(&mut self) -> impl Future<Output = anyhow::Result<Vec<String>>>;
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
    fn a_kill_hits_one_instance_of_a_service_or_all() {
        let killed = drawn(Action::Kill, Part::Service("pusher"));
        assert!((0..=2).all(|target| killed.iter().any(|fault| fault.target == target)));
        let servers = drawn(Action::Kill, Part::Server("kafka"));
        assert!(servers.iter().all(|fault| fault.target < 2), "only one broker may be down");
    }

    #[test]
    fn some_pauses_and_half_open_links_outlast_the_grpc_keepalive() {
        let some_are_long = |action, part| {
            let long =
                drawn(action, part).iter().filter(|fault| fault.duration > Duration::from_secs(15)).count();
            (1..100).contains(&long)
        };
        assert!(some_are_long(Action::HalfOpen, Part::Link("grpc")));
        assert!(some_are_long(Action::Pause, Part::Service("db-service")));
        assert!(!some_are_long(Action::Pause, Part::Service("godwit")));
        assert!(!some_are_long(Action::Cut, Part::Link("grpc")), "a cut is detected at once");
    }
}
