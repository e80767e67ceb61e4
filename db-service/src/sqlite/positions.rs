//! The positions in the partitions of the log.

use crate::{
    error::Result,
    position::{Batch, LogPartition},
    statements::positions as sql,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::ops::Range;

/// The offsets of a partition that are decided.
pub(super) fn decided(conn: &Connection, partition: &LogPartition) -> Result<Option<Range<i64>>> {
    let mut select = conn.prepare_cached(sql::DECIDED)?;
    let found = select.query_row(params![partition.topic, partition.number], |row| {
        Ok(row.get::<_, i64>(0)?..row.get::<_, i64>(1)?)
    });
    Ok(found.optional()?)
}

/// Raises the position to the end of a batch.
pub(super) fn raise(conn: &Connection, batch: &Batch) -> Result<()> {
    let mut raise = conn.prepare_cached(sql::RAISE)?;
    let (partition, range) = (&batch.partition, &batch.range);
    raise.execute(params![partition.topic, partition.number, range.start, range.end])?;
    Ok(())
}

/// Forgets the position in a partition.
pub(super) fn forget(conn: &Connection, partition: &LogPartition) -> Result<()> {
    conn.prepare_cached(sql::FORGET)?.execute(params![partition.topic, partition.number])?;
    Ok(())
}
