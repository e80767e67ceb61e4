//! The program `consumer`: reads the log, has entries stored and pushed.

use clap::Parser;
use std::process::ExitCode;
use utils::cli::{Options, run_main};

/// Reads entries from the log, has them stored, and pushes them to connected devices.
#[derive(Parser)]
#[command(name = "consumer", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    run_main(consumer::PROGRAM, &Args::parse().options, |config, shutdown| async move {
        consumer::build(&config).await?.run(&shutdown).await
    })
}
