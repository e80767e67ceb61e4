//! SQL that PostgreSQL and SQLite both execute.
//!
//! PostgreSQL binds `$1` by its number. SQLite treats `$1` as a name and numbers the names by their first use. So the
//! parameters of each statement must first appear in the order `$1`, `$2`, ….

pub(crate) mod changes;
pub(crate) mod positions;
pub(crate) mod reads;
pub(crate) mod users;

/// Parameters: app, user, password hash.
pub(crate) const CREATE_USER: &str =
    "INSERT INTO users (app, user_id, password_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Parameters: app, user.
pub(crate) const PASSWORD_HASH: &str = "SELECT password_hash FROM users WHERE app = $1 AND user_id = $2";

/// Parameters: app, user, session.
pub(crate) const SESSION: &str =
    "SELECT id, app, user_id, device, refresh_hash, previous_hash, refresh_number FROM sessions
    WHERE app = $1 AND user_id = $2 AND id = $3";

/// Parameters: app, user, device. Returns the ids of the deleted sessions.
pub(crate) const DELETE_SESSIONS_OF_DEVICE: &str =
    "DELETE FROM sessions WHERE app = $1 AND user_id = $2 AND device = $3 RETURNING id";

/// Parameters: session, app, user, device, refresh hash, previous hash, number of the refresh token.
pub(crate) const INSERT_SESSION: &str =
    "INSERT INTO sessions (id, app, user_id, device, refresh_hash, previous_hash, refresh_number)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Parameters: refresh hash, previous hash, number of the refresh token, app, user, session.
pub(crate) const UPDATE_SESSION: &str =
    "UPDATE sessions SET refresh_hash = $1, previous_hash = $2, refresh_number = $3
    WHERE app = $4 AND user_id = $5 AND id = $6";

/// Parameters: app, user, session.
pub(crate) const DELETE_SESSION: &str = "DELETE FROM sessions WHERE app = $1 AND user_id = $2 AND id = $3";

/// Newest first.
pub(crate) const SIGNING_KEYS: &str = "SELECT id, secret FROM signing_keys ORDER BY slot DESC";

/// Parameters: id, secret.
pub(crate) const INSERT_FIRST_SIGNING_KEY: &str =
    "INSERT INTO signing_keys (slot, id, secret) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";

/// The generation of the data and the previous one.
pub(crate) const GENERATIONS: &str = "SELECT now, before FROM generation";

/// The generation of the data.
pub(crate) const GENERATION: &str = "SELECT now FROM generation";

/// Parameters: the new generation, the previous one.
pub(crate) const UPDATE_GENERATION: &str = "UPDATE generation SET now = $1, before = $2";

/// The first entries of the new generation follow those that exist now.
pub(crate) const UPDATE_KEPT: &str = "UPDATE conversations SET kept = head";
