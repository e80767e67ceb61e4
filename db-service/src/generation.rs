//! Generations of the data: how devices learn that the data were restored from a backup, or moved.
//!
//! A backup is older than what devices have seen. Once it is restored, numbers that were lost with the rest are given to other
//! entries, and a device that believed its old positions would pass over those. So restored data begin a
//! new generation, every conversation remembers the last number that it brought along, and a device that comes from the
//! generation before goes back to that number. One that comes from any other generation begins anew.

/// Another generation than `before`; never 0, which is the one that was never restored.
pub(crate) fn next(before: i64) -> i64 {
    loop {
        // Clients have it in 32 bits.
        let next = i64::from(rand::random::<u32>());
        if next != 0 && next != before {
            return next;
        }
    }
}

/// A generation of a column as the contract has it.
pub(crate) fn contract(column: i64) -> u32 {
    u32::try_from(column).unwrap_or_default()
}
