//! The binary `godwit`: all services in one process, and commands for its data.

mod commands;

use clap::Parser;
use commands::Command;
use godwit::PROGRAM;
use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use utils::cli::{EXIT_FAILED, Options, run_main};

/// An instant-messaging backend in one process, without further dependencies.
#[derive(Parser)]
#[command(name = "godwit", version, args_conflicts_with_subcommands = true)]
struct Args {
    /// Address for HTTP and WebSocket; same as --set gateway.listen=ADDRESS [default: 127.0.0.1:7450]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder for all data; same as --set embedded.data=FOLDER [default: godwit-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    let Args { listen, data, mut options, command } = Args::parse();
    if let Some(command) = command {
        return run_command(command);
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

/// Runs a command instead of the service.
fn run_command(mut command: Command) -> ExitCode {
    let location = command.location();
    let mut options = location.options.clone();
    options.set.extend(location.data.take().map(|folder| format!("embedded.data={folder}")));
    let is_check = options.check_config || options.health;
    let done = Arc::new(AtomicBool::new(is_check));
    let set_done = Arc::clone(&done);
    let code = run_main(PROGRAM, &options, |config, shutdown| async move {
        command.run(&config).await?;
        set_done.store(true, Ordering::Relaxed);
        shutdown.drain().begin("done");
        Ok(())
    });
    // A signal ends the program without an error, but the command is not complete.
    if code == ExitCode::SUCCESS && !done.load(Ordering::Relaxed) {
        ExitCode::from(EXIT_FAILED)
    } else {
        code
    }
}
