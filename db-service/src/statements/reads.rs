//! Reads of conversations, and read positions.

/// Whether the countable entry `e` does not count as unread for the member `m`: it is the member's own, recalled, or hidden by an
/// absence. Never NULL.
///
/// These are scalar subqueries because PostgreSQL may execute an `EXISTS` by reading a whole table.
macro_rules! excluded {
    () => {
        "e.counts AND (e.sender = m.user_id
          OR coalesce((SELECT s.recalled_seq FROM entry_states s
            WHERE s.conversation = e.conversation AND s.seq = e.seq), 0) > 0
          OR (SELECT count(*) FROM absences a WHERE a.conversation = e.conversation
            AND a.user_id = m.user_id AND a.after_seq < e.seq AND a.before_seq > e.seq) > 0)"
    };
}
pub(crate) use excluded;

/// Selects heads, with further columns, from the conversations `c` of a user, and ends with the rest of the statement.
macro_rules! head {
    ($more:literal, $from:literal, $user:literal, $rest:literal) => {
        concat!(
            "SELECT c.id, coalesce(m.visible_until, c.head), coalesce(m.left_countable, c.countable), m.read_seq,
              m.read_countable, m.excluded, m.visible_from, m.visible_until, c.name, m.role,
              coalesce(e.sent_at_ms, c.last_sent_at_ms), c.kept,
              e.seq, e.countable, e.message_id, e.kind, e.target_seq, e.payload,
              s.seq, s.changed_seq, s.edits, s.edited_at_ms, s.recalled_by, s.reactions,
              (SELECT edit.payload FROM entries edit WHERE edit.conversation = s.conversation AND edit.seq = s.edit_seq),
              (SELECT mine.reactions FROM reactions mine WHERE mine.conversation = s.conversation
                AND mine.target_seq = s.seq AND mine.user_id = m.user_id)",
            $more,
            " FROM ",
            $from,
            " JOIN members m ON m.conversation = c.key AND m.user_id = ",
            $user,
            " LEFT JOIN entries e ON e.conversation = c.key AND e.seq = coalesce(m.visible_until, c.shown)
              LEFT JOIN entry_states s ON s.conversation = e.conversation AND s.seq = e.seq",
            $rest
        )
    };
}
pub(crate) use head;

/// Selects states with the payload of the last edit that the reader can see, and the reader's reactions. Parameters: last entry that
/// the reader can see, user, key of the conversation.
macro_rules! states {
    ($where:literal) => {
        concat!(
            "SELECT s.seq, s.changed_seq, s.edits, s.edited_at_ms, s.recalled_by, s.reactions,
              (SELECT edit.payload FROM entries edit WHERE edit.conversation = s.conversation AND edit.seq =
                CASE WHEN s.edit_seq <= $1 THEN s.edit_seq ELSE (
                  SELECT max(v.seq) FROM entries v WHERE v.conversation = s.conversation AND v.target_seq = s.seq
                    AND v.kind = 'edit' AND v.seq <= $1) END),
              (SELECT mine.reactions FROM reactions mine WHERE mine.conversation = s.conversation
                AND mine.target_seq = s.seq AND mine.user_id = $2)
            FROM entry_states s WHERE s.conversation = $3 AND ",
            $where,
            " ORDER BY s.seq"
        )
    };
}
pub(crate) use states;

/// Parameters: app, conversation, user. One row per absence, or one in which its columns are NULL.
pub(crate) const VISIBILITY: &str =
    "SELECT m.conversation, m.visible_from, m.visible_until, a.after_seq, a.before_seq
    FROM conversations c JOIN members m ON m.conversation = c.key
    LEFT JOIN absences a ON a.conversation = m.conversation AND a.user_id = m.user_id
    WHERE c.app = $1 AND c.id = $2 AND m.user_id = $3 ORDER BY a.after_seq";

/// A page of a user's conversations, newest first. A former member's conversation has the time of the last visible entry.
/// Parameters: app, user, time and id of the conversation after which the page begins, limit.
pub(crate) const INBOX: &str = "SELECT c.id, coalesce(u.sent_at_ms, c.last_sent_at_ms) AS sent_at_ms
    FROM members m JOIN conversations c ON c.key = m.conversation
    LEFT JOIN entries u ON u.conversation = m.conversation AND u.seq = m.visible_until
    WHERE m.app = $1 AND m.user_id = $2 AND (coalesce(u.sent_at_ms, c.last_sent_at_ms) < $3
      OR (coalesce(u.sent_at_ms, c.last_sent_at_ms) = $3 AND c.id > $4))
    ORDER BY sent_at_ms DESC, c.id LIMIT $5";

/// Parameters: key of the conversation, `conversation_seq`.
pub(crate) const SENDER: &str = "SELECT sender FROM entries WHERE conversation = $1 AND seq = $2";

/// Members who can see an entry. Parameters: its `conversation_seq`, key of the conversation, the user after whom the page begins,
/// its sender, limit.
pub(crate) const READERS: &str = "SELECT m.user_id, m.read_seq >= $1 FROM members m
    WHERE m.conversation = $2 AND m.user_id > $3 AND m.user_id <> $4 AND m.role > 0 AND m.visible_from <= $1
      AND NOT EXISTS (SELECT 1 FROM absences a WHERE a.conversation = m.conversation AND a.user_id = m.user_id
        AND a.after_seq < $1 AND a.before_seq > $1)
    ORDER BY m.user_id LIMIT $5";
