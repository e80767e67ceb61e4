//! Parses, checks and derives ids. All ids are plain text, readable in logs and tables.

use crate::error::{ApiError, quoted};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longest user or device id, in characters.
pub const MAX_ID: usize = 64;

/// Kinds of conversations to come: rooms, threads, and a user's own.
const RESERVED: [&str; 3] = ["r", "t", "u"];

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        // Programs remove these from the path of a URL.
        && !matches!(text, "." | "..")
}

/// Checks an id chosen by the product: 1 to 64 ASCII letters, digits, `.`, `_` and `-`, but neither `.` nor `..`. Case counts:
/// `alice` and `Alice` are different ids.
///
/// # Errors
/// `INVALID_REQUEST` with `kind`, the kind of id, and the id.
pub fn check_id(kind: &str, id: &str) -> Result<(), ApiError> {
    if is_id(id) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "{kind} must be 1 to {MAX_ID} ASCII letters, digits, '.', '_' and '-', other than '.' and '..', got {}",
        quoted(id)
    )))
}

/// Checks the idempotency key of a message: 1 to 64 printable ASCII characters.
///
/// # Errors
/// `INVALID_REQUEST`.
pub fn check_client_msg_id(id: &str) -> Result<(), ApiError> {
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "client_msg_id must be 1 to {MAX_ID} printable ASCII characters without spaces, got {}",
        quoted(id)
    )))
}

/// A parsed conversation id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conversation<'a> {
    /// A direct conversation: its two users in byte order. Both are equal in a conversation with oneself.
    Direct(&'a str, &'a str),
    /// A group: the part of its id after `g:`.
    Group(&'a str),
}

impl<'a> Conversation<'a> {
    /// Parses a conversation id. The users of a direct conversation may be in either order.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the forms of an id, or because the kind of conversation is reserved.
    pub fn parse(id: &'a str) -> Result<Self, ApiError> {
        let parsed = match id.split_once(':') {
            Some(("d", users)) => users
                .split_once(':')
                .filter(|(a, b)| is_id(a) && is_id(b))
                .map(|(a, b)| if a <= b { Self::Direct(a, b) } else { Self::Direct(b, a) }),
            Some(("g", group)) if is_id(group) => Some(Self::Group(group)),
            Some((kind, _)) if RESERVED.contains(&kind) => {
                return Err(ApiError::invalid(format!(
                    "conversation is {}: ids with {kind}: are reserved for a later version of the server",
                    quoted(id)
                )));
            }
            _ => None,
        };
        parsed.ok_or_else(|| {
            ApiError::invalid(format!(
                "conversation must be d:USER:USER (direct) or g:ID (group), with ids of 1 to {MAX_ID} characters, got {}",
                quoted(id)
            ))
        })
    }

    /// Whether `id`, from which this was parsed, is the canonical form: the users of a direct conversation in byte order.
    pub fn is_canonical(&self, id: &str) -> bool {
        match self {
            Self::Direct(first, second) => {
                id.len() == 3 + first.len() + second.len()
                    && id[2..].starts_with(first)
                    && id.ends_with(second)
            }
            Self::Group(_) => true,
        }
    }

    /// Whether a user belongs to a direct conversation. `None` for groups, whose members only the store knows.
    pub fn has_direct_member(&self, user: &str) -> Option<bool> {
        match self {
            Self::Direct(a, b) => Some(*a == user || *b == user),
            Self::Group(_) => None,
        }
    }

    /// The one or two users of a direct conversation. Empty for groups.
    pub fn direct_members(self) -> impl Iterator<Item = &'a str> {
        let (first, second) = match self {
            Self::Direct(a, b) => (Some(a), (a != b).then_some(b)),
            Self::Group(_) => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl std::fmt::Display for Conversation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct(a, b) => write!(f, "d:{a}:{b}"),
            Self::Group(id) => write!(f, "g:{id}"),
        }
    }
}

/// Id of the direct conversation between two users.
pub fn direct(a: &str, b: &str) -> String {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    format!("d:{first}:{second}")
}

/// Id of a group, derived from its creator and the creator's idempotency key, so that a retry creates no second group.
pub fn group(app: &str, owner: &str, request: &str) -> String {
    let digest = digest(&["group", app, owner, request]);
    format!("g:{}", hex(&digest[..12]))
}

/// Id of a message: 32 hexadecimal digits, the same for every retry and redelivery.
///
/// The last ten bytes come from a SHA-256 over all parts. If `client_msg_id` is a UUIDv7, the first six bytes are its
/// time: ids then grow with time, and inserts touch few pages of the store's index. Otherwise they come from the hash
/// too. The time is not trusted; it only affects the position in the index.
pub fn message(app: &str, conversation: &str, sender: &str, device: &str, client_msg_id: &str) -> String {
    entry_id("message", [app, conversation, sender, device, client_msg_id])
}

