//! The users' own state: lists of conversations, settings, blocks, profiles.

use crate::{
    error::{Error, Result},
    statements::{reads, users as sql},
    store::Listed,
    user_state::{MAX_BLOCKS, no_such_user, profile_column, profile_from_column, too_many_blocks},
};
use abi::v1::{Block, ConversationSettings, Profile, SetSettings};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::{HashMap, HashSet};

/// Parameters: app, user, conversation.
const SETTINGS: &str = "SELECT id, muted_until_ms, pinned, archived, marked_unread, draft FROM settings
    WHERE app = $1 AND user_id = $2 AND id = $3";

/// A page of the conversations of a user, newest first.
pub(super) fn inbox(
    conn: &Connection,
    app: &str,
    user: &str,
    after: Option<&Listed>,
    limit: usize,
) -> Result<Vec<Listed>> {
    let (time, id) = after.map_or((i64::MAX, ""), |after| (after.last_sent_at_ms, &after.conversation));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(reads::INBOX)?;
    let rows = select.query_map(params![app, user, time, id, limit], |row| {
        Ok(Listed { conversation: row.get(0)?, last_sent_at_ms: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Those of the users who have an account.
pub(super) fn existing(conn: &Connection, app: &str, users: Vec<String>) -> Result<HashSet<String>> {
    let mut select = conn.prepare_cached(sql::USER_EXISTS)?;
    let mut existing = HashSet::new();
    for user in users {
        if select.exists([app, &user])? {
            existing.insert(user);
        }
    }
    Ok(existing)
}

/// The profiles of those users who have an account, in the order of `users`.
pub(super) fn profiles(conn: &Connection, app: &str, users: &[String]) -> Result<Vec<Profile>> {
    let mut select = conn.prepare_cached(
        "SELECT p.profile FROM users u LEFT JOIN profiles p ON p.app = u.app AND p.user_id = u.user_id
         WHERE u.app = $1 AND u.user_id = $2",
    )?;
    let mut profiles = Vec::with_capacity(users.len());
    for user in users {
        let found: Option<Option<Vec<u8>>> = select.query_row([app, user], |row| row.get(0)).optional()?;
        if let Some(column) = found {
            profiles.push(profile_from_column(user.clone(), column.as_deref())?);
        }
    }
    Ok(profiles)
}

/// `false`: there is no such user.
pub(super) fn replace_profile(conn: &Connection, app: &str, profile: &Profile) -> Result<bool> {
    let mut replace = conn.prepare_cached(sql::REPLACE_PROFILE)?;
    Ok(replace.execute(params![profile_column(profile), app, profile.user])? == 1)
}

/// The settings of those conversations that have any.
pub(super) fn settings(
    conn: &Connection,
    app: &str,
    user: &str,
    conversations: Vec<String>,
) -> Result<HashMap<String, ConversationSettings>> {
    let mut select = conn.prepare_cached(SETTINGS)?;
    let mut settings = HashMap::new();
    for conversation in conversations {
        if let Some(found) = select.query_row([app, user, &conversation], settings_row).optional()? {
            settings.insert(conversation, found);
        }
    }
    Ok(settings)
}

/// Changes settings and returns all of the conversation.
pub(super) fn change_settings(
    conn: &Connection,
    app: &str,
    user: &str,
    change: &SetSettings,
) -> Result<ConversationSettings> {
    let mut upsert = conn.prepare_cached(sql::CHANGE_SETTINGS)?;
    let row = params![
        app,
        user,
        change.conversation,
        change.muted_until_ms,
        change.pinned,
        change.archived,
        change.marked_unread,
        change.draft,
    ];
    Ok(upsert.query_row(row, settings_row)?)
}

fn settings_row(row: &Row<'_>) -> rusqlite::Result<ConversationSettings> {
    Ok(ConversationSettings {
        muted_until_ms: row.get(1)?,
        pinned: row.get(2)?,
        archived: row.get(3)?,
        marked_unread: row.get(4)?,
        draft: row.get(5)?,
    })
}

/// Blocks or unblocks a user.
pub(super) fn change_block(conn: &Connection, app: &str, user: &str, block: &Block) -> Result<()> {
    let other = block.user.as_str();
    if !block.blocked {
        conn.prepare_cached(sql::DELETE_BLOCK)?.execute([app, user, other])?;
        return Ok(());
    }
    if !conn.prepare_cached(sql::USER_EXISTS)?.exists([app, other])? {
        return Err(Error::ApiError(no_such_user()));
    }
    let mut count = conn.prepare_cached(sql::COUNT_BLOCKS)?;
    if count.query_row([app, user, other], |row| row.get::<_, i64>(0))? >= MAX_BLOCKS {
        return Err(Error::ApiError(too_many_blocks()));
    }
    conn.prepare_cached(sql::INSERT_BLOCK)?.execute([app, user, other])?;
    Ok(())
}

/// The users whom a user has blocked.
pub(super) fn blocks(
    conn: &Connection,
    app: &str,
    user: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<String>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(sql::BLOCKS)?;
    let rows = select.query_map(params![app, user, after, limit], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Those of the users `by` who have blocked `blocked`.
pub(super) fn blockers(conn: &Connection, app: &str, blocked: &str, by: Vec<String>) -> Result<Vec<String>> {
    let mut select =
        conn.prepare_cached("SELECT 1 FROM blocks WHERE app = $1 AND user_id = $2 AND blocked = $3")?;
    let mut found = Vec::new();
    for user in by {
        if select.exists([app, &user, blocked])? {
            found.push(user);
        }
    }
    Ok(found)
}
