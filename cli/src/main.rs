//! The binary `godwit-cli`.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    // One thread: the load generator shares the machine with the server, and nothing else here is in a hurry.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::FAILURE,
    };
    let code = runtime.block_on(cli::run(args));
    // A thread that reads the terminal can't be interrupted.
    runtime.shutdown_background();
    code
}
