//! The options that all programs share, and what every `main` does.

mod health;

use crate::{
    Shutdown, config, metrics,
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

/// Of every program. What one thread allocates another one frees here, all the time, and the system's allocator keeps what that
/// leaves: after a flood of messages 870 MB where this one keeps 180, at a seventh less CPU.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a configuration with faults (`EX_USAGE`).
pub const EXIT_CONFIG: u8 = 64;
/// Exit code of a failed start, or of a service that failed while running.
pub const EXIT_FAILED: u8 = 1;

/// Options of every program: `#[command(flatten)]` them into its own.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Configuration file (TOML). Without one: the defaults.
    #[arg(long, env = "GODWIT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one value, for example gateway.listen=0.0.0.0:7450. Goes before the environment and the file.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the configuration as it would be used, or everything that is wrong with it, and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Ask the program that runs with this configuration whether it is ready, and exit with 0 only if it is.
    #[arg(long)]
    pub health: bool,
    /// How log lines look; the same as --set log.format=FORMAT.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<Format>,
}

impl Options {
    /// Where the configuration comes from: the file and the values of these options, and the process's environment.
    pub fn sources(&self) -> config::Sources {
        let mut overrides: Vec<_> = self.set.iter().map(|text| ("--set".to_owned(), text.clone())).collect();
        if let Some(format) = self.log_format {
            let format = if format == Format::Json { "json" } else { "text" };
            overrides.push(("--log-format".to_owned(), format!("log.format={format}")));
        }
        // Variables that are not UTF-8 can't be ours: all our names and values are.
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        config::Sources { file: self.config.clone(), environment: environment.collect(), overrides }
    }
}

/// On how many threads a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// As many as there are cores.
    #[default]
    Cores,
    /// Everything on the main thread.
    Current,
}

/// What a program is.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, as logged.
    pub name: &'static str,
    /// `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// Where its admin port is: one key of the configuration.
    pub admin: fn(&Config) -> &str,
    /// On how many threads it runs.
    pub threads: Threads,
    /// A stop that takes longer is ended.
    pub drain_limit: fn(&Config) -> Duration,
    /// What is wrong with what this program takes from the configuration beyond the values themselves: files that it names, what
    /// the program was built without. Each as `section.key: a sentence`.
    pub check: fn(&Config) -> Vec<String>,
}

/// Loads the configuration, starts telemetry and the runtime, calls `start`, and runs until a signal or a failure of a
/// critical task stops it.
///
/// `start` binds and connects, spawns onto [`Shutdown::tasks`], registers what a stop has to do with [`Shutdown::on`],
/// and returns; an error is a failed start. The first SIGTERM or SIGINT drains, the second ends at once.
///
/// The result is the exit code: 0, [`EXIT_CONFIG`] or [`EXIT_FAILED`], the last two with sentences on standard error.
pub fn run_main<F, Fut>(program: Program, options: &Options, start: F) -> ExitCode
where
    F: FnOnce(Config, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let config = match config::load_checked::<Config>(&options.sources(), program.check) {
        Ok(loaded) => loaded.config,
        Err(errors) => return fail(EXIT_CONFIG, &errors),
    };
    if options.check_config {
        return print(&config);
    }
    if options.health {
        return health::ask((program.admin)(&config))
            .map_or_else(|reason| fail(EXIT_FAILED, &reason), |ready| say(&format!("{ready}\n")));
    }
    let format = if config.log.format == "json" { Format::Json } else { Format::Text };
    if let Err(error) = telemetry::init(&config.log.level, format) {
        return fail(EXIT_CONFIG, &error);
    }
    // Installed before anything is counted: what is recorded without a recorder is lost.
    if let Err(error) = telemetry::metrics_recorder() {
        return fail(EXIT_FAILED, &error);
    }
    crate::describe_metrics();
    metrics::program(program.name, program.version);
    let runtime = match runtime(program.threads) {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &format!("can't start threads: {error}")),
    };
    tracing::info!(program = program.name, version = program.version, "starting");
    let ended = runtime.block_on(run(program, config, start));
    // A blocking call that hangs must not keep a process that is done.
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
    trace::start(&program, &config.trace, &shutdown)?;
    let mut signals = Signals::new()?;
    tokio::select! {
        started = start(config, shutdown.clone()) => started?,
        // Nothing is running yet that would have to be drained.
        name = signals.next() => {
            tracing::info!(signal = name, "told to stop while starting");
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
        anyhow::bail!("stopped because of a failure: {}", shutdown.drain().reason());
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

fn print(config: &Config) -> ExitCode {
    let text = match toml::to_string(config) {
        Ok(text) => text,
        Err(error) => return fail(EXIT_FAILED, &format!("can't write the configuration: {error}")),
    };
    say(&text)
}

fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &format!("can't write to standard output: {error}")),
    }
}

/// Says why on standard error. If that is closed there is nobody to tell.
fn fail(code: u8, reason: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "{reason}");
    ExitCode::from(code)
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
    fn a_faulty_configuration_exits_64() {
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
    async fn a_critical_failure_ends_the_program_with_its_reason() {
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
