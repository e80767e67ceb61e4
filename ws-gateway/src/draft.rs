//! Checks the `send` of a device, and turns it into a draft of an entry.

use crate::entry_log::Draft;
use abi::{
    ApiError,
    envelope::{EDIT, GROUP, MESSAGE, REACTION, RECALL},
    error::{ErrorCode, quoted},
    ids::{self, Conversation},
    json,
    v1::{Content, Send, content::Body},
};

/// Longest content type, in characters. RFC 6838 allows 127 for each of the two halves; real ones are much shorter.
const MAX_CONTENT_TYPE: usize = 127;
/// Most reactions of a user to an entry.
const MAX_REACTIONS: usize = 16;
/// Longest reaction, in bytes. The longest emoji sequences have about 40.
const MAX_REACTION: usize = 64;
/// Longest kind, in characters.
const MAX_KIND: usize = 64;

/// The draft of a sent entry.
///
/// # Errors
/// `INVALID_REQUEST` or `TOO_LARGE`, with the member that is wrong.
pub fn draft(send: Send, max_body: usize) -> Result<Draft, ApiError> {
    ids::check_client_msg_id(&send.client_msg_id)?;
    let conversation = Conversation::parse(&send.conversation)?.to_string();
    let kind = if send.kind.is_empty() { MESSAGE } else { send.kind.as_str() };
    let countable = countable(kind, send.countable)?;
    let refers = Use::of(kind, &[EDIT, RECALL, REACTION], &[MESSAGE]);
    refers.check(kind, "refers_to", !send.refers_to.is_empty())?;
    Use::of(kind, &[MESSAGE, EDIT], &[]).check(kind, "content", send.content.is_some())?;
    if !matches!(kind, REACTION) && !send.reactions.is_empty() {
        return Err(ApiError::invalid(format!("reactions must be absent in an entry of kind {kind}")));
    }
    if !send.refers_to.is_empty() && ids::message_bytes(&send.refers_to).is_none() {
        return Err(ApiError::invalid(format!(
            "refers_to must be a message id: 32 hexadecimal digits, got {}",
            quoted(&send.refers_to)
        )));
    }
    if let Some(content) = &send.content {
        check_content(content, max_body)?;
    }
    check_reactions(&send.reactions)?;
    Ok(Draft {
        conversation,
        client_msg_id: send.client_msg_id,
        kind: kind.to_owned(),
        countable,
        refers_to: send.refers_to,
        content: send.content,
        reactions: send.reactions,
        group_change: None,
    })
}

/// Whether an entry of a kind counts as unread. The sender decides for kinds of the product.
fn countable(kind: &str, of_sender: bool) -> Result<bool, ApiError> {
    match kind {
        MESSAGE => Ok(true),
        EDIT | RECALL | REACTION => Ok(false),
        GROUP => Err(ApiError::invalid("kind must not be group: groups are changed with requests over HTTP")),
        _ => check_custom_kind(kind).map(|()| of_sender),
    }
}

/// Whether entries of a kind have a member.
enum Use {
    Required,
    Optional,
    Absent,
}

impl Use {
    /// Kinds of the product, and those in `optional`, may have the member.
    fn of(kind: &str, required: &[&str], optional: &[&str]) -> Self {
        if required.contains(&kind) {
            Self::Required
        } else if optional.contains(&kind) || kind.contains('.') {
            Self::Optional
        } else {
            Self::Absent
        }
    }

    fn check(&self, kind: &str, member: &str, is_present: bool) -> Result<(), ApiError> {
        match (self, is_present) {
            (Self::Required, false) => {
                Err(ApiError::invalid(format!("{member} is missing: an entry of kind {kind} needs it")))
            }
            (Self::Absent, true) => {
                Err(ApiError::invalid(format!("{member} must be absent in an entry of kind {kind}")))
            }
            _ => Ok(()),
        }
    }
}

/// Checks a kind of the product, such as `acme.order`.
///
/// # Errors
/// `INVALID_REQUEST` with the form of a kind.
pub fn check_custom_kind(kind: &str) -> Result<(), ApiError> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    };
    if kind.len() <= MAX_KIND && kind.contains('.') && kind.split('.').all(is_part) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "kind must be message, edit, recall, reaction, or one of your own with a dot, such as acme.order: at most {MAX_KIND} \
         of lower-case letters, digits, '_', '-' and '.'; got {}",
        quoted(kind)
    )))
}

/// Checks the size and the type of a content.
///
/// # Errors
/// `TOO_LARGE`; `INVALID_REQUEST` with the member that is wrong.
pub fn check_content(content: &Content, max_body: usize) -> Result<(), ApiError> {
    let size = match &content.body {
        None => return Err(ApiError::invalid("content has no body; give text or data")),
        Some(Body::Text(text)) => text.len(),
        Some(Body::Data(data)) => data.len(),
    };
    if size > max_body {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the body has {size} bytes; {max_body} are allowed"),
        ));
    }
    // A legal body must fit into a frame in each format, whatever the format of the sender. The only bodies that grow so much
    // are texts of control characters.
    if let Some(Body::Text(text)) = &content.body {
        let (size, max) = (json::text_size(text), json::MAX_GROWTH * max_body);
        if size > max {
            return Err(ApiError::new(
                ErrorCode::TooLarge,
                format!(
                    "the text has {size} bytes in JSON, because of its control characters; {max} are allowed"
                ),
            ));
        }
    }
    let content_type = &content.content_type;
    if content_type.len() > MAX_CONTENT_TYPE
        || !content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    {
        return Err(ApiError::invalid(format!(
            "content_type must have at most {MAX_CONTENT_TYPE} printable ASCII characters"
        )));
    }
    Ok(())
}

fn check_reactions(reactions: &[String]) -> Result<(), ApiError> {
    if reactions.len() > MAX_REACTIONS {
        let count = reactions.len();
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("reactions has {count} items; {MAX_REACTIONS} are allowed"),
        ));
    }
    for (index, reaction) in reactions.iter().enumerate() {
        let is_text = (1..=MAX_REACTION).contains(&reaction.len()) && !reaction.chars().any(char::is_control);
        if !is_text || reactions[..index].contains(reaction) {
            return Err(ApiError::invalid(format!(
                "reactions must be different texts of 1 to {MAX_REACTION} bytes without control characters"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
