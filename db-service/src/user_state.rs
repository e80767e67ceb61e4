//! The users' own state: checks of settings, profiles and blocks, and the column of a profile.

use crate::error::Error;
use abi::{
    ApiError, MAX_USER_NAME,
    error::{ErrorCode, quoted},
    ids, names,
    v1::{Block, PresencePrivacy, Profile, SetSettings},
};
use prost::Message as _;

/// Longest draft, in bytes.
const MAX_DRAFT: usize = 4096;
/// The greatest time that JavaScript can hold exactly, in milliseconds: muted for ever.
const FOR_EVER_MS: i64 = (1 << 53) - 1;
/// Longest address of a picture, in bytes.
const MAX_AVATAR_URL: usize = 1024;
/// Most fields of a profile.
const MAX_FIELDS: usize = 16;
/// Longest name of a field, in characters.
const MAX_FIELD_NAME: usize = 64;
/// Longest value of a field, in bytes.
const MAX_FIELD_VALUE: usize = 512;
/// Most users whom a user can block.
pub(crate) const MAX_BLOCKS: i64 = 1_000;

/// Checks a change of settings.
///
/// # Errors
/// `INVALID_REQUEST` with the field and its limit.
pub(crate) fn check_settings(change: &SetSettings) -> Result<(), ApiError> {
    if let Some(until) = change.muted_until_ms.filter(|until| !(0..=FOR_EVER_MS).contains(until)) {
        return Err(ApiError::invalid(format!("muted_until_ms must be 0 to {FOR_EVER_MS}, got {until}")));
    }
    let Some(draft) = &change.draft else { return Ok(()) };
    if draft.len() > MAX_DRAFT {
        let length = draft.len();
        return Err(ApiError::invalid(format!("draft has {length} bytes; at most {MAX_DRAFT} are allowed")));
    }
    check_nul("draft", draft)
}

/// Checks a profile.
///
/// # Errors
/// `INVALID_REQUEST` with the field and its limit.
pub(crate) fn check_profile(profile: &Profile) -> Result<(), ApiError> {
    ids::check_id("user", &profile.user)?;
    if !profile.name.is_empty() {
        names::check("name", &profile.name, MAX_USER_NAME)?;
    }
    if !profile.avatar_url.is_empty() {
        check_address(&profile.avatar_url)?;
    }
    if profile.custom.len() > MAX_FIELDS {
        let count = profile.custom.len();
        return Err(ApiError::invalid(format!(
            "custom has {count} fields; at most {MAX_FIELDS} are allowed"
        )));
    }
    for (name, value) in &profile.custom {
        let length = name.chars().count();
        if length == 0 || length > MAX_FIELD_NAME || name.chars().any(char::is_control) {
            return Err(ApiError::invalid(format!(
                "custom has a field name of {length} characters: it must have 1 to {MAX_FIELD_NAME}, without control characters"
            )));
        }
        if value.len() > MAX_FIELD_VALUE {
            let length = value.len();
            return Err(ApiError::invalid(format!(
                "custom.{name} has {length} bytes; at most {MAX_FIELD_VALUE} are allowed"
            )));
        }
        check_nul(&format!("custom.{name}"), value)?;
    }
    if PresencePrivacy::try_from(profile.privacy).is_err() {
        let privacy = profile.privacy;
        return Err(ApiError::invalid(format!(
            "privacy is {privacy}; it must be PRESENCE_PRIVACY_EVERYONE or PRESENCE_PRIVACY_NOBODY"
        )));
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), ApiError> {
    if address.len() > MAX_AVATAR_URL {
        let length = address.len();
        return Err(ApiError::invalid(format!(
            "avatar_url has {length} bytes; at most {MAX_AVATAR_URL} are allowed"
        )));
    }
    let is_web = address.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if is_web {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "avatar_url must be an address that begins with https:// or http://, got {}",
        quoted(address)
    )))
}

/// Checks that a user may block another one, or end a block.
///
/// # Errors
/// `INVALID_REQUEST`: the id is not valid, or the users are the same.
pub(crate) fn check_block(user: &str, block: &Block) -> Result<(), ApiError> {
    ids::check_id("user", &block.user)?;
    if block.user == user {
        return Err(ApiError::invalid(format!("user is {user}: you can't block yourself")));
    }
    Ok(())
}

