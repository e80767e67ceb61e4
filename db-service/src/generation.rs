//! Generations of the data: how devices learn that the data were restored from a backup or moved.
//!
//! A backup lacks the entries that devices received after it was made. After a restore, their `conversation_seq`s are assigned to
//! other entries, and a device that kept its positions would skip those. Therefore restored data begin a new generation, and
//! each conversation records the last `conversation_seq` that it had at that time (`kept`). A device from the previous
//! generation goes back to that position. A device from any other generation starts from the beginning.

/// A random generation other than `previous` and 0. Generation 0 is that of data which were never restored.
pub(crate) fn next(previous: i64) -> i64 {
    loop {
        // The protocol has 32 bits for it.
        let next = i64::from(rand::random::<u32>());
        if next != 0 && next != previous {
            return next;
        }
    }
}

/// Converts a column to the type of the protocol.
pub(crate) fn from_column(column: i64) -> u32 {
    u32::try_from(column).unwrap_or_default()
}
