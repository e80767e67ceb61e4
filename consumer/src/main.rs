//! The program `consumer`: from the log to the store and the devices.

use clap::Parser;
use std::{process::ExitCode, time::Duration};
use utils::cli::{Options, Program, Threads, run_main};

/// Takes messages from the log, has them stored, and hands them on to whoever is connected.
#[derive(Parser)]
#[command(name = "consumer", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let program = Program {
        name: "consumer",
        version: env!("CARGO_PKG_VERSION"),
        admin: |config| &config.consumer.admin_listen,
        threads: Threads::Cores,
        drain_limit: |config| config.discovery.drain_grace + Duration::from_secs(25),
        check: consumer::check,
    };
    run_main(program, &Args::parse().options, |config, shutdown| async move {
        consumer::build(&config).await?.run(&shutdown).await
    })
}
