//! The binary `godwit`: all services in one process, and commands for its data.

mod commands;
mod greeting;

use clap::Parser;
use commands::Command;
use godwit::PROGRAM;
use greeting::Cli;
use std::{
    io::{self, Write as _},
    path::Path,
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
    /// Address for HTTP and WebSocket: HOST:PORT, [IPV6]:PORT, :PORT (all addresses) or PORT (127.0.0.1); same as --set
    /// gateway.listen=ADDRESS [default: 127.0.0.1:7450]
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
    let setting =
        |option: &str, key: &str, value: String| (format!("{option} {value}"), format!("{key}={value}"));
    options.further.extend(listen.map(|address| setting("--listen", "gateway.listen", address)));
    options.further.extend(data.map(|folder| setting("--data", "embedded.data", folder)));
    run_main(PROGRAM, &options, |config, shutdown| async move {
        let data = config.embedded.data.clone();
        let app = godwit::build(&config).await?;
        let (url, client_url, admin) = (app.url(), app.client_url(), app.admin()?);
        app.run(&shutdown);
        let program = std::env::args_os().next().unwrap_or_default();
        let cli = Cli::find(Path::new(&program), std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        // The reader of standard output may be gone. The server works without it.
        let _ = write!(
            io::stdout(),
            "godwit {} is ready\nlistening on {url}\nadmin on http://{admin}\ndata in {data}\n\n{}",
            PROGRAM.version,
            cli.commands(&client_url),
        );
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
