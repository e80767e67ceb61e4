//! `conversations`, `changes`, `settings`, `read`, `readers`.

use crate::{
    args::SettingsArgs,
    context::{self, Context},
    error::Usage,
    output::{self, clock, entries, label},
};
use abi::v1::{Changes, GetChanges, GetReaders, Head, ReceiverSeq, Role, SetSettings};
use anyhow::Result;
use client::Client;
use serde_json::{Value, json};

pub(super) async fn conversations(context: &Context) -> Result<()> {
    let once = context.once().await?;
    let heads = all_heads(&once.client).await?;
    if heads.is_empty() {
        output::hint("no conversations yet; start one with `godwit-cli chat USER`");
    }
    for head in heads {
        context.out.text(&head_line(&head, &once.user))?;
        context.out.object(&head_object(&head))?;
    }
    once.client.close().await;
    Ok(())
}

/// Prints what has changed since a receiver seq, `EPOCH:SEQ`, and the receiver seq to continue from.
pub(super) async fn changes(context: &Context, since: Option<&str>) -> Result<()> {
    let have = since.map(receiver_seq).transpose()?;
    let once = context.once().await?;
    let mut cursor = String::new();
    loop {
        let request = GetChanges { have, cursor, limit: abi::MAX_PAGE };
        let page = once.client.changes(request).await?;
        print_changes(context, &once.user, &page)?;
        if page.next.is_empty() {
            let now = page.receiver_seq.unwrap_or_default();
            context.out.text(&format!("up to {}:{}", now.epoch, now.seq))?;
            context.out.object(&json!({ "receiver_seq": format!("{}:{}", now.epoch, now.seq) }))?;
            break;
        }
        cursor = page.next;
    }
    once.client.close().await;
    Ok(())
}

fn print_changes(context: &Context, user: &str, page: &Changes) -> Result<()> {
    for head in &page.heads {
        context.out.text(&head_line(head, user))?;
        context.out.object(&head_object(head))?;
    }
    if let Some(profile) = &page.profile {
        context.out.text("your profile")?;
        context.out.object(&json!({ "profile": profile }))?;
    }
    if let Some(blocks) = &page.blocks {
        context.out.text(&format!("blocked users: {}", blocks.users.join(", ")))?;
        context.out.object(&json!({ "blocks": blocks.users }))?;
    }
    Ok(())
}

fn receiver_seq(text: &str) -> Result<ReceiverSeq> {
    let parsed = text
        .split_once(':')
        .and_then(|(epoch, seq)| Some(ReceiverSeq { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? }));
    Ok(parsed.ok_or_else(|| Usage(format!("{text} is not a receiver seq such as 7:120")))?)
}

/// Changes the settings of a conversation, and prints them.
pub(super) async fn settings(context: &Context, with: &str, args: SettingsArgs) -> Result<()> {
    let conversation = context::conversation(with, &context.user()?)?;
    let request = request(&conversation, args)?;
    let once = context.once().await?;
    if request != (SetSettings { conversation: conversation.clone(), ..SetSettings::default() }) {
        once.client.change_settings(request).await?;
    }
    let heads = once.client.heads(vec![conversation.clone()]).await?;
    let Some(head) = heads.into_iter().next() else {
        return Err(Usage(format!("{conversation} is not one of your conversations")).into());
    };
    let settings = head.settings.unwrap_or_default();
    let muted = match settings.muted_until_ms {
        0 => "no".to_owned(),
        FOR_EVER => "for ever".to_owned(),
        until => format!("until {}", clock(until)),
    };
    context.out.text(&format!(
        "muted: {muted}\npinned: {}\narchived: {}\nmarked unread: {}\ndraft: {}",
        yes(settings.pinned),
        yes(settings.archived),
        yes(settings.marked_unread),
        output::printable(&settings.draft)
    ))?;
    context.out.object(&json!(settings))?;
    once.client.close().await;
    Ok(())
}

/// `muted_until_ms` of a conversation that is muted without an end.
const FOR_EVER: i64 = 9_007_199_254_740_991;

