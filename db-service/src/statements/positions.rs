//! SQL for the positions of the log, which PostgreSQL and SQLite both execute. See the rule for parameters in the parent.

/// How a part of the log changes a position that it overlaps or continues.
macro_rules! raise {
    () => {
        "ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset
         WHERE log_positions.next_offset < excluded.next_offset"
    };
}
#[cfg(feature = "postgres")]
pub(crate) use raise;

/// Parameters: topic, partition. The records that are decided.
pub(crate) const DECIDED: &str =
    "SELECT first_offset, next_offset FROM log_positions WHERE topic = $1 AND partition = $2";

/// Parameters: topic, partition, first and next offset of a part of the log. Only raises the position.
pub(crate) const RAISE: &str = concat!(
    "INSERT INTO log_positions (topic, partition, first_offset, next_offset) VALUES ($1, $2, $3, $4) ",
    raise!()
);

/// Parameters: topic, partition.
pub(crate) const FORGET: &str = "DELETE FROM log_positions WHERE topic = $1 AND partition = $2";
