//! `godwit-cli`: talk to a Godwit server from the terminal, and put load on it.
//!
//! Commands write their results to stdout, as short text or (`--json`) as one JSON object per line. Remarks and errors go
//! to stderr. The exit code is 0 for success, 1 for a failure, and 2 or 64 for wrong usage.
//!
//! - `args`: the command line.
//! - `commands`: one module per group of commands.
//! - `load`: the load generator, which also checks that no message is lost, duplicated or reordered.
//! - `context`, `store`: the server, the user, and the saved credentials.
//! - `output`, `terminal`: the text that people and programs read, and the lines that they type.

mod args;
mod commands;
mod context;
mod error;
mod load;
mod output;
mod store;
mod terminal;

pub use args::{
    Args, Command, DeadLettersCommand, GroupCommand, LetterFilter, LoadCommand, LoadOptions, OperatorArgs,
    ProfileCommand, Seen, SettingsArgs,
};

use std::process::ExitCode;

/// Runs a command and reports an error on stderr.
pub async fn run(args: Args) -> ExitCode {
    let (url, option) = match &args.command {
        Command::DeadLetters { operator, .. } => (operator.admin.clone(), "--admin"),
        _ => (args.url.join(", "), "--url"),
    };
    match commands::run(args).await {
        Ok(code) => code,
        // The reader of our output has closed the pipe, as `head` does.
        Err(error) if error::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::remark(&format!("godwit-cli: {}", error::sentence(&error, &url, option)));
            ExitCode::from(if error.is::<error::Usage>() { 64 } else { 1 })
        }
    }
}
