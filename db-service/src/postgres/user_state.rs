//! The users' own state: lists of conversations, settings, blocks, profiles.

use super::history::column;
use crate::{
    error::{Error, Result},
    statements::{reads, users as sql},
    store::Listed,
    user_state::{MAX_BLOCKS, no_such_user, profile_column, profile_from_column, too_many_blocks},
};
use abi::v1::{Block, ConversationSettings, Profile, SetSettings};
use sqlx::{Connection as _, PgConnection};
use std::collections::{HashMap, HashSet};

/// Parameters: app, users.
const EXISTING: &str = "SELECT user_id FROM users WHERE app = $1 AND user_id = ANY($2)";

/// Parameters: app, users.
const PROFILES: &str = "SELECT u.user_id, (
      SELECT p.profile FROM profiles p WHERE p.app = u.app AND p.user_id = u.user_id
    ) FROM users u WHERE u.app = $1 AND u.user_id = ANY($2)";

/// Parameters: app, user, conversations.
const SETTINGS: &str = "SELECT id, muted_until_ms, pinned, archived, marked_unread, draft FROM settings
    WHERE app = $1 AND user_id = $2 AND id = ANY($3)";

/// Locks the account of a user, so that concurrent blocks are counted one after the other. Parameters: app, user.
const LOCK_USER: &str = "SELECT user_id FROM users WHERE app = $1 AND user_id = $2 FOR NO KEY UPDATE";

/// Parameters: app, the user who may be blocked, users.
const BLOCKERS: &str = "SELECT user_id FROM blocks WHERE app = $1 AND blocked = $2 AND user_id = ANY($3)";

/// A page of the conversations of a user, newest first.
pub(super) async fn inbox(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    after: Option<&Listed>,
    limit: usize,
) -> Result<Vec<Listed>> {
    let (time, id) = after.map_or((i64::MAX, ""), |after| (after.last_sent_at_ms, &after.conversation));
    let select = sqlx::query_as(reads::INBOX).bind(app).bind(user).bind(time).bind(id).bind(column(limit));
    let rows: Vec<(String, i64)> = select.fetch_all(conn).await?;
    let listed = |(conversation, last_sent_at_ms)| Listed { last_sent_at_ms, conversation };
    Ok(rows.into_iter().map(listed).collect())
}

/// Those of the users who have an account.
pub(super) async fn existing(
    conn: &mut PgConnection,
    app: &str,
    users: Vec<String>,
) -> Result<HashSet<String>> {
    let users: Vec<String> = sqlx::query_scalar(EXISTING).bind(app).bind(users).fetch_all(conn).await?;
    Ok(users.into_iter().collect())
}

/// The profiles of those users who have an account, in the order of `users`.
pub(super) async fn profiles(conn: &mut PgConnection, app: &str, users: &[String]) -> Result<Vec<Profile>> {
    let select = sqlx::query_as(PROFILES).bind(app).bind(users);
    let rows: Vec<(String, Option<Vec<u8>>)> = select.fetch_all(conn).await?;
    let found: HashMap<_, _> = rows.into_iter().collect();
    let profile = |user: &String| Some(profile_from_column(user.clone(), found.get(user)?.as_deref()));
    users.iter().filter_map(profile).collect()
}

/// `false`: there is no such user.
pub(super) async fn replace_profile(conn: &mut PgConnection, app: &str, profile: &Profile) -> Result<bool> {
    let replace = sqlx::query(sql::REPLACE_PROFILE).bind(profile_column(profile)).bind(app);
    Ok(replace.bind(&profile.user).execute(conn).await?.rows_affected() == 1)
}

/// A row of settings: the conversation, and the settings in the order of their fields.
type SettingsRow = (String, i64, bool, bool, bool, String);

fn settings_from_row(row: SettingsRow) -> (String, ConversationSettings) {
    let (id, muted_until_ms, pinned, archived, marked_unread, draft) = row;
    (id, ConversationSettings { muted_until_ms, pinned, archived, marked_unread, draft })
}

/// The settings of those conversations that have any.
pub(super) async fn settings(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    conversations: Vec<String>,
) -> Result<HashMap<String, ConversationSettings>> {
    let select = sqlx::query_as(SETTINGS).bind(app).bind(user).bind(conversations);
    let rows: Vec<SettingsRow> = select.fetch_all(conn).await?;
    Ok(rows.into_iter().map(settings_from_row).collect())
}

/// Changes settings and returns all of the conversation.
pub(super) async fn change_settings(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    change: &SetSettings,
) -> Result<ConversationSettings> {
    let row: SettingsRow = sqlx::query_as(sql::CHANGE_SETTINGS)
        .bind(app)
        .bind(user)
        .bind(&change.conversation)
        .bind(change.muted_until_ms)
        .bind(change.pinned)
        .bind(change.archived)
        .bind(change.marked_unread)
        .bind(&change.draft)
        .fetch_one(conn)
        .await?;
    Ok(settings_from_row(row).1)
}

/// Blocks or unblocks a user. One attempt.
pub(super) async fn change_block(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    block: &Block,
) -> Result<()> {
    let other = block.user.as_str();
    if !block.blocked {
        sqlx::query(sql::DELETE_BLOCK).bind(app).bind(user).bind(other).execute(conn).await?;
        return Ok(());
    }
    let mut tx = conn.begin().await?;
    sqlx::query(LOCK_USER).bind(app).bind(user).execute(&mut *tx).await?;
    let exists = sqlx::query(sql::USER_EXISTS).bind(app).bind(other).fetch_optional(&mut *tx).await?;
    if exists.is_none() {
        return Err(Error::ApiError(no_such_user()));
    }
    let count = sqlx::query_scalar(sql::COUNT_BLOCKS).bind(app).bind(user).bind(other);
    if count.fetch_one(&mut *tx).await.map(|blocks: i64| blocks >= MAX_BLOCKS)? {
        return Err(Error::ApiError(too_many_blocks()));
    }
    sqlx::query(sql::INSERT_BLOCK).bind(app).bind(user).bind(other).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// The users whom a user has blocked.
pub(super) async fn blocks(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<String>> {
    let select = sqlx::query_scalar(sql::BLOCKS).bind(app).bind(user).bind(after).bind(column(limit));
    Ok(select.fetch_all(conn).await?)
}

/// Those of the users `by` who have blocked `blocked`.
pub(super) async fn blockers(
    conn: &mut PgConnection,
    app: &str,
    blocked: &str,
    by: Vec<String>,
) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(BLOCKERS).bind(app).bind(blocked).bind(by).fetch_all(conn).await?)
}