/// The error of a request about a user without an account.
pub(crate) fn no_such_user() -> ApiError {
    ApiError::not_found("there is no such user")
}

/// The column of a profile: the encoded profile without its user.
pub(crate) fn profile_column(profile: &Profile) -> Vec<u8> {
    Profile { user: String::new(), ..profile.clone() }.encode_to_vec()
}

/// The profile of a user. `column` is `None` if the user has set none.
///
/// # Errors
/// The column is corrupt.
pub(crate) fn profile_from_column(user: String, column: Option<&[u8]>) -> Result<Profile, Error> {
    let profile = Profile::decode(column.unwrap_or_default()).map_err(|_| Error::Corrupt("a profile"))?;
    Ok(Profile { user, ..profile })
}

/// The error of a user who has blocked as many users as possible.
pub(crate) fn too_many_blocks() -> ApiError {
    ApiError::new(
        ErrorCode::TooLarge,
        format!("you have blocked {MAX_BLOCKS} users, which is the limit; unblock one first"),
    )
}

fn check_nul(field: &str, text: &str) -> Result<(), ApiError> {
    if text.contains('\0') {
        return Err(ApiError::invalid(format!("{field} must not contain the character NUL")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Profile);

    fn profile() -> Profile {
        Profile {
            user: "a".into(),
            name: "é".repeat(MAX_USER_NAME),
            avatar_url: format!("https://example.org/{}", "x".repeat(MAX_AVATAR_URL - 20)),
            custom: (0..MAX_FIELDS).map(|n| (format!("{n:064}"), "v".repeat(MAX_FIELD_VALUE))).collect(),
            privacy: 2,
        }
    }

    #[test]
    fn profiles_beyond_a_limit_are_refused() {
        check_profile(&profile()).unwrap();
        check_profile(&Profile { user: "a".into(), ..Profile::default() }).unwrap();
        let changes: [(&str, Change); 15] = [
            ("user", |profile| profile.user = "a b".into()),
            ("name", |profile| profile.name.push('x')),
            ("name", |profile| profile.name = "a\0".into()),
            ("name", |profile| profile.name = "a\u{202e}b".into()),
            ("name", |profile| profile.name = "\u{200b}".into()),
            ("avatar_url", |profile| profile.avatar_url.push('x')),
            ("avatar_url", |profile| profile.avatar_url = "javascript:alert(1)".into()),
            ("avatar_url", |profile| profile.avatar_url = "https://".into()),
            ("avatar_url", |profile| profile.avatar_url = "http://a b/".into()),
            ("avatar_url", |profile| profile.avatar_url = "/picture.png".into()),
            ("custom", |profile| drop(profile.custom.insert("one".into(), String::new()))),
            ("custom", |profile| profile.custom = [(String::new(), String::new())].into()),
            ("custom.x", |profile| profile.custom = [("x".into(), "v".repeat(513))].into()),
            ("custom.x", |profile| profile.custom = [("x".into(), "\0".into())].into()),
            ("privacy", |profile| profile.privacy = 9),
        ];
        for (field, change) in changes {
            let mut profile = profile();
            change(&mut profile);
            let error = check_profile(&profile).unwrap_err();
            assert!(error.message.starts_with(field), "{field}: {}", error.message);
        }
    }

    #[test]
    fn settings_beyond_a_limit_are_refused() {
        let valid = SetSettings {
            conversation: "d:a:b".into(),
            muted_until_ms: Some(FOR_EVER_MS),
            draft: Some("x".repeat(MAX_DRAFT)),
            ..SetSettings::default()
        };
        check_settings(&valid).unwrap();
        for invalid in [
            SetSettings { muted_until_ms: Some(-1), ..valid.clone() },
            SetSettings { muted_until_ms: Some(FOR_EVER_MS + 1), ..valid.clone() },
            SetSettings { draft: Some("x".repeat(MAX_DRAFT + 1)), ..valid.clone() },
            SetSettings { draft: Some("\0".into()), ..valid.clone() },
        ] {
            check_settings(&invalid).unwrap_err();
        }
    }

    #[test]
    fn users_cannot_block_themselves() {
        check_block("a", &Block { user: "b".into(), blocked: true }).unwrap();
        check_block("a", &Block { user: "a".into(), blocked: true }).unwrap_err();
        check_block("a", &Block { user: String::new(), blocked: true }).unwrap_err();
    }
}
