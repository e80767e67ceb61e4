//! The load generator: puts load on a server, measures it, and checks its guarantees.
//!
//! It uses little CPU, because it often shares a machine with the server: one thread, its own loops over the frame codec
//! in place of the SDK's queues, and one write for all due frames. Receivers use the SDK's `Sync`, so the report counts
//! the messages that an application would see, despite loss, duplicates and delays on the network.
//!
//! - `exchange`: a run of senders and receivers: connect, send, wait, read back, compare.
//! - `sender`, `receiver`: one connection each, with reconnects.
//! - `run`: the shared clock and counters.
//! - `ledger`: the sets of sent, acknowledged, received and stored messages.
//! - `pacer`: wakes senders at fixed times.
//! - `idle`: idle connections. `sync`: a device that catches up. `read`: a group that reads.
//! - `asks`: one request and its answer, with their sizes.
//! - `servers`: round robin over the servers. `users`: accounts for the run.
//! - `reconnects`: reconnects and the worst second. `process`: CPU and memory of processes. `report`: the result.

mod asks;
mod exchange;
mod idle;
mod ledger;
mod pacer;
mod pages;
mod process;
mod read;
mod receiver;
mod reconnects;
mod report;
mod run;
mod sender;
mod servers;
mod sync;
mod users;

use crate::{
    args::LoadCommand,
    output::{Output, remark},
};
use abi::{ids, v1::HistoryVisibility};
use anyhow::{Context as _, Result};
use client::{Server, tokens::TokenSource as _};
use exchange::{Conversation, Load};
use report::Outcome;
use sender::Pace;
use servers::Servers;
use std::process::ExitCode;
use tokio::task::LocalSet;
use users::Users;

/// Runs a load and prints the report. The exit code is 1 if a guarantee was violated.
pub(crate) async fn run(servers: Vec<Server>, out: Output, command: LoadCommand) -> Result<ExitCode> {
    let report = LocalSet::new().run_until(dispatch(Servers::new(servers), command)).await?;
    for line in report.table() {
        out.text(&line)?;
    }
    out.object(&report.object())?;
    if let Some(violation) = report.violation() {
        remark(&format!("godwit-cli: {violation}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(servers: Servers, command: LoadCommand) -> Result<Outcome> {
    let users = Users::new(servers);
    match command {
        LoadCommand::Pair { pairs, rate, options } => {
            let conversations = create_pairs(&users, pairs as usize).await?;
            exchange::run(
                users.servers(),
                Load { name: "pair", conversations, pace: Pace::Rate(rate), options },
            )
            .await
        }
        LoadCommand::Flood { connections, in_flight, options } => {
            let conversations = create_pairs(&users, connections as usize / 2).await?;
            let pace = Pace::Window(in_flight as usize);
            exchange::run(users.servers(), Load { name: "flood", conversations, pace, options }).await
        }
        LoadCommand::Fanout { members, rate, options } => {
            let conversations = vec![create_group_of(&users, members as usize).await?];
            exchange::run(
                users.servers(),
                Load { name: "fanout", conversations, pace: Pace::Rate(rate), options },
            )
            .await
        }
        LoadCommand::Idle { connections, page, options } => {
            idle::run(&users, connections as usize, page, &options).await
        }
        LoadCommand::Sync { conversations, changed } => sync::run(&users, conversations, changed).await,
        LoadCommand::Read { members, messages, server_pid } => {
            let group = create_group_of(&users, members as usize).await?;
            read::run(users.servers(), group, messages, &server_pid).await
        }
    }
}

async fn create_pairs(users: &Users, pairs: usize) -> Result<Vec<Conversation>> {
    let mut users = users.register(pairs * 2).await?.into_iter();
    let mut conversations = Vec::with_capacity(pairs);
    while let (Some(sender), Some(receiver)) = (users.next(), users.next()) {
        let id = ids::direct(&sender.name, &receiver.name);
        conversations.push(Conversation { id, sender, receivers: vec![receiver] });
    }
    Ok(conversations)
}

async fn create_group_of(users: &Users, members: usize) -> Result<Conversation> {
    let mut members = users.register(members).await?;
    let sender = members.remove(0);
    let names: Vec<String> = members.iter().map(|user| user.name.clone()).collect();
    let token = sender.tokens.token(None).await?;
    let request = client::new_client_msg_id();
    let group = users
        .api()
        .create_group(&token, "load", &names, HistoryVisibility::All, &request)
        .await
        .context("cannot create the group")?;
    Ok(Conversation { id: group.conversation, sender, receivers: members })
}
