//! Entries as gateways encode them.

use super::world::{APP, SENT_AT_MS};
use abi::{
    envelope, ids,
    v1::{
        Content, Entry, GroupChange, GroupCreated, GroupDissolved, GroupRenamed, HistoryVisibility,
        MarkReadRequest, MemberLeft, MembersAdded, MembersRemoved, OwnerChanged, ReadMark, content::Body,
        group_change::Change,
    },
};

/// The device of all senders.
const DEVICE: &str = "phone";

/// An entry without content, as a gateway encodes it.
pub(super) fn entry(conversation: &str, sender: &str, client_msg_id: &str, kind: &str) -> Entry {
    let id = if kind == envelope::GROUP {
        ids::change(APP, conversation, sender, DEVICE, client_msg_id)
    } else {
        message_id(conversation, sender, client_msg_id)
    };
    Entry {
        conversation: conversation.into(),
        message_id: id,
        sender: sender.into(),
        sender_device: DEVICE.into(),
        client_msg_id: client_msg_id.into(),
        sent_at_ms: SENT_AT_MS,
        kind: kind.into(),
        ..Entry::default()
    }
}

/// The id of a message from [`message`].
pub(super) fn message_id(conversation: &str, sender: &str, client_msg_id: &str) -> String {
    ids::message(APP, conversation, sender, DEVICE, client_msg_id)
}

pub(super) fn text(text: &str) -> Option<Content> {
    Some(Content { content_type: String::new(), body: Some(Body::Text(text.into())) })
}

pub(super) fn message(conversation: &str, sender: &str, client_msg_id: &str) -> Entry {
    Entry {
        countable: true,
        content: text(&format!("text of {client_msg_id}")),
        ..entry(conversation, sender, client_msg_id, envelope::MESSAGE)
    }
}

/// An edit of the entry with the id `target`. Its text is `edit CLIENT_MSG_ID`.
pub(super) fn edit(conversation: &str, sender: &str, client_msg_id: &str, target: &str) -> Entry {
    Entry {
        refers_to: target.into(),
        content: text(&format!("edit {client_msg_id}")),
        ..entry(conversation, sender, client_msg_id, envelope::EDIT)
    }
}

/// A recall of the entry with the id `target`.
pub(super) fn recall(conversation: &str, sender: &str, client_msg_id: &str, target: &str) -> Entry {
    Entry { refers_to: target.into(), ..entry(conversation, sender, client_msg_id, envelope::RECALL) }
}

/// All reactions of the sender to the entry with the id `target`.
pub(super) fn reaction(
    conversation: &str,
    sender: &str,
    client_msg_id: &str,
    target: &str,
    reactions: &[&str],
) -> Entry {
    Entry {
        refers_to: target.into(),
        reactions: names(reactions),
        ..entry(conversation, sender, client_msg_id, envelope::REACTION)
    }
}

pub(super) fn change(conversation: &str, sender: &str, client_msg_id: &str, change: Change) -> Entry {
    Entry {
        group_change: Some(GroupChange { change: Some(change) }),
        ..entry(conversation, sender, client_msg_id, envelope::GROUP)
    }
}

pub(super) fn created(members: &[&str], history: HistoryVisibility) -> Change {
    Change::Created(GroupCreated { name: "A group".into(), members: names(members), history: history.into() })
}

pub(super) fn added(users: &[&str]) -> Change {
    Change::Added(MembersAdded { users: names(users) })
}

pub(super) fn removed(users: &[&str]) -> Change {
    Change::Removed(MembersRemoved { users: names(users) })
}

pub(super) fn left() -> Change {
    Change::Left(MemberLeft {})
}

pub(super) fn renamed(name: &str) -> Change {
    Change::Renamed(GroupRenamed { name: name.into() })
}

pub(super) fn owner_changed(user: &str) -> Change {
    Change::OwnerChanged(OwnerChanged { user: user.into() })
}

pub(super) fn dissolved() -> Change {
    Change::Dissolved(GroupDissolved {})
}

pub(super) fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

/// A request to move read positions. `marks`: user, conversation, `conversation_seq`.
pub(super) fn marks(marks: &[(&str, &str, u64)]) -> MarkReadRequest {
    let mark = |(user, conversation, seq): &(&str, &str, u64)| ReadMark {
        user: (*user).into(),
        conversation: (*conversation).into(),
        conversation_seq: *seq,
    };
    MarkReadRequest { app: APP.into(), marks: marks.iter().map(mark).collect() }
}
