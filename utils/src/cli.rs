//! The options that all programs share, and [`run_main`], which every `main` calls.

mod health;

use crate::{
    Shutdown,
    config::{self, Loaded},
    descriptors, metrics,
    telemetry::{self, Format},
    trace,
};
use abi::config::Config;
use std::{
    fmt::Display,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The allocator of every program. Memory is often freed on another thread than the one that allocated it. glibc's
/// allocator returns little of that memory to the system: it kept 870 MB after a burst of messages where jemalloc kept
/// 180 MB, and used a seventh more CPU.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for config errors (`EX_USAGE`).
pub const EXIT_CONFIG: u8 = 64;
/// Exit code for a failed start and for a service that failed while running.
pub const EXIT_FAILED: u8 = 1;

/// Options of every program: `#[command(flatten)]` them into its own.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Configuration file (TOML). Keys that it does not set keep their defaults.
    #[arg(long, env = "GODWIT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one value, for example gateway.listen=0.0.0.0:7450. Overrides the environment and the file.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the effective configuration, or all config errors, and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Check whether the program that runs with this configuration is ready; exit with 0 only if it is.
    #[arg(long)]
    pub health: bool,
    /// Format of log lines; the same as --set log.format=FORMAT.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<Format>,
    /// Settings from further options of a program: the option as it was written, for config errors, and
    /// `section.key=value`.
    #[arg(skip)]
    pub further: Vec<(String, String)>,
}

impl Options {
    /// The sources of the configuration: the file, the environment of this process, and these options.
    pub fn sources(&self) -> config::Sources {
        let mut overrides: Vec<_> = self.set.iter().map(|text| ("--set".to_owned(), text.clone())).collect();
        if let Some(format) = self.log_format {
            let format = if format == Format::Json { "json" } else { "text" };
            overrides.push(("--log-format".to_owned(), format!("log.format={format}")));
        }
        overrides.extend(self.further.iter().cloned());
        // All our names and values are UTF-8, so other variables are not ours.
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        config::Sources { file: self.config.clone(), environment: environment.collect(), overrides }
    }
}

/// The threads of a program's async runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// One per core.
    #[default]
    Cores,
    /// Only the main thread.
    Current,
}

/// Describes a program to [`run_main`].
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name in logs, metrics and traces.
    pub name: &'static str,
    /// `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// The address of its admin server, from the configuration.
    pub admin: fn(&Config) -> &str,
    /// The threads of its runtime.
    pub threads: Threads,
    /// The time limit of its shutdown.
    pub drain_limit: fn(&Config) -> Duration,
    /// Returns config errors that concern more than the values: unreadable files, features that the program was built
    /// without. Each is `section.key: a sentence`.
    pub check: fn(&Config) -> Vec<String>,
}

/// Loads the configuration, starts telemetry and the runtime, calls `start`, and runs until a signal arrives or a
/// critical task fails.
///
/// `start` binds listeners, connects, spawns tasks with [`Shutdown::tasks`], registers shutdown work with
/// [`Shutdown::on`], and returns. If it returns an error, the program exits. The first SIGTERM or SIGINT begins the
/// drain; the second stops the program immediately.
///
/// Returns the exit code: 0, [`EXIT_CONFIG`] or [`EXIT_FAILED`]. For the last two, standard error has the reasons.
pub fn run_main<F, Fut>(program: Program, options: &Options, start: F) -> ExitCode
where
    F: FnOnce(Config, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let Loaded { config, warnings, .. } =
        match config::load_checked::<Config>(&options.sources(), program.check) {
            Ok(loaded) => loaded,
            Err(errors) => return fail(EXIT_CONFIG, &errors),
        };
    if options.check_config {
        warnings.iter().for_each(|warning| complain(warning));
        return print_config(&config);
    }
    if options.health {
        return health::check((program.admin)(&config))
            .map_or_else(|reason| fail(EXIT_FAILED, &reason), |ready| print(&format!("{ready}\n")));
    }
    let format = if config.log.format == "json" { Format::Json } else { Format::Text };
    if let Err(error) = telemetry::init(&config.log.level, format) {
        return fail(EXIT_CONFIG, &error);
    }
    // Install the recorder first. Metrics that are recorded without one are lost.
    if let Err(error) = telemetry::metrics_recorder() {
        return fail(EXIT_FAILED, &error);
    }
    crate::describe_metrics();
    metrics::program(program.name, program.version);
    let runtime = match runtime(program.threads) {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &format!("cannot start threads: {error}")),
    };
    tracing::info!(program = program.name, version = program.version, "starting");
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    descriptors::raise();
    let ended = runtime.block_on(run(program, config, start));
    // A blocking call that hangs must not keep the finished process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &format!("{}: {error:#}", program.name)),
    }
}

