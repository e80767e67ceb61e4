//! The behaviour suite: tests of whole systems, in both modes.
//!
//! Most test bodies run twice: against the one-process program, and against the four services on real servers. The prefix
//! of a test, `p1_` to `p9_`, is the line of the promise in `README.md` that the test checks.
//!
//! `cargo test -p tests --test behaviour [NAME]`. The distributed mode needs servers, see `tests/run`.

use anyhow::{Context as _, Result, anyhow};
use cases::{Limits, SharedTest, StandaloneTest, shared_tests, standalone_tests};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{process::ExitCode, sync::Arc, time::Duration};
use tests::{
    process::Process,
    system::{Distributed, Embedded, System, TIGHT},
    world::World,
};
use tokio::{runtime::Runtime, sync::OnceCell, time::timeout};

mod api;
mod authorisation;
mod backup;
mod cases;
mod connections;
mod dashboards;
mod dead_letters;
mod devices;
mod discovery;
mod distributed;
mod documents;
mod drain;
mod edges;
mod embedded;
mod entries;
mod former_members;
mod groups;
mod http;
mod limits;
mod load;
mod lost_fences;
mod messages;
mod metrics;
mod positions;
mod programs;
mod signals;
mod sync;
mod tls;
mod traces;
mod user_state;
mod versions;

/// A test that takes longer fails.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// Concurrent tests. More than the cores of a small machine, because tests spend most of their time waiting.
const THREADS: usize = 6;

/// Checks that a program reports every config error and exits with 64.
async fn check_config_errors(program: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("godwit.toml");
    std::fs::write(&file, "colour = 'red'\n[gateway]\nheartbeat = 'often'\n[limits]\nsend_burst = 0\n")?;
    let file = file.to_string_lossy();
    let arguments = ["--config", &*file, "--set", "kafka.partitions=many", "--set", "nonsense.key=1"];
    let mut process = Process::start(program, arguments)?;
    let status = process.ended().await?;
    let output = process.output().join("\n");
    assert_eq!(status.code(), Some(64), "{program}: {output}");
    for key in ["colour", "gateway.heartbeat", "kafka.partitions", "nonsense"] {
        assert!(output.contains(key), "{program} does not name {key}: {output}");
    }
    Ok(())
}

/// The systems of one mode. Each starts when the first test needs it.
struct Systems<S> {
    default: OnceCell<Result<Arc<S>, String>>,
    tight: OnceCell<Result<Arc<S>, String>>,
}

impl<S: System + 'static> Systems<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self { default: OnceCell::new(), tight: OnceCell::new() })
    }

    async fn world(
        &self,
        limits: Limits,
        start: impl AsyncFnOnce(&'static [&'static str]) -> Result<S>,
    ) -> Result<World> {
        let (cell, settings): (_, &'static [_]) = match limits {
            Limits::Default => (&self.default, &[authorisation::SIGNING_KEY]),
            Limits::Tight => (&self.tight, &TIGHT),
        };
        let started = cell
            .get_or_init(async || start(settings).await.map(Arc::new).map_err(|error| format!("{error:#}")));
        let system = started.await.as_ref().map_err(|error| anyhow!("the system did not start: {error}"))?;
        Ok(World::new(Arc::clone(system) as Arc<dyn System>))
    }
}

/// Wraps a test for the harness, with a time limit.
fn trial<F: Future<Output = Result<()>>>(
    runtime: &Arc<Runtime>,
    name: String,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    let runtime = Arc::clone(runtime);
    Trial::test(name, move || {
        let ended = runtime
            .block_on(async { timeout(TIME_LIMIT, body()).await.context("the test did not end in time")? });
        ended.map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let runtime = Arc::new(Runtime::new().expect("threads can be started"));
    let (embedded, distributed) = (Systems::<Embedded>::new(), Systems::<Distributed>::new());
    let mut trials = Vec::new();
    for SharedTest { name, limits, body } in shared_tests() {
        let systems = Arc::clone(&embedded);
        trials.push(trial(&runtime, format!("embedded::{name}"), async move || {
            body(systems.world(limits, async |settings| Embedded::start(settings).await).await?).await
        }));
        let systems = Arc::clone(&distributed);
        trials.push(trial(&runtime, format!("distributed::{name}"), async move || {
            body(systems.world(limits, async |settings| Distributed::start(settings).await).await?).await
        }));
    }
    for StandaloneTest { name, body } in standalone_tests() {
        trials.push(trial(&runtime, name.to_owned(), body));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Dropping the systems ends their processes. Exiting would leave them running.
    drop((embedded, distributed));
    conclusion.exit_code()
}
