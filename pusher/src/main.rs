//! The program `pusher`: finds out where users are connected.

use clap::Parser;
use std::{process::ExitCode, time::Duration};
use utils::cli::{Options, Program, Threads, run_main};

/// Finds out which gateways hold the receivers of messages, and hands the messages to those.
#[derive(Parser)]
#[command(name = "pusher", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let program = Program {
        name: "pusher",
        version: env!("CARGO_PKG_VERSION"),
        admin: |config| &config.pusher.admin_listen,
        threads: Threads::Cores,
        drain_limit: |config| config.discovery.drain_grace + Duration::from_secs(15),
        check: pusher::check,
    };
    run_main(program, &Args::parse().options, |config, shutdown| async move {
        pusher::build(&config).await?.run(&shutdown)?;
        Ok(())
    })
}
