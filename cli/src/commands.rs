//! The commands.

mod account;
mod chat;
mod conversations;
mod dead_letters;
mod group;
mod messages;
mod people;
mod signals;

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
        Command::Send { with, text, reply_to, kind, countable } => {
            let kind = kind.map(|kind| (kind, countable));
            messages::send(&context, &with, &text, reply_to.as_deref(), kind).await?;
        }
        Command::Edit { with, message, text } => messages::edit(&context, &with, &message, &text).await?,
        Command::Recall { with, message } => messages::recall(&context, &with, &message).await?,
        Command::React { with, message, reactions } => {
            messages::react(&context, &with, &message, reactions).await?;
        }
        Command::Listen { with, count, resume } => {
            messages::listen(&context, with.as_deref(), count, resume).await?;
        }
        Command::History { with, limit } => messages::history(&context, &with, limit).await?,
        Command::Conversations => conversations::conversations(&context).await?,
        Command::Changes { since } => conversations::changes(&context, since.as_deref()).await?,
        Command::Settings { with, settings } => conversations::settings(&context, &with, settings).await?,
        Command::Read { with, message } => conversations::read(&context, &with, message).await?,
        Command::Signal { with, kind, text, to } => {
            signals::signal(&context, &with, &kind, text, to).await?;
        }
        Command::Presence { users, text } => signals::presence(&context, users, text).await?,
        Command::Readers { with, message } => conversations::readers(&context, &with, message).await?,
        Command::Block { user } => people::block(&context, &user, true).await?,
        Command::Unblock { user } => people::block(&context, &user, false).await?,
        Command::Blocks => people::blocks(&context).await?,
        Command::Profile { command } => people::profile(&context, command).await?,
        Command::Group { command } => group::run(&context, command).await?,
        // Handled above, because it needs no user.
        Command::DeadLetters { .. } => {}
        Command::Load { command } => return load::run(context.servers, context.out, command).await,
    }
    Ok(ExitCode::SUCCESS)
}
