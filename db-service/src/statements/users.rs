//! The users' own state.

/// Parameters: app, user.
pub(crate) const USER_EXISTS: &str = "SELECT 1 FROM users WHERE app = $1 AND user_id = $2";

/// Parameters: profile, app, user. Changes no row if there is no such user.
pub(crate) const REPLACE_PROFILE: &str = "INSERT INTO profiles (app, user_id, profile)
    SELECT u.app, u.user_id, $1 FROM users u WHERE u.app = $2 AND u.user_id = $3
    ON CONFLICT (app, user_id) DO UPDATE SET profile = excluded.profile";

/// Parameters: app, user, conversation, then the settings; NULL leaves one as it is.
pub(crate) const CHANGE_SETTINGS: &str =
    "INSERT INTO settings (app, user_id, id, muted_until_ms, pinned, archived, marked_unread, draft)
    VALUES ($1, $2, $3, coalesce($4, 0), coalesce($5, false), coalesce($6, false), coalesce($7, false), coalesce($8, ''))
    ON CONFLICT (app, user_id, id) DO UPDATE SET muted_until_ms = coalesce($4, settings.muted_until_ms),
      pinned = coalesce($5, settings.pinned), archived = coalesce($6, settings.archived),
      marked_unread = coalesce($7, settings.marked_unread), draft = coalesce($8, settings.draft)
    RETURNING id, muted_until_ms, pinned, archived, marked_unread, draft";

/// The users whom a user has blocked, except one. Parameters: app, user, the other user.
pub(crate) const COUNT_BLOCKS: &str =
    "SELECT count(*) FROM blocks WHERE app = $1 AND user_id = $2 AND blocked <> $3";

/// Parameters: app, user, the other user.
pub(crate) const INSERT_BLOCK: &str =
    "INSERT INTO blocks (app, user_id, blocked) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Parameters: app, user, the other user.
pub(crate) const DELETE_BLOCK: &str = "DELETE FROM blocks WHERE app = $1 AND user_id = $2 AND blocked = $3";

/// Parameters: app, user, the blocked user after whom the page begins, limit.
pub(crate) const BLOCKS: &str = "SELECT blocked FROM blocks WHERE app = $1 AND user_id = $2 AND blocked > $3
    ORDER BY blocked LIMIT $4";