fn request(conversation: &str, args: SettingsArgs) -> Result<SetSettings> {
    let until = |seconds: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_millis() as i64);
        now.saturating_add(seconds.saturating_mul(1_000)).min(FOR_EVER)
    };
    let muted_until_ms = match args.mute.as_deref() {
        None => None,
        Some("off") => Some(0),
        Some("forever") => Some(FOR_EVER),
        Some(seconds) => {
            Some(until(seconds.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                Usage(format!("--mute {seconds} is neither a number of seconds nor `off` nor `forever`"))
            })?))
        }
    };
    Ok(SetSettings {
        conversation: conversation.to_owned(),
        muted_until_ms,
        pinned: args.pinned,
        archived: args.archived,
        marked_unread: args.marked_unread,
        draft: args.draft,
    })
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// Prints who has read an entry.
pub(super) async fn read(context: &Context, with: &str, message: Option<u64>) -> Result<()> {
    let conversation = context::conversation(with, &context.user()?)?;
    let once = context.once().await?;
    // A number beyond the last entry means the last entry.
    let read = once.client.mark_read(&conversation, message.unwrap_or(u64::MAX)).await?;
    context.out.text(&format!("read up to #{}, {} unread", read.read_seq, read.unread))?;
    context.out.object(&json!(read))?;
    once.client.close().await;
    Ok(())
}

pub(super) async fn readers(context: &Context, with: &str, seq: u64) -> Result<()> {
    let conversation = context::conversation(with, &context.user()?)?;
    let once = context.once().await?;
    let mut after = String::new();
    loop {
        let request = GetReaders {
            conversation: conversation.clone(),
            conversation_seq: seq,
            after,
            limit: abi::MAX_PAGE,
        };
        let page = once.client.readers(request).await?;
        for reader in &page.readers {
            let state = if reader.has_read { "has read it" } else { "has not read it" };
            context.out.text(&format!("{} {state}", reader.user))?;
            context.out.object(&json!({ "user": reader.user, "has_read": reader.has_read }))?;
        }
        match page.readers.last() {
            Some(last) if page.more => after = last.user.clone(),
            _ => break,
        }
    }
    once.client.close().await;
    Ok(())
}

fn head_line(head: &Head, user: &str) -> String {
    let mut line = label(&head.conversation, user);
    if !head.name.is_empty() {
        line = format!("{line}  {}", output::printable(&head.name));
    }
    if head.unread > 0 {
        line = format!("{line}  {} unread", head.unread);
    }
    let settings = head.settings.clone().unwrap_or_default();
    let marks = [
        (head.role() == Role::Unspecified, "not a member"),
        (settings.pinned, "pinned"),
        (settings.archived, "archived"),
        (settings.muted_until_ms > 0, "muted"),
        (settings.marked_unread, "marked unread"),
    ];
    for (_, mark) in marks.iter().filter(|(is_set, _)| *is_set) {
        line = format!("{line}  {mark}");
    }
    format!("{line}  {}", clock(head.last_sent_at_ms))
}

/// A head as one flat JSON object.
pub(super) fn head_object(head: &Head) -> Value {
    json!({
        "conversation": head.conversation,
        "name": head.name,
        "conversation_seq": head.conversation_seq,
        "read_seq": head.read_seq,
        "unread": head.unread,
        "role": role_name(head.role()),
        "visible_from": head.visible_from,
        "visible_until": head.visible_until,
        "last_sent_at_ms": head.last_sent_at_ms,
        "last": head.last.as_ref().map(entries::object),
        "settings": head.settings,
        "read_by_any_seq": head.read_by_any_seq,
        "read_by_all_seq": head.read_by_all_seq,
    })
}

/// `owner`, `member` or `none`.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Member => "member",
        Role::Unspecified => "none",
    }
}

/// All heads, most recent first, page by page.
pub(super) async fn all_heads(client: &Client) -> Result<Vec<Head>, client::Error> {
    let mut heads: Vec<Head> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.changes(GetChanges { have: None, cursor, limit: abi::MAX_PAGE }).await?;
        heads.extend(page.heads);
        if page.next.is_empty() {
            return Ok(heads);
        }
        cursor = page.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_given_stay_as_they_are() {
        let args =
            |mute: Option<&str>| SettingsArgs { mute: mute.map(str::to_owned), ..SettingsArgs::default() };
        let none = SetSettings { conversation: "g:x".into(), ..SetSettings::default() };
        assert_eq!(request("g:x", args(None)).unwrap(), none);
        assert_eq!(request("g:x", args(Some("off"))).unwrap().muted_until_ms, Some(0));
        assert_eq!(request("g:x", args(Some("forever"))).unwrap().muted_until_ms, Some(FOR_EVER));
        assert!(request("g:x", args(Some("60"))).unwrap().muted_until_ms.unwrap() > 60_000);
        for wrong in ["-1", "0", "soon"] {
            assert!(request("g:x", args(Some(wrong))).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }

    #[test]
    fn a_receiver_seq_is_an_epoch_and_a_number() {
        assert_eq!(receiver_seq("7:120").unwrap(), ReceiverSeq { epoch: 7, seq: 120 });
        for wrong in ["", "7", "7:", "7:x", ":1"] {
            assert!(receiver_seq(wrong).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
