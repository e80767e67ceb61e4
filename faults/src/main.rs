//! The program behind `scripts/faults`.

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use faults::{Mode, Settings, rolling};
use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};
use tests::system::unique;
use tokio::signal::unix::{SignalKind, signal};

/// Injects faults into a whole system under load, and checks that no message was lost, duplicated or reordered.
#[derive(Debug, Parser)]
#[command(name = "scripts/faults")]
struct Arguments {
    /// Seed of the load and of the faults. Default: random.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Duration of the faults in minutes.
    #[arg(long, value_name = "M", default_value_t = 5.0)]
    minutes: f64,
    /// The system to test.
    #[arg(long, value_enum, default_value_t = System::Distributed)]
    mode: System,
    /// Messages per second.
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// Do a rolling restart of every service under the load generator instead.
    #[arg(long)]
    rolling: bool,
    /// With --rolling: start with the programs of another version in this folder, change to this build, and change back.
    #[arg(long, value_name = "FOLDER", requires = "rolling")]
    from: Option<PathBuf>,
    /// With --from: do not change back.
    #[arg(long, requires = "from")]
    one_way: bool,
    /// Check the ledger and the store again that a failed run left in this folder.
    #[arg(long, value_name = "FOLDER")]
    recheck: Option<PathBuf>,
    /// A setting for every program, as `section.key=value`.
    #[arg(long, value_name = "SETTING")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    /// The services as processes on real servers.
    Distributed,
    /// The one-process program.
    Embedded,
}

/// Exit code if a guarantee was violated.
const VIOLATED: u8 = 1;
/// Exit code if the suite itself failed.
const FAILED: u8 = 70;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(VIOLATED),
        Err(error) => {
            print(&format!("the suite failed: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Returns whether the guarantees held.
fn run(arguments: Arguments) -> Result<bool> {
    if let Some(folder) = &arguments.recheck {
        let verdict = faults::recheck(folder)?;
        print(&verdict.to_string());
        return Ok(verdict.is_clean());
    }
    let folder = std::env::var_os("GODWIT_TEST_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("godwit-faults-{}", unique()));
    let runtime = tokio::runtime::Runtime::new()?;
    let run = async {
        if arguments.rolling {
            let rollout = rolling::Rollout { from: arguments.from, one_way: arguments.one_way };
            let passed = rolling::run(&folder, &arguments.set, &rollout, print).await?;
            std::fs::remove_dir_all(&folder)?;
            return Ok(passed);
        }
        let settings = Settings {
            seed: arguments.seed.unwrap_or_else(rand::random),
            duration: Duration::from_secs_f64(arguments.minutes * 60.0),
            mode: match arguments.mode {
                System::Distributed => Mode::Distributed,
                System::Embedded => Mode::Embedded,
            },
            rate: arguments.rate,
            set: arguments.set,
            defect: std::env::var("GODWIT_DEFECT").ok(),
            folder: folder.clone(),
        };
        faults::run(&settings, print).await
    };
    // Child processes are killed when their owners are dropped. So a signal must drop the run, not end this process at once.
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            passed = run => passed,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

fn print(line: &str) {
    // A closed standard output must not end the run.
    let _ = writeln!(std::io::stdout(), "{line}");
}
