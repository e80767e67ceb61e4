//! The commands.

mod account;
mod chat;
mod dead_letters;
mod group;
mod messages;

use crate::{
    args::{Args, Command},
    context::Context,
    load,
    output::Output,
};
use anyhow::Result;
use std::process::ExitCode;

/// Runs a command.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
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
        // Handled above, because it needs no user.
        Command::DeadLetters { .. } => {}
        Command::Load { command } => return load::run(context.servers, context.out, command).await,
    }
    Ok(ExitCode::SUCCESS)
}