async fn run<F, Fut>(program: Program, config: Config, start: F) -> anyhow::Result<()>
where
    F: FnOnce(Config, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let shutdown = Shutdown::new((program.drain_limit)(&config));
    trace::start(program.name, program.version, &config.trace, &shutdown)?;
    let mut signals = Signals::new()?;
    tokio::select! {
        started = start(config, shutdown.clone()) => started?,
        // Nothing is running yet, so there is nothing to drain.
        name = signals.next() => {
            tracing::info!(signal = name, "stopped by a signal during startup");
            return Ok(());
        }
    }
    let drain = shutdown.drain().clone();
    let follow_signals = async {
        drain.begin(signals.next().await);
        signals.next().await;
        drain.end();
        std::future::pending().await
    };
    tokio::select! {
        () = shutdown.run() => {}
        never = follow_signals => never,
    }
    if shutdown.tasks().failed() {
        anyhow::bail!("a critical task failed: {}", shutdown.drain().reason());
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn runtime(threads: Threads) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Threads::Current => tokio::runtime::Builder::new_current_thread(),
        Threads::Cores => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

fn print_config(config: &Config) -> ExitCode {
    match toml::to_string(config) {
        Ok(text) => print(&text),
        Err(error) => fail(EXIT_FAILED, &format!("cannot write the configuration: {error}")),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &format!("cannot write to standard output: {error}")),
    }
}

/// Writes the reason to standard error and returns the exit code. If standard error is closed, the reason is lost.
fn fail(code: u8, reason: &dyn Display) -> ExitCode {
    complain(reason);
    ExitCode::from(code)
}

fn complain(sentence: &dyn Display) {
    let _ = writeln!(io::stderr(), "{sentence}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        shared: Options,
    }

    #[test]
    fn options_become_overrides() {
        let args = ["x", "--set", "db.postgres=postgres://secret", "--set", "app=a", "--log-format", "json"];
        let options = Args::parse_from(args).shared;
        let sources = options.sources();
        let origins: Vec<_> = sources.overrides.iter().map(|(origin, _)| origin.as_str()).collect();
        assert_eq!(origins, ["--set", "--set", "--log-format"]);
        let loaded = config::load::<Config>(&sources).unwrap();
        assert_eq!(loaded.config.log.format, "json");
        assert_eq!(loaded.config.db.postgres.expose(), "postgres://secret");
    }

    #[test]
    fn a_config_error_exits_with_64() {
        let options = Options { set: vec!["nonsense=1".into()], ..Options::default() };
        let program = Program {
            name: "test",
            version: "0",
            admin: |config| &config.gateway.admin_listen,
            threads: Threads::Current,
            drain_limit: |_| Duration::from_secs(1),
            check: |_| Vec::new(),
        };
        let code = run_main(program, &options, |_, _| async { panic!("must not start") });
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(EXIT_CONFIG)));
    }

    #[tokio::test]
    async fn a_failed_critical_task_stops_the_program_with_its_reason() {
        let program = Program {
            name: "test",
            version: "0",
            admin: |config| &config.gateway.admin_listen,
            threads: Threads::Current,
            drain_limit: |_| Duration::from_secs(1),
            check: |_| Vec::new(),
        };
        let ended = run(program, Config::default(), |_, shutdown| async move {
            shutdown.tasks().spawn_critical("log", async { Err::<(), _>("disk full") });
            Ok(())
        });
        assert!(ended.await.unwrap_err().to_string().contains("disk full"));
    }
}
