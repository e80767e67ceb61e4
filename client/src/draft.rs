//! Entries to send.

use abi::{
    envelope,
    v1::{Content, Send, content::Body},
};

/// A text.
pub fn text(text: impl Into<String>) -> Content {
    Content { content_type: String::new(), body: Some(Body::Text(text.into())) }
}

/// An entry to send. A [`Content`] is a draft of a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    kind: String,
    countable: bool,
    refers_to: String,
    content: Option<Content>,
    reactions: Vec<String>,
}

impl From<Content> for Draft {
    fn from(content: Content) -> Self {
        Self { content: Some(content), ..Self::default() }
    }
}

impl Draft {
    /// A message that answers an earlier entry.
    pub fn reply(message_id: &str, content: Content) -> Self {
        Self { refers_to: message_id.to_owned(), content: Some(content), ..Self::default() }
    }

    /// Replaces the content of one of the user's own messages.
    pub fn edit(message_id: &str, content: Content) -> Self {
        Self { kind: envelope::EDIT.to_owned(), ..Self::reply(message_id, content) }
    }

    /// Takes a message back: its content is no longer shown to anyone.
    pub fn recall(message_id: &str) -> Self {
        let kind = envelope::RECALL.to_owned();
        Self { kind, refers_to: message_id.to_owned(), ..Self::default() }
    }

    /// Replaces all reactions of the user to an entry. Empty: removes them.
    pub fn reaction(message_id: &str, reactions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            kind: envelope::REACTION.to_owned(),
            refers_to: message_id.to_owned(),
            reactions: reactions.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// An entry of a kind of the product, with a dot in its name, such as `acme.order`. `countable`: whether it counts as unread.
    pub fn custom(kind: &str, countable: bool, content: Option<Content>) -> Self {
        Self { kind: kind.to_owned(), countable, content, ..Self::default() }
    }

    /// The message id of an earlier entry that this one refers to.
    #[must_use]
    pub fn referring_to(mut self, message_id: &str) -> Self {
        message_id.clone_into(&mut self.refers_to);
        self
    }

    /// The request that sends this draft.
    pub fn into_send(self, conversation: &str, client_msg_id: String) -> Send {
        let Self { kind, countable, refers_to, content, reactions } = self;
        Send {
            conversation: conversation.to_owned(),
            client_msg_id,
            kind,
            countable,
            refers_to,
            content,
            reactions,
        }
    }
}
