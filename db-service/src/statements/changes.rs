//! SQL for changes of entries and of members, which PostgreSQL and SQLite both execute. See the rule for parameters in the parent.

/// Parameters: app, conversation.
pub(crate) const CONVERSATION: &str =
    "SELECT key, head, countable, shown, last_sent_at_ms FROM conversations WHERE app = $1 AND id = $2";

/// Parameters: key of the conversation, message id.
pub(crate) const ENTRY_SEQS: &str =
    "SELECT seq, countable, coalesce(target_seq, 0) FROM entries WHERE conversation = $1 AND message_id = $2";

/// Parameters: key of the conversation, `conversation_seq`.
pub(crate) const ENTRY_PAYLOAD: &str = "SELECT payload FROM entries WHERE conversation = $1 AND seq = $2";

/// Parameters: key of the conversation, `conversation_seq`, `countable_seq`, time, target, whether it is countable, message id,
/// sender, kind, payload.
pub(crate) const INSERT_ENTRY: &str = "INSERT INTO entries
    (conversation, seq, countable, sent_at_ms, target_seq, counts, message_id, sender, kind, payload)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Parameters: key of the conversation, user. Only current members.
pub(crate) const ROLE: &str =
    "SELECT role, visible_from FROM members WHERE conversation = $1 AND user_id = $2 AND role > 0";

/// Parameters: app, conversation. One statement, so that the members belong to the version. A group without members has one
/// row, in which the columns of the member are NULL.
pub(crate) const GROUP: &str = "SELECT c.members_version, c.history, m.user_id, m.role, m.visible_from
    FROM conversations c LEFT JOIN members m ON m.conversation = c.key AND m.role > 0
    WHERE c.app = $1 AND c.id = $2 ORDER BY m.joined";

/// Parameters: key of the conversation, `conversation_seq` of a group change. The users who are not members any more because of it.
pub(crate) const REMOVED: &str =
    "SELECT user_id FROM members WHERE conversation = $1 AND visible_until = $2 ORDER BY joined";

/// Parameters: user, key of the conversation, message id. The entry that a change refers to, and whether it lies in an absence of
/// the user.
pub(crate) const TARGET: &str = "SELECT e.seq, e.sender, e.sent_at_ms, e.kind, e.counts, EXISTS (
      SELECT 1 FROM absences a
      WHERE a.conversation = e.conversation AND a.user_id = $1 AND a.after_seq < e.seq AND a.before_seq > e.seq)
    FROM entries e WHERE e.conversation = $2 AND e.message_id = $3";

/// Parameters: key of the conversation, `conversation_seq`.
pub(crate) const STATE: &str =
    "SELECT changed_seq, edits, edited_at_ms, edit_seq, recalled_seq, recalled_by, reactions
    FROM entry_states WHERE conversation = $1 AND seq = $2";

/// Parameters: key of the conversation, `conversation_seq`, then the columns of [`STATE`].
pub(crate) const REPLACE_STATE: &str = "INSERT INTO entry_states
    (conversation, seq, changed_seq, edits, edited_at_ms, edit_seq, recalled_seq, recalled_by, reactions)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (conversation, seq) DO UPDATE SET changed_seq = excluded.changed_seq, edits = excluded.edits,
      edited_at_ms = excluded.edited_at_ms, edit_seq = excluded.edit_seq, recalled_seq = excluded.recalled_seq,
      recalled_by = excluded.recalled_by, reactions = excluded.reactions";

/// Parameters: key of the conversation, `conversation_seq`, user.
pub(crate) const OWN_REACTIONS: &str =
    "SELECT reactions FROM reactions WHERE conversation = $1 AND target_seq = $2 AND user_id = $3";

/// Parameters: key of the conversation, `conversation_seq`, user, reactions.
pub(crate) const REPLACE_REACTIONS: &str =
    "INSERT INTO reactions (conversation, target_seq, user_id, reactions) VALUES ($1, $2, $3, $4)
    ON CONFLICT (conversation, target_seq, user_id) DO UPDATE SET reactions = excluded.reactions";

/// Parameters: key of the conversation, `conversation_seq`, user.
pub(crate) const DELETE_REACTIONS: &str =
    "DELETE FROM reactions WHERE conversation = $1 AND target_seq = $2 AND user_id = $3";

/// A countable entry was recalled: it does not count as unread for those who see it and have not read it. Its author is left out,
/// because own entries never count. Parameters: key of the conversation, `conversation_seq` of the entry, its author.
pub(crate) const EXCLUDE_RECALLED: &str = "UPDATE members SET excluded = excluded + 1
    WHERE conversation = $1 AND read_seq < $2 AND visible_from <= $2 AND coalesce(visible_until, $2) >= $2
      AND user_id <> $3 AND NOT EXISTS (
        SELECT 1 FROM absences a WHERE a.conversation = members.conversation AND a.user_id = members.user_id
          AND a.after_seq < $2 AND a.before_seq > $2)";

/// Parameters: role, key of the conversation, user.
pub(crate) const UPDATE_ROLE: &str = "UPDATE members SET role = $1 WHERE conversation = $2 AND user_id = $3";

/// Parameters: name, key of the conversation.
pub(crate) const RENAME: &str = "UPDATE conversations SET name = $1 WHERE key = $2";
