//! The program `db-service`: the owner of PostgreSQL.

use clap::Parser;
use std::process::ExitCode;
use utils::cli::{Options, run_main};

/// Owns conversations, members and accounts in PostgreSQL, and serves them to the other services.
#[derive(Parser)]
#[command(name = "db-service", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    run_main(db_service::PROGRAM, &Args::parse().options, |config, shutdown| async move {
        db_service::build(&config).await?.run(&shutdown)?;
        Ok(())
    })
}
