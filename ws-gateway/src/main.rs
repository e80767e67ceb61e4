//! The program `ws-gateway`.

use clap::Parser;
use std::process::ExitCode;
use utils::cli::{Options, run_main};

/// The edge of Godwit: HTTP for accounts and groups, a WebSocket per device.
#[derive(Parser)]
#[command(name = "ws-gateway", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    run_main(ws_gateway::PROGRAM, &Args::parse().options, |config, shutdown| async move {
        ws_gateway::build(&config).await?.run(&shutdown).await
    })
}
