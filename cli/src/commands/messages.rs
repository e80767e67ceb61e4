//! `send`, `edit`, `recall`, `react`, `listen`, `history`.

use crate::{
    context::{self, Context},
    error::Usage,
    output::{self, clock},
};
use abi::{
    ids,
    v1::{Content, Entry, GetHistory},
};
use anyhow::Result;
use client::{Client, Draft, Event, State, sync::Start, text};
use serde_json::json;
use std::{io::Read as _, time::Duration};

/// Sends a message, a reply, or an entry of a kind of the product; `kind` is its name and whether it counts as unread.
pub(super) async fn send(
    context: &Context,
    with: &str,
    body: &str,
    reply_to: Option<&str>,
    kind: Option<(String, bool)>,
) -> Result<()> {
    let body = content(body).await?;
    put(context, with, reply_to, |target| match (target, kind) {
        (Some(message_id), _) => Draft::reply(message_id, body),
        (None, Some((kind, countable))) => Draft::custom(&kind, countable, Some(body)),
        (None, None) => body.into(),
    })
    .await
}

pub(super) async fn edit(context: &Context, with: &str, message: &str, body: &str) -> Result<()> {
    let body = content(body).await?;
    put(context, with, Some(message), |target| Draft::edit(target.unwrap_or_default(), body)).await
}

pub(super) async fn recall(context: &Context, with: &str, message: &str) -> Result<()> {
    put(context, with, Some(message), |target| Draft::recall(target.unwrap_or_default())).await
}

pub(super) async fn react(
    context: &Context,
    with: &str,
    message: &str,
    reactions: Vec<String>,
) -> Result<()> {
    put(context, with, Some(message), |target| Draft::reaction(target.unwrap_or_default(), reactions)).await
}

/// The text of a message, or that of stdin for `-`.
async fn content(body: &str) -> Result<Content> {
    let body = if body == "-" {
        let read = tokio::task::spawn_blocking(|| {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
        });
        read.await??.trim_end_matches('\n').to_owned()
    } else {
        body.to_owned()
    };
    if body.is_empty() {
        return Err(Usage("the message is empty".into()).into());
    }
    Ok(text(body))
}

/// Sends an entry that refers to a message, or to none.
async fn put(
    context: &Context,
    with: &str,
    refers_to: Option<&str>,
    draft: impl FnOnce(Option<&str>) -> Draft,
) -> Result<()> {
    let conversation = context::conversation(with, &context.user()?)?;
    let once = context.once().await?;
    let target = match refers_to {
        Some(message) => Some(message_id(&once.client, &conversation, message).await?),
        None => None,
    };
    let ack = once.client.send(&conversation, draft(target.as_deref())).await?;
    context.out.text(&format!("sent at {}", clock(ack.sent_at_ms)))?;
    context.out.object(&json!({
        "conversation": conversation, "message_id": ack.message_id,
        "client_msg_id": ack.client_msg_id, "sent_at_ms": ack.sent_at_ms,
    }))?;
    once.client.close().await;
    Ok(())
}

pub(super) async fn listen(
    context: &Context,
    with: Option<&str>,
    count: Option<u64>,
    resume: bool,
) -> Result<()> {
    let user = context.user()?;
    let only = with.map(|with| context::conversation(with, &user)).transpose()?;
    context.store.load(&user)?;
    let state = if resume { context.store.load_state(&user)? } else { State::default() };
    let (client, mut events) = context.live(&user, Start::Now, state).await?;
    let mut left = count.unwrap_or(u64::MAX);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut announced = false;
    while left > 0 {
        let event = tokio::select! {
            event = events.next() => event,
            _ = &mut interrupted => break,
        };
        match event {
            Some(Event::Entry(entry)) if only.as_ref().is_none_or(|only| *only == entry.conversation) => {
                context.out.entry(&entry, &user, true)?;
                left -= 1;
                if resume {
                    context.store.save_state(&user, &client.state())?;
                }
            }
            Some(Event::CaughtUp) if !announced => {
                announced = true;
                output::remark(&format!("listening as {user}; Ctrl-C ends it"));
            }
            Some(Event::Disconnected { error, retry_in }) => {
                output::remark(&reconnecting(&error, retry_in));
            }
            Some(Event::Restored { kept }) => {
                kept.keys().for_each(|conversation| output::remark(&restored(conversation)));
            }
            Some(Event::Ended(error)) => return Err(error.into()),
            Some(_) => {}
            None => break,
        }
    }
    if resume {
        context.store.save_state(&user, &client.state())?;
    }
    client.close().await;
    Ok(())
}

/// Warns that the server may have lost messages that were shown.
pub(super) fn restored(conversation: &str) -> String {
    format!("the server was restored from a backup: it may have lost the last messages of {conversation}")
}

/// Says that the connection is lost, and how long the pause before the next attempt is.
pub(super) fn reconnecting(error: &client::Error, retry_in: Duration) -> String {
    format!("{error}; trying again in {:.1} s", retry_in.as_secs_f64())
}

pub(super) async fn history(context: &Context, with: &str, limit: u32) -> Result<()> {
    let once = context.once().await?;
    let conversation = context::conversation(with, &once.user)?;
    for entry in tail(&once.client, &conversation, limit as usize, |_| true).await? {
        context.out.entry(&entry, &once.user, false)?;
    }
    once.client.close().await;
    Ok(())
}

/// The last entries of a conversation, oldest first: so many that `limit` of them count.
pub(super) async fn tail(
    client: &Client,
    conversation: &str,
    limit: usize,
    counts: impl Fn(&Entry) -> bool,
) -> Result<Vec<Entry>, client::Error> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut before, mut missing) = (0, limit);
    while missing > 0 {
        let limit = i32::try_from(missing).unwrap_or(i32::MAX).min(abi::MAX_PAGE);
        let request = GetHistory {
            conversation: conversation.to_owned(),
            before,
            newest: before == 0,
            limit,
            ..GetHistory::default()
        };
        let page = client.history(request).await?;
        missing = missing.saturating_sub(page.entries.iter().filter(|entry| counts(entry)).count());
        entries.extend(page.entries);
        match entries.last() {
            Some(oldest) if page.more && oldest.conversation_seq > 1 => before = oldest.conversation_seq,
            _ => break,
        }
    }
    entries.reverse();
    Ok(entries)
}

/// The message id of a message that is given by its id or its number.
async fn message_id(client: &Client, conversation: &str, message: &str) -> Result<String> {
    if ids::message_bytes(message).is_some() {
        return Ok(message.to_owned());
    }
    let seq = message.trim_start_matches('#').parse().map_err(|_| {
        Usage(format!("{message} is neither the number of a message, such as 12, nor a message id"))
    })?;
    match entry_at(client, conversation, seq).await? {
        Some(entry) => Ok(entry.message_id),
        None => Err(Usage(format!("there is no message #{seq} in {conversation}")).into()),
    }
}

/// The entry with a number. `None`: there is none that the user can see.
pub(super) async fn entry_at(
    client: &Client,
    conversation: &str,
    seq: u64,
) -> Result<Option<Entry>, client::Error> {
    let request = GetHistory {
        conversation: conversation.to_owned(),
        after: seq.saturating_sub(1),
        limit: 1,
        ..GetHistory::default()
    };
    let page = client.history(request).await?;
    Ok(page.entries.into_iter().find(|entry| entry.conversation_seq == seq))
}
