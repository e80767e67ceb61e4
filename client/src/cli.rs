//! The commands of `godwit-cli`.
//!
//! Results go to stdout, as short text or (`--json`) as one JSON object per line; remarks and errors go to stderr. The
//! exit code is 0, 1 for what failed, 2 or 64 for what was asked wrongly.

mod account;
mod args;
mod chat;
mod context;
mod dead_letters;
mod group;
mod messages;
mod output;
mod store;
mod terminal;

pub use args::{
    Args, Command, DeadLettersCommand, GroupCommand, LoadCommand, LoadOptions, OperatorArgs, Which,
};
pub(crate) use output::{Output, remark};

use anyhow::Result;
use context::Context;
use std::{io, process::ExitCode};

/// A fault of who called, not of the system.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs a command; says on stderr what went wrong.
pub async fn run(args: Args) -> ExitCode {
    let (url, option) = match &args.command {
        Command::DeadLetters { operator, .. } => (operator.admin.clone(), "--admin"),
        _ => (args.url.join(", "), "--url"),
    };
    match dispatch(args).await {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::remark(&format!("godwit-cli: {}", sentence(&error, &url, option)));
            ExitCode::from(if error.is::<Usage>() { 64 } else { 1 })
        }
    }
}

async fn dispatch(args: Args) -> Result<ExitCode> {
    if let Command::DeadLetters { operator, command } = &args.command {
        dead_letters::run(operator, &Output::new(args.json), command).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let context = Context::new(&args)?;
    match args.command {
        Command::Register { user, password } => account::register(&context, &user, password).await?,
        Command::Login { user, password } => account::login(&context, &user, password).await?,
        Command::Logout => account::logout(&context).await?,
        Command::Chat { with, history } => chat::chat(context, &with, history).await?,
        Command::Send { with, text } => messages::send(&context, &with, &text).await?,
        Command::Listen { with, count, resume } => {
            messages::listen(&context, with.as_deref(), count, resume).await?;
        }
        Command::History { with, limit } => messages::history(&context, &with, limit).await?,
        Command::Conversations => messages::conversations(&context).await?,
        Command::Group { command } => group::run(&context, command).await?,
        // Done above: it is about no user.
        Command::DeadLetters { .. } => {}
        Command::Load { command } => return crate::load::run(context.servers, context.out, command).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One sentence for people. `option` is what names another server.
fn sentence(error: &anyhow::Error, url: &str, option: &str) -> String {
    let text = causes(error);
    match error.chain().find_map(|cause| cause.downcast_ref::<crate::Error>()) {
        Some(crate::Error::Connect { .. }) => format!(
            "{text}\nis the server running at {url}? start it with `cargo run --release`, or name another with {option}"
        ),
        Some(crate::Error::Closed { code: Some(abi::error::ErrorCode::Replaced), .. }) => {
            "another godwit-cli of this user has taken over the connection".to_owned()
        }
        _ => text,
    }
}

/// An error and what is behind it. Some causes are part of the sentence that they cause: those are not said again.
fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ApiError;
    use anyhow::Context as _;

    #[test]
    fn nothing_is_said_twice() {
        let fault = crate::Error::from(ApiError::forbidden("only an owner adds members"));
        let error = Err::<(), _>(fault).context("cannot make the group").unwrap_err();
        assert_eq!(
            sentence(&error, "http://host", "--url"),
            "cannot make the group: only an owner adds members"
        );
    }

    #[test]
    fn who_finds_no_server_is_told_how_to_start_one() {
        let source = std::sync::Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = crate::Error::Connect { address: "host:1".into(), source };
        let text = sentence(&error.into(), "http://host:1", "--admin");
        assert!(
            text.contains("cargo run --release")
                && text.contains("--admin")
                && text.matches("refused").count() == 1,
            "{text}"
        );
    }
}
