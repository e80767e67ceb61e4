//! `godwit`: all of Godwit in one process.

use clap::Parser;
use std::{
    io::{self, Write as _},
    process::ExitCode,
};
use utils::cli::{Options, Program, Threads, run_main};

/// An instant-messaging backend in one process: nothing else to install.
#[derive(Parser)]
#[command(name = "godwit", version)]
struct Args {
    /// Where to listen for HTTP and WebSocket; the same as --set gateway.listen=ADDRESS [default: 127.0.0.1:7450]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder of all data; the same as --set embedded.data=FOLDER [default: godwit-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Args { listen, data, mut options } = Args::parse();
    options.set.extend(listen.map(|address| format!("gateway.listen={address}")));
    options.set.extend(data.map(|folder| format!("embedded.data={folder}")));
    let program = Program {
        name: "godwit",
        version: env!("CARGO_PKG_VERSION"),
        admin: |config| &config.gateway.admin_listen,
        threads: Threads::Current,
        drain_limit: standalone::drain_limit,
    };
    run_main(program, &options, |config, shutdown| async move {
        let data = config.embedded.data.clone();
        let started = standalone::start(config, &shutdown).await?;
        write!(
            io::stdout(),
            "godwit {} is ready\nlistening on http://{}\nadmin on http://{}\ndata in {data}\n\n\
             try, in two other terminals:\n  \
             cargo run --release -p client -- register alice\n  \
             cargo run --release -p client -- --user alice chat bob\n",
            program.version,
            started.address,
            started.admin,
        )?;
        Ok(())
    })
}
