//! `send`, `listen`, `history`, `conversations`.

use crate::{
    context::{self, Context},
    error::Usage,
    output::{self, clock, label},
};
use abi::v1::{Entry, GetHeads, GetHistory, Head, Role};
use anyhow::Result;
use client::{Client, Event, State, sync::Start, text};
use serde_json::{Value, json};
use std::{io::Read as _, time::Duration};

pub(super) async fn send(context: &Context, with: &str, body: &str) -> Result<()> {
    let conversation = context::conversation(with, &context.user()?)?;
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
    let once = context.once().await?;
    let ack = once.client.send(&conversation, text(body)).await?;
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
            Some(Event::Disconnected { error, retry_in }) => reconnecting(&error, retry_in),
            Some(Event::Restored { kept }) => restored(kept.keys()),
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
pub(super) fn restored<'a>(conversations: impl Iterator<Item = &'a String>) {
    for conversation in conversations {
        output::remark(&format!(
            "the server was restored from a backup: it may have lost the last messages of {conversation}"
        ));
    }
}

/// Reports a lost connection and the pause before the next attempt.
pub(super) fn reconnecting(error: &client::Error, retry_in: Duration) {
    output::remark(&format!("{error}; trying again in {:.1} s", retry_in.as_secs_f64()));
}

pub(super) async fn history(context: &Context, with: &str, limit: u32) -> Result<()> {
    let once = context.once().await?;
    let conversation = context::conversation(with, &once.user)?;
    for entry in tail(&once.client, &conversation, limit as usize).await? {
        context.out.entry(&entry, &once.user, false)?;
    }
    once.client.close().await;
    Ok(())
}

/// The last entries of a conversation, oldest first.
pub(super) async fn tail(
    client: &Client,
    conversation: &str,
    limit: usize,
) -> Result<Vec<Entry>, client::Error> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut before = 0;
    while entries.len() < limit {
        let limit = i32::try_from(limit - entries.len()).unwrap_or(i32::MAX).min(abi::MAX_PAGE);
        let request = GetHistory {
            conversation: conversation.to_owned(),
            before,
            newest: before == 0,
            limit,
            ..GetHistory::default()
        };
        let page = client.history(request).await?;
        entries.extend(page.entries);
        match entries.last() {
            Some(oldest) if page.more && oldest.conversation_seq > 1 => before = oldest.conversation_seq,
            _ => break,
        }
    }
    entries.reverse();
    Ok(entries)
}

pub(super) async fn conversations(context: &Context) -> Result<()> {
    let once = context.once().await?;
    let mut heads = all_heads(&once.client).await?;
    heads.sort_by_key(|head| std::cmp::Reverse(head.last_sent_at_ms));
    if heads.is_empty() {
        output::hint("no conversations yet; start one with `godwit-cli chat USER`");
    }
    for head in heads {
        let unread = unread(&head);
        let mut line = label(&head.conversation, &once.user);
        if !head.name.is_empty() {
            line = format!("{line}  {}", output::printable(&head.name));
        }
        if unread > 0 {
            line = format!("{line}  {unread} unread");
        }
        context.out.text(&format!("{line}  {}", clock(head.last_sent_at_ms)))?;
        context.out.object(&head_object(&head))?;
    }
    once.client.close().await;
    Ok(())
}

fn unread(head: &Head) -> u64 {
    head.countable_seq.saturating_sub(head.read_countable_seq)
}

/// A head as one flat JSON object.
pub(super) fn head_object(head: &Head) -> Value {
    json!({
        "conversation": head.conversation,
        "name": head.name,
        "conversation_seq": head.conversation_seq,
        "read_seq": head.read_seq,
        "unread": unread(head),
        "role": role_name(head.role()),
        "last_sent_at_ms": head.last_sent_at_ms,
    })
}

/// `owner` or `member`.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Member => "member",
        Role::Unspecified => "none",
    }
}

/// All heads, page by page.
pub(super) async fn all_heads(client: &Client) -> Result<Vec<Head>, client::Error> {
    let mut heads: Vec<Head> = Vec::new();
    loop {
        let after = heads.last().map(|head| head.conversation.clone()).unwrap_or_default();
        let page = client.heads(GetHeads { after, limit: abi::MAX_PAGE }).await?;
        let more = page.more && !page.heads.is_empty();
        heads.extend(page.heads);
        if !more {
            return Ok(heads);
        }
    }
}
