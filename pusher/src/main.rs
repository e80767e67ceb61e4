//! The program `pusher`: delivers entries and signals to the gateways that hold their receivers.

use clap::Parser;
use std::process::ExitCode;
use utils::cli::{Options, run_main};

/// Looks up the gateways that hold the receivers of an entry, and delivers the entry to them.
#[derive(Parser)]
#[command(name = "pusher", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    run_main(pusher::PROGRAM, &Args::parse().options, |config, shutdown| async move {
        pusher::build(&config).await?.run(&shutdown)
    })
}
