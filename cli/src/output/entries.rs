//! Entries as lines for people, and as JSON objects for programs.

use super::{clock, label, printable};
use abi::{
    envelope,
    ids::Conversation,
    v1::{Content, Entry, EntryState, GroupChange, content::Body, group_change::Change},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// An entry as `me` sees it, with its number; `with_place` includes the conversation.
pub(crate) fn line(entry: &Entry, me: &str, with_place: bool) -> String {
    let own = entry.sender == me;
    let who = if own { "you" } else { entry.sender.as_str() };
    let place = match Conversation::parse(&entry.conversation) {
        _ if !with_place => String::new(),
        Ok(Conversation::Direct(..)) if !own => String::new(),
        Ok(Conversation::Direct(..)) => format!(" to {}", label(&entry.conversation, me)),
        _ => format!(" in {}", entry.conversation),
    };
    let start = format!("#{} {} {who}{place}", entry.conversation_seq, clock(entry.sent_at_ms));
    let what = match entry.kind.as_str() {
        envelope::MESSAGE => return format!("{start}: {}{}", reply(entry), message(entry)),
        envelope::EDIT => format!("edited {}: {}", target(entry), body(entry.content.as_ref())),
        envelope::RECALL => format!("recalled {}", target(entry)),
        envelope::REACTION if entry.reactions.is_empty() => {
            format!("took back reactions to {}", target(entry))
        }
        envelope::REACTION => {
            format!("reacted {} to {}", printable(&entry.reactions.join(" ")), target(entry))
        }
        envelope::GROUP => group_change(entry.group_change.as_ref()),
        kind => format!("sent an entry of the kind {}", printable(kind)),
    };
    format!("{start} {what}")
}

/// The entry that another one refers to.
fn target(entry: &Entry) -> String {
    match entry.refers_to_seq {
        0 => "an earlier message".to_owned(),
        seq => format!("#{seq}"),
    }
}

fn reply(entry: &Entry) -> String {
    if entry.refers_to.is_empty() { String::new() } else { format!("(answers {}) ", target(entry)) }
}

/// The content of a message in its current state.
fn message(entry: &Entry) -> String {
    let state = entry.state.as_ref();
    if state.is_some_and(|state| !state.recalled_by.is_empty()) {
        return "[recalled]".to_owned();
    }
    let edited = if state.is_some_and(|state| state.edits > 0) { " (edited)" } else { "" };
    format!("{}{edited}{}", body(entry.content.as_ref()), reactions(state))
}

/// The reactions to an entry in brackets, after a space. Empty: none.
pub(crate) fn reactions(state: Option<&EntryState>) -> String {
    let counts = state.map(|state| state.reactions.as_slice()).unwrap_or_default();
    if counts.is_empty() {
        return String::new();
    }
    let count = |count: &abi::v1::ReactionCount| format!("{} {}", printable(&count.reaction), count.count);
    format!(" [{}]", counts.iter().map(count).collect::<Vec<_>>().join(", "))
}

fn body(content: Option<&Content>) -> String {
    let Some(content) = content else { return "[no content]".to_owned() };
    match &content.body {
        Some(Body::Text(text)) => printable(text),
        Some(Body::Data(data)) => format!("[{} bytes of {}]", data.len(), printable(&content.content_type)),
        None => String::new(),
    }
}

fn group_change(change: Option<&GroupChange>) -> String {
    match change.and_then(|change| change.change.as_ref()) {
        Some(Change::Created(created)) => {
            let with = if created.members.is_empty() { "" } else { " with " };
            format!("created the group \"{}\"{with}{}", printable(&created.name), created.members.join(", "))
        }
        Some(Change::Added(added)) => format!("added {}", added.users.join(", ")),
        Some(Change::Removed(removed)) => format!("removed {}", removed.users.join(", ")),
        Some(Change::Left(_)) => "left the group".to_owned(),
        Some(Change::Renamed(renamed)) => format!("renamed the group to \"{}\"", printable(&renamed.name)),
        Some(Change::OwnerChanged(changed)) => format!("made {} the owner", changed.user),
        Some(Change::Dissolved(_)) => "dissolved the group".to_owned(),
        None => "changed the group".to_owned(),
    }
}

/// An entry as one flat JSON object. Members that the entry does not have are left out.
pub(crate) fn object(entry: &Entry) -> Value {
    let mut object = json!({
        "conversation": entry.conversation,
        "conversation_seq": entry.conversation_seq,
        "message_id": entry.message_id,
        "client_msg_id": entry.client_msg_id,
        "sender": entry.sender,
        "sender_device": entry.sender_device,
        "sent_at_ms": entry.sent_at_ms,
        "kind": entry.kind,
    });
    if let Some(content) = &entry.content {
        object["content_type"] = json!(content.content_type);
        match &content.body {
            Some(Body::Text(text)) => object["text"] = json!(text),
            Some(Body::Data(data)) => object["data_base64"] = json!(BASE64_STANDARD.encode(data)),
            None => {}
        }
    }
    if !entry.refers_to.is_empty() {
        object["refers_to"] = json!(entry.refers_to);
        object["refers_to_seq"] = json!(entry.refers_to_seq);
    }
    if entry.kind == envelope::REACTION {
        object["reactions"] = json!(entry.reactions);
    }
    if let Some(change) = &entry.group_change {
        object["group_change"] = json!(change);
    }
    for (name, state) in [("state", &entry.state), ("target_state", &entry.target_state)] {
        if let Some(state) = state {
            object[name] = json!(state);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::ReactionCount;
    use client::text;

    fn entry(conversation: &str, sender: &str, body: &str) -> Entry {
        Entry {
            conversation: conversation.into(),
            conversation_seq: 7,
            sender: sender.into(),
            sent_at_ms: 1_000,
            kind: envelope::MESSAGE.into(),
            content: Some(text(body)),
            ..Entry::default()
        }
    }

    #[test]
    fn a_line_names_the_number_the_sender_and_the_conversation() {
        let of = |conversation, sender, place| line(&entry(conversation, sender, "hi"), "alice", place);
        assert_eq!(of("d:alice:bob", "bob", true), "#7 1970-01-01 00:00:01Z bob: hi");
        assert!(of("d:alice:bob", "alice", true).ends_with("Z you to bob: hi"));
        assert!(of("g:x", "bob", true).ends_with("Z bob in g:x: hi"));
        assert!(of("g:x", "bob", false).ends_with("Z bob: hi"));
    }

    #[test]
    fn a_line_shows_the_current_state_of_a_message() {
        let mut message = Entry { refers_to: "m".into(), refers_to_seq: 3, ..entry("g:x", "bob", "hi") };
        let reactions = vec![ReactionCount { reaction: "+1".into(), count: 2, mine: true }];
        message.state = Some(EntryState { edits: 1, reactions, ..EntryState::default() });
        assert!(line(&message, "alice", false).ends_with("Z bob: (answers #3) hi (edited) [+1 2]"));
        message.content = None;
        message.state = Some(EntryState { recalled_by: "bob".into(), ..EntryState::default() });
        assert!(line(&message, "alice", false).ends_with("Z bob: (answers #3) [recalled]"));
    }

    #[test]
    fn a_line_says_what_a_change_does() {
        let change = |kind: &str, reactions: &[&str]| {
            let reactions = reactions.iter().map(|reaction| (*reaction).to_owned()).collect();
            let change = Entry {
                kind: kind.into(),
                refers_to: "m".into(),
                refers_to_seq: 3,
                reactions,
                ..entry("g:x", "bob", "new")
            };
            line(&change, "alice", false)
        };
        assert!(change("edit", &[]).ends_with("Z bob edited #3: new"));
        assert!(change("recall", &[]).ends_with("Z bob recalled #3"));
        assert!(change("reaction", &["+1", "!"]).ends_with("Z bob reacted +1 ! to #3"));
        assert!(change("reaction", &[]).ends_with("Z bob took back reactions to #3"));
        assert!(change("acme.order", &[]).ends_with("Z bob sent an entry of the kind acme.order"));
    }

    #[test]
    fn p8_text_of_other_users_cannot_control_the_terminal_or_imitate_a_line() {
        let text = "a\u{1b}[2Jb\rc\u{9b}31m\u{202e}d\n00:00:00Z carol: pay bob";
        let printed = line(&entry("d:alice:bob", "bob", text), "alice", false);
        assert!(!printed.contains(['\u{1b}', '\r', '\u{9b}', '\u{202e}']), "{printed:?}");
        assert!(printed.lines().skip(1).all(|line| line.starts_with("    ")), "{printed:?}");
        let mut data = entry("d:alice:bob", "bob", "");
        let body = Some(Body::Data(vec![1].into()));
        data.content = Some(Content { content_type: "x\u{2067}".into(), body });
        assert!(!line(&data, "alice", false).contains('\u{2067}'));
    }
}
