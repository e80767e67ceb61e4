//! The program `db-service`: the owner of PostgreSQL.

use clap::Parser;
use std::{process::ExitCode, time::Duration};
use utils::cli::{Options, Program, Threads, run_main};

/// Owns conversations, members and accounts in PostgreSQL, and serves them to the other services.
#[derive(Parser)]
#[command(name = "db-service", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let program = Program {
        name: "db-service",
        version: env!("CARGO_PKG_VERSION"),
        admin: |config| &config.db.admin_listen,
        threads: Threads::Cores,
        drain_limit: |config| config.discovery.drain_grace + Duration::from_secs(15),
        check: db_service::check,
    };
    run_main(program, &Args::parse().options, |config, shutdown| async move {
        db_service::build(&config).await?.start(&shutdown)?;
        Ok(())
    })
}
