//! Conversion between entries and rows. Some fields have columns of their own; the payload contains all others.

use abi::{
    ApiError, ids,
    v1::{Entry, GroupChange, entry::Content},
};
use prost::Message as _;

/// A validated entry, ready to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// `APP/CONVERSATION`, the key of the conversation. [`Self::app`] and [`Self::conversation`] return its parts.
    pub(crate) scope: String,
    app_len: usize,
    /// The message id.
    pub(crate) id: [u8; 16],
    /// When the entry was sent, milliseconds since 1970.
    pub(crate) sent_at_ms: i64,
    /// The change, if the entry is a group change; `None` for messages.
    pub(crate) change: Option<Change>,
    /// The encoded entry, without the fields that have columns.
    pub(crate) payload: Vec<u8>,
}

/// A change of a group.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The user who requested it.
    pub(crate) sender: String,
    /// The change.
    pub(crate) change: GroupChange,
}

impl Change {
    /// Whether the payload of a stored entry contains this change.
    ///
    /// # Errors
    /// The payload was not written by [`Item::new`].
    pub(crate) fn is_in(&self, payload: &[u8]) -> Result<bool, crate::Error> {
        let entry = decode(payload)?;
        Ok(entry.content.is_some_and(|content| content == Content::GroupChange(self.change.clone())))
    }
}

impl Item {
    /// Validates an entry with the same checks as the decoder of log records. An entry in the log was acknowledged, so a
    /// stricter check here would lose it.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the reason.
    pub(crate) fn new(mut entry: Entry) -> Result<Self, ApiError> {
        ids::check_id("app", &entry.app)?;
        ids::check_id("sender", &entry.sender)?;
        let canonical = ids::Conversation::parse(&entry.conversation)?;
        if let ids::Conversation::Direct(first, second) = canonical
            && !is_ordered(&entry.conversation, first, second)
        {
            return Err(ApiError::invalid(
                "the users in the id of a direct conversation must be in ascending order",
            ));
        }
        let id = ids::message_bytes(&entry.message_id)
            .ok_or_else(|| ApiError::invalid("message_id must be 32 hexadecimal digits"))?;
        let change = match &entry.content {
            None => return Err(ApiError::invalid("the entry has no content")),
            Some(Content::Message(_)) => None,
            Some(Content::GroupChange(change)) => {
                Some(Change { sender: entry.sender.clone(), change: change.clone() })
            }
        };
        let app_len = entry.app.len();
        let mut scope = std::mem::take(&mut entry.app);
        scope.reserve_exact(1 + entry.conversation.len());
        scope.push('/');
        scope.push_str(&entry.conversation);
        entry.conversation.clear();
        entry.message_id.clear();
        entry.conversation_seq = 0;
        entry.countable_seq = 0;
        Ok(Self { scope, app_len, id, sent_at_ms: entry.sent_at_ms, change, payload: entry.encode_to_vec() })
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

/// Whether the users in the id are in the order `first`, `second`.
fn is_ordered(id: &str, first: &str, second: &str) -> bool {
    id.len() == 3 + first.len() + second.len() && id[2..].starts_with(first) && id.ends_with(second)
}

fn decode(payload: &[u8]) -> Result<Entry, crate::Error> {
    Entry::decode(payload).map_err(|_| crate::Error::Corrupt("the payload of an entry"))
}

/// Builds the entry of a row from its payload and its columns.
///
/// # Errors
/// The payload was not written by [`Item::new`].
pub(crate) fn entry(
    app: &str,
    conversation: &str,
    seq: i64,
    countable: i64,
    id: &[u8],
    payload: &[u8],
) -> Result<Entry, crate::Error> {
    let mut entry = decode(payload)?;
    app.clone_into(&mut entry.app);
    conversation.clone_into(&mut entry.conversation);
    entry.message_id = ids::hex(id);
    entry.conversation_seq = number(seq);
    entry.countable_seq = number(countable);
    Ok(entry)
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
    use abi::v1::Message;

    fn item(conversation: &str) -> Result<Item, ApiError> {
        Item::new(Entry {
            app: "app".into(),
            conversation: conversation.into(),
            message_id: "00".repeat(16),
            sender: "a".into(),
            content: Some(Content::Message(Message::default())),
            ..Entry::default()
        })
    }

    #[test]
    fn users_of_a_direct_conversation_must_be_in_ascending_order() {
        for id in ["d:a:b", "d:a:a", "d:a:ab", "d:ab:b"] {
            assert_eq!(item(id).unwrap().conversation(), id);
        }
        for id in ["d:b:a", "d:ab:a", "d:b:ab", "x"] {
            item(id).unwrap_err();
        }
    }

    #[test]
    fn an_entry_survives_the_conversion_to_a_row() {
        let item = item("g:1").unwrap();
        assert_eq!((item.app(), item.conversation()), ("app", "g:1"));
        let entry = entry("app", "g:1", 3, 2, &item.id, &item.payload).unwrap();
        assert_eq!(entry.message_id, "00".repeat(16));
        assert_eq!((entry.conversation_seq, entry.countable_seq), (3, 2));
        assert_eq!(entry.conversation, "g:1");
    }
}
