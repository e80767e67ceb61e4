//! The binary `godwit-cli`.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    // One thread is enough, and the load generator often shares the machine with the server.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::FAILURE,
    };
    let code = runtime.block_on(cli::run(args));
    // The thread that reads the terminal cannot be interrupted, so do not wait for it.
    runtime.shutdown_background();
    code
}