/// Id of a group change, derived like that of a [`message`] and different from all message ids.
pub fn change(app: &str, conversation: &str, sender: &str, device: &str, request_id: &str) -> String {
    entry_id("change", [app, conversation, sender, device, request_id])
}

fn entry_id(domain: &str, parts: [&str; 5]) -> String {
    let [app, conversation, sender, device, client_id] = parts;
    let digest = digest(&[domain, app, conversation, sender, device, client_id]);
    let mut bytes: [u8; 16] = digest[..16].try_into().expect("a SHA-256 has 32 bytes");
    if let Ok(uuid) = Uuid::try_parse_ascii(client_id.as_bytes())
        && uuid.get_version_num() == 7
    {
        bytes[..6].copy_from_slice(&uuid.as_bytes()[..6]);
    }
    hex(&bytes)
}

/// The 16 bytes of a message id. `None` if the text is not a message id.
pub fn message_bytes(id: &str) -> Option<[u8; 16]> {
    let digits = id.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower-case hexadecimal digits, the inverse of [`message_bytes`].
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// SHA-256 over parts. Each part is preceded by its length, so that different lists never hash the same bytes.
fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use proptest::prelude::*;

    #[test]
    fn p2_message_ids_are_the_same_in_all_releases() {
        let id = message("default", "d:alice:bob", "alice", "phone", "1");
        assert_eq!(id, message("default", "d:alice:bob", "alice", "phone", "1"));
        assert_eq!(id, "af626888ed7e9353a27480433db52984");
        let v7 = "01932f5e-7c3b-7000-8000-000000000001";
        assert_eq!(
            message("default", "d:alice:bob", "alice", "phone", v7),
            "01932f5e7c3b32d92921c000a8093a8d"
        );
    }

    #[test]
    fn users_of_a_direct_conversation_may_be_in_any_order() {
        for id in ["d:alice:bob", "d:bob:alice"] {
            let parsed = Conversation::parse(id).unwrap();
            assert_eq!(parsed.to_string(), "d:alice:bob");
            assert_eq!(parsed.direct_members().collect::<Vec<_>>(), ["alice", "bob"]);
            assert_eq!(parsed.has_direct_member("carol"), Some(false));
        }
        let own = Conversation::parse("d:alice:alice").unwrap();
        assert_eq!(own.direct_members().collect::<Vec<_>>(), ["alice"]);
    }

    #[test]
    fn p8_ids_are_safe_in_paths_and_differ_in_case() {
        for id in ["a", "Alice", "...", ".a", "a.", "a_b-c.d", &"x".repeat(MAX_ID)] {
            check_id("user", id).unwrap();
        }
        for id in ["", ".", "..", "a b", "a/b", "alice ", "\u{e9}", "a\0", &"x".repeat(MAX_ID + 1)] {
            let error = check_id("user", id).unwrap_err();
            assert!(error.message.starts_with("user must be 1 to 64 ASCII letters"), "{}", error.message);
        }
        assert_ne!(direct("alice", "bob"), direct("Alice", "bob"));
    }

    #[test]
    fn other_texts_are_not_conversations_and_some_are_reserved() {
        for id in [
            "", "d:", "d:a", "d:a:", "d:a:b:c", "g:", "g:a:b", "x:a", "d:a:b c", "g:\u{e9}", "D:a:b",
            "d:a:..", "g:.",
        ] {
            assert!(Conversation::parse(id).is_err(), "{id}");
        }
        for id in ["r:room", "t:thread", "u:alice"] {
            let error = Conversation::parse(id).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            assert!(error.message.contains("reserved"), "{}", error.message);
        }
    }

    proptest! {
        #[test]
        fn message_ids_differ_if_any_part_differs(a in "[ -~]{1,8}", b in "[ -~]{1,8}", c in "[ -~]{1,8}") {
            let id = message("app", &a, &b, "d", &c);
            prop_assert_eq!(hex(&message_bytes(&id).unwrap()), id.clone());
            prop_assert_ne!(&id, &message("app", &format!("{a}{b}"), "", "d", &c));
            prop_assert_ne!(&id, &message("other", &a, &b, "d", &c));
        }

        #[test]
        fn uuidv7_keys_give_ordered_ids(early in 0u64..1 << 47, late in 1u64..1 << 46) {
            let v7 = |ms: u64| uuid::Builder::from_unix_timestamp_millis(ms, &[7; 10]).into_uuid().to_string();
            prop_assert!(message("a", "c", "s", "d", &v7(early)) < message("a", "c", "s", "d", &v7(early + late)));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            let _ = Conversation::parse(&text);
            let _ = message_bytes(&text);
            let _ = message("a", &text, &text, &text, &text);
        }
    }
}
