//! SQL that PostgreSQL and SQLite both execute.
//!
//! PostgreSQL binds `$1` by its number. SQLite treats `$1` as a name and numbers the names by their first use. So the
//! parameters of each statement must first appear in the order `$1`, `$2`, ….

/// Parameters: app, user, password hash.
pub(crate) const CREATE_USER: &str =
    "INSERT INTO users (app, user_id, password_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Parameters: app, user.
pub(crate) const PASSWORD_HASH: &str = "SELECT password_hash FROM users WHERE app = $1 AND user_id = $2";

/// Parameters: app, user, session.
pub(crate) const SESSION: &str =
    "SELECT id, app, user_id, device, refresh_hash, previous_hash, refresh_number FROM sessions
    WHERE app = $1 AND user_id = $2 AND id = $3";

/// Parameters: app, user, session.
pub(crate) const SESSION_WITH_GENERATION: &str = "SELECT s.id, s.app, s.user_id, s.device, g.now, g.before
    FROM sessions s CROSS JOIN generation g WHERE s.app = $1 AND s.user_id = $2 AND s.id = $3";

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

/// Parameters: app, user, conversation.
pub(crate) const MEMBER: &str =
    "SELECT conversation, visible_from FROM members WHERE app = $1 AND user_id = $2 AND id = $3";

/// Parameters: app, user, the conversation after which the page begins, limit.
pub(crate) const HEADS: &str =
    "SELECT m.id, c.head, c.countable, m.read_seq, m.read_countable, m.visible_from, c.name, m.role,
      c.last_sent_at_ms, c.kept
    FROM members m JOIN conversations c ON c.key = m.conversation
    WHERE m.app = $1 AND m.user_id = $2 AND m.id > $3 ORDER BY m.id LIMIT $4";

/// Parameters: app, conversation. One statement, so that the members belong to the version. A group without members has one
/// row, in which the columns of the member are NULL.
pub(crate) const GROUP: &str = "SELECT c.members_version, c.history, m.user_id, m.role, m.visible_from
    FROM conversations c LEFT JOIN members m ON m.conversation = c.key
    WHERE c.app = $1 AND c.id = $2 ORDER BY m.joined";

/// Parameters: app, user, conversation.
pub(crate) const READ_POSITION: &str = "SELECT m.conversation, m.read_seq, c.head
    FROM members m JOIN conversations c ON c.key = m.conversation
    WHERE m.app = $1 AND m.user_id = $2 AND m.id = $3";

/// Parameters: app, conversation.
pub(crate) const CONVERSATION: &str =
    "SELECT key, head, countable, last_sent_at_ms FROM conversations WHERE app = $1 AND id = $2";

/// Parameters: key of the conversation, message id.
pub(crate) const ENTRY_SEQS: &str =
    "SELECT seq, countable FROM entries WHERE conversation = $1 AND message_id = $2";

/// Parameters: key of the conversation, `conversation_seq`.
pub(crate) const ENTRY_PAYLOAD: &str = "SELECT payload FROM entries WHERE conversation = $1 AND seq = $2";

/// Parameters: key of the conversation, `conversation_seq`, `countable_seq`, message id, payload.
pub(crate) const INSERT_ENTRY: &str =
    "INSERT INTO entries (conversation, seq, countable, message_id, payload) VALUES ($1, $2, $3, $4, $5)";

/// Parameters: role, app, user, conversation.
pub(crate) const UPDATE_ROLE: &str =
    "UPDATE members SET role = $1 WHERE app = $2 AND user_id = $3 AND id = $4";

/// The generation of the data.
pub(crate) const GENERATION: &str = "SELECT now FROM generation";

/// Parameters: the new generation, the previous one.
pub(crate) const UPDATE_GENERATION: &str = "UPDATE generation SET now = $1, before = $2";

/// The first entries of the new generation follow those that exist now.
pub(crate) const UPDATE_KEPT: &str = "UPDATE conversations SET kept = head";

/// In the order of an export.
pub(crate) const EXPORT_SIGNING_KEYS: &str = "SELECT id, secret FROM signing_keys ORDER BY slot";

/// In the order of an export.
pub(crate) const EXPORT_USERS: &str = "SELECT app, user_id, password_hash FROM users ORDER BY app, user_id";

/// In the order of an export.
pub(crate) const EXPORT_SESSIONS: &str =
    "SELECT id, app, user_id, device, refresh_hash, previous_hash, refresh_number FROM sessions
    ORDER BY app, user_id, id";

/// In the order of an export.
pub(crate) const EXPORT_CONVERSATIONS: &str =
    "SELECT key, app, id, head, countable, members_version, name, history, last_sent_at_ms
    FROM conversations ORDER BY app, id";
