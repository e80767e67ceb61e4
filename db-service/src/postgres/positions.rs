//! The positions in the partitions of the log.

use crate::{
    error::Result,
    position::{Batch, LogPartition},
    statements::positions as sql,
};
use sqlx::{AssertSqlSafe, PgConnection};
use std::ops::Range;

/// The offsets of a partition that are decided.
async fn decided(
    conn: &mut PgConnection,
    partition: &LogPartition,
    lock: &str,
) -> Result<Option<Range<i64>>> {
    let select = sqlx::query_as(AssertSqlSafe(format!("{} {lock}", sql::DECIDED)));
    let found: Option<(i64, i64)> =
        select.bind(&partition.topic).bind(partition.number).fetch_optional(conn).await?;
    Ok(found.map(|(first, next)| first..next))
}

/// The position in a partition.
pub(super) async fn position(conn: &mut PgConnection, partition: &LogPartition) -> Result<Option<i64>> {
    Ok(decided(conn, partition, "").await?.map(|decided| decided.end))
}

/// Locks the position of a partition until the end of the transaction. Returns the offsets that are decided.
pub(super) async fn lock(conn: &mut PgConnection, partition: &LogPartition) -> Result<Option<Range<i64>>> {
    decided(conn, partition, "FOR NO KEY UPDATE").await
}

/// Raises the position to the end of a batch.
pub(super) async fn raise(conn: &mut PgConnection, batch: &Batch) -> Result<()> {
    sqlx::query(sql::RAISE)
        .bind(&batch.partition.topic)
        .bind(batch.partition.number)
        .bind(batch.range.start)
        .bind(batch.range.end)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets the position in a partition.
pub(super) async fn forget(conn: &mut PgConnection, partition: &LogPartition) -> Result<()> {
    sqlx::query(sql::FORGET).bind(&partition.topic).bind(partition.number).execute(conn).await?;
    Ok(())
}
