//! Conversion of entries to rows. The store reads the envelope of an entry; everything else stays encoded in the payload.

use abi::{
    ApiError,
    envelope::{self, field},
    ids, record,
    v1::{Envelope, GroupChange, group_change},
};
use prost::bytes::Bytes;

/// A validated entry, ready to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// `APP/CONVERSATION`, the key of the conversation. [`Self::app`] and [`Self::conversation`] return its parts.
    pub(crate) scope: String,
    app_len: usize,
    /// The message id.
    pub(crate) id: [u8; 16],
    /// User id of the sender.
    pub(crate) sender: String,
    /// When the gateway accepted the entry, milliseconds since 1970.
    pub(crate) sent_at_ms: i64,
    /// The kind; `None` for messages.
    pub(crate) kind: Option<String>,
    /// Whether the entry counts as unread.
    pub(crate) counts: bool,
    /// Message id of the entry that this one refers to.
    pub(crate) refers_to: Option<[u8; 16]>,
    /// The change, if the entry changes another entry or the group.
    pub(crate) change: Option<Change>,
    /// The sender is not one of the two users of the direct conversation.
    pub(crate) is_stranger: bool,
    /// The encoded entry as the gateway made it, without the conversation and the message id.
    pub(crate) payload: Bytes,
}

/// What an entry changes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Another entry.
    Entry(EntryChange),
    /// The group.
    Group(GroupChange),
}

/// A change of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryChange {
    /// Replaces the content.
    Edit {
        /// Whether there is a new content.
        has_content: bool,
    },
    /// Removes the content.
    Recall,
    /// Replaces all reactions of the sender.
    Reaction(Vec<String>),
}

impl Change {
    fn new(envelope: &Envelope) -> Option<Self> {
        Some(match envelope.kind.as_str() {
            envelope::EDIT => Self::Entry(EntryChange::Edit { has_content: !envelope.content.is_empty() }),
            envelope::RECALL => Self::Entry(EntryChange::Recall),
            envelope::REACTION => Self::Entry(EntryChange::Reaction(envelope.reactions.clone())),
            envelope::GROUP => Self::Group(envelope.group_change.clone().unwrap_or_default()),
            _ => return None,
        })
    }

    /// The users who must have accounts, at most `most` of them.
    pub(crate) fn named_users(&self, most: usize) -> Vec<String> {
        let Self::Group(GroupChange { change: Some(change) }) = self else { return Vec::new() };
        let named = match change {
            group_change::Change::Created(created) => &created.members,
            group_change::Change::Added(added) => &added.users,
            _ => return Vec::new(),
        };
        named.iter().filter(|user| ids::check_id("user", user).is_ok()).take(most).cloned().collect()
    }
}

impl Item {
    /// Validates an encoded entry with the same checks as the decoder of log records. An entry in the log was acknowledged, so a
    /// stricter check here would lose it.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the reason.
    pub(crate) fn new(app: &str, entry: Bytes) -> Result<Self, ApiError> {
        let envelope = record::decode(&entry)?;
        let id = ids::message_bytes(&envelope.message_id).expect("the decoder has checked the message id");
        let change = Change::new(&envelope);
        let is_stranger = ids::Conversation::parse(&envelope.conversation)?
            .has_direct_member(&envelope.sender)
            .is_some_and(|is_member| !is_member);
        let payload = envelope::without(&entry, &[field::CONVERSATION, field::MESSAGE_ID])
            .map_err(|error| ApiError::invalid(format!("the payload is not an entry: {error}")))?;
        let mut scope = String::with_capacity(app.len() + 1 + envelope.conversation.len());
        scope.push_str(app);
        scope.push('/');
        scope.push_str(&envelope.conversation);
        Ok(Self {
            scope,
            app_len: app.len(),
            id,
            sender: envelope.sender,
            sent_at_ms: envelope.sent_at_ms,
            counts: envelope.countable && change.is_none(),
            kind: (envelope.kind != envelope::MESSAGE).then_some(envelope.kind),
            refers_to: ids::message_bytes(&envelope.refers_to),
            change,
            is_stranger,
            payload,
        })
    }

    /// Application.
    pub(crate) fn app(&self) -> &str {
        &self.scope[..self.app_len]
    }

    /// Conversation id.
    pub(crate) fn conversation(&self) -> &str {
        &self.scope[self.app_len + 1..]
    }

    /// Whether the conversation is between two users.
    pub(crate) fn is_direct(&self) -> bool {
        self.conversation().starts_with("d:")
    }
}

/// Converts a column to the type of the protocol.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).expect("the store has no negative sequence numbers")
}

/// Converts a number of the protocol to a column. A number too large for a column becomes the maximum, which exceeds every
/// stored sequence number.
pub(crate) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::Entry;
    use prost::Message as _;

    fn entry(conversation: &str) -> Entry {
        Entry {
            conversation: conversation.into(),
            message_id: "0f".repeat(16),
            sender: "a".into(),
            kind: envelope::MESSAGE.into(),
            countable: true,
            ..Entry::default()
        }
    }

    fn item(entry: &Entry) -> Result<Item, ApiError> {
        Item::new("app", entry.encode_to_vec().into())
    }

    #[test]
    fn users_of_a_direct_conversation_must_be_in_ascending_order() {
        for id in ["d:a:b", "d:a:a", "d:a:ab", "d:ab:b"] {
            assert_eq!(item(&entry(id)).unwrap().conversation(), id);
        }
        for id in ["d:b:a", "d:ab:a", "d:b:ab", "x"] {
            item(&entry(id)).unwrap_err();
        }
    }

    #[test]
    fn p1_the_payload_is_the_entry_without_the_columns_that_find_it() {
        let mut bytes = entry("g:1").encode_to_vec();
        // A field of a later version.
        bytes.extend([0xfa, 0x07, 2, 1, 2]);
        let item = Item::new("app", bytes.clone().into()).unwrap();
        assert_eq!((item.app(), item.conversation(), item.id), ("app", "g:1", [0x0f; 16]));
        assert!(item.counts && item.kind.is_none() && item.change.is_none() && item.refers_to.is_none());
        assert!(bytes.ends_with(&item.payload));
        assert_eq!(
            Entry::decode(item.payload).unwrap(),
            Entry { conversation: String::new(), message_id: String::new(), ..entry("g:1") }
        );
    }

    #[test]
    fn changes_never_count_as_unread() {
        for kind in [envelope::EDIT, envelope::RECALL, envelope::REACTION, envelope::GROUP] {
            let item =
                item(&Entry { kind: kind.into(), refers_to: "01".repeat(16), ..entry("g:1") }).unwrap();
            assert!(!item.counts && item.change.is_some(), "{kind}");
        }
        let later = item(&Entry { kind: "hologram".into(), ..entry("g:1") }).unwrap();
        assert!(later.counts && later.change.is_none());
    }

    #[test]
    fn p8_a_stranger_in_a_direct_conversation_is_recognized() {
        assert!(item(&entry("d:b:c")).unwrap().is_stranger);
        assert!(!item(&entry("d:a:c")).unwrap().is_stranger);
        assert!(!item(&entry("g:b")).unwrap().is_stranger);
    }
}
