//! The program behind `scripts/faults`.

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use faults::{Mode, Settings, rolling};
use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};
use tests::system::unique;
use tokio::signal::unix::{SignalKind, signal};

/// Breaks a whole system while users talk, and counts what was lost.
#[derive(Debug, Parser)]
#[command(name = "scripts/faults")]
struct Arguments {
    /// Decides what users do and what is broken when; a new one if left out.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long faults go on.
    #[arg(long, value_name = "M", default_value_t = 5.0)]
    minutes: f64,
    /// Which system.
    #[arg(long, value_enum, default_value_t = System::Distributed)]
    mode: System,
    /// Messages per second.
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// Only a rolling restart of every service under the load generator.
    #[arg(long)]
    rolling: bool,
    /// With --rolling: start as the programs in this folder, of another version; become this build, and then the other again.
    #[arg(long, value_name = "FOLDER", requires = "rolling")]
    from: Option<PathBuf>,
    /// With --from: not back.
    #[arg(long, requires = "from")]
    one_way: bool,
    /// Only compares once more what a run has kept in this folder.
    #[arg(long, value_name = "FOLDER")]
    recheck: Option<PathBuf>,
    /// A setting of every program, `section.key=value`.
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

/// Something was found that breaks the promise.
const FOUND: u8 = 1;
/// The suite itself failed.
const FAILED: u8 = 70;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FOUND),
        Err(error) => {
            say(&format!("the suite failed: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Whether the promise was kept.
fn run(arguments: Arguments) -> Result<bool> {
    if let Some(folder) = &arguments.recheck {
        let verdict = faults::recheck(folder)?;
        say(&verdict.to_string());
        return Ok(verdict.is_clean());
    }
    let folder = std::env::var_os("GODWIT_TEST_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("godwit-faults-{}", unique()));
    let runtime = tokio::runtime::Runtime::new()?;
    let run = async {
        if arguments.rolling {
            let rollout = rolling::Rollout { from: arguments.from, one_way: arguments.one_way };
            let kept = rolling::run(&folder, &arguments.set, &rollout, say).await?;
            std::fs::remove_dir_all(&folder)?;
            return Ok(kept);
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
        faults::run(&settings, say).await
    };
    // What was started ends with what is dropped, so an interrupt must not end this process at once.
    runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate())?;
        tokio::select! {
            kept = run => kept,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = stop.recv() => bail!("told to stop"),
        }
    })
}

fn say(line: &str) {
    // Whoever closed the output does not want to know.
    let _ = writeln!(std::io::stdout(), "{line}");
}
