//! `godwit`: all of Godwit in one process.

mod commands;

use clap::Parser;
use commands::Command;
use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use utils::cli::{EXIT_FAILED, Options, Program, Threads, run_main};

/// An instant-messaging backend in one process: nothing else to install.
#[derive(Parser)]
#[command(name = "godwit", version, args_conflicts_with_subcommands = true)]
struct Args {
    /// Where to listen for HTTP and WebSocket; the same as --set gateway.listen=ADDRESS [default: 127.0.0.1:7450]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder of all data; the same as --set embedded.data=FOLDER [default: godwit-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

const PROGRAM: Program = Program {
    name: "godwit",
    version: env!("CARGO_PKG_VERSION"),
    admin: |config| &config.gateway.admin_listen,
    threads: Threads::Current,
    drain_limit: godwit::drain_limit,
    check: godwit::check,
};

fn main() -> ExitCode {
    let Args { listen, data, mut options, command } = Args::parse();
    if let Some(command) = command {
        return run(command);
    }
    options.set.extend(listen.map(|address| format!("gateway.listen={address}")));
    options.set.extend(data.map(|folder| format!("embedded.data={folder}")));
    run_main(PROGRAM, &options, |config, shutdown| async move {
        let data = config.embedded.data.clone();
        let app = godwit::build(&config).await?;
        let (url, admin) = (app.url(), app.admin()?);
        app.run(&shutdown);
        write!(
            io::stdout(),
            "godwit {} is ready\nlistening on {}\nadmin on http://{}\ndata in {data}\n\n\
             try, in two other terminals:\n  \
             cargo run --release -p godwit-cli -- register alice\n  \
             cargo run --release -p godwit-cli -- --user alice chat bob\n",
            PROGRAM.version,
            url,
            admin,
        )?;
        Ok(())
    })
}

/// Does one thing and ends.
fn run(mut command: Command) -> ExitCode {
    let at = command.at();
    let mut options = at.options.clone();
    options.set.extend(at.data.take().map(|folder| format!("embedded.data={folder}")));
    let asks_only = options.check_config || options.health;
    let done = Arc::new(AtomicBool::new(asks_only));
    let doing = Arc::clone(&done);
    let code = run_main(PROGRAM, &options, |config, shutdown| async move {
        command.run(&config).await?;
        doing.store(true, Ordering::Relaxed);
        shutdown.drain().begin("done");
        Ok(())
    });
    // A signal ends it without an error, and without what it was asked for.
    if code == ExitCode::SUCCESS && !done.load(Ordering::Relaxed) {
        ExitCode::from(EXIT_FAILED)
    } else {
        code
    }
}
