//! The schema, brought up to date by whichever instance comes first.

use crate::error::{Error, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};

/// In order; the schema's version is how many of them were applied. Only ever added to, and each such that the release
/// before still works with it: instances of both run during a deploy.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_begin.sql"),
    include_str!("../../migrations/postgres/0002_generation.sql"),
];

/// Programs that know this version work with the schema of this release. It may fall behind by the migrations of one
/// release: those that took away what the release before needs. (Those that know only version 1 never ask: they refuse every
/// other one when they start.)
const OLDEST: i64 = 2;

/// Applies what is missing. All of it is one transaction under a lock, so instances that start at once wait for the first.
pub(super) async fn migrate(conn: &mut PgConnection, schema: &str) -> Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('godwit migrations ' || $1, 0))")
        .bind(schema)
        .execute(&mut *tx)
        .await?;
    // Asked first, because making a schema needs a right that a service may not have once it is there.
    let exists: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(format!("\"{schema}\""))
        .fetch_one(&mut *tx)
        .await?;
    if !exists {
        // The configuration allows lower-case letters, digits and '_' only.
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{schema}\""))).execute(&mut *tx).await?;
    }
    raw_sql("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)").execute(&mut *tx).await?;
    let found: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_version")
        .fetch_one(&mut *tx)
        .await?;
    let known = i64::try_from(MIGRATIONS.len()).expect("a handful of migrations");
    let applied = usize::try_from(found).map_err(|_| Error::Damaged("the schema's version"))?;
    let Some(missing) = MIGRATIONS.get(applied..) else {
        return is_compatible(&mut tx, found, known).await;
    };
    for migration in missing {
        raw_sql(*migration).execute(&mut *tx).await?;
    }
    if !missing.is_empty() {
        let insert = sqlx::query("INSERT INTO schema_version (version, oldest) VALUES ($1, $2)");
        insert.bind(known).bind(OLDEST).execute(&mut *tx).await?;
        tracing::info!(schema, from = found, to = known, "the schema was brought up to date");
    }
    tx.commit().await?;
    Ok(())
}

/// Whether a schema of a newer release still serves this one: that release says so in the row of its version.
async fn is_compatible(conn: &mut PgConnection, found: i64, known: i64) -> Result<()> {
    let oldest: i64 = sqlx::query_scalar(
        "SELECT coalesce(oldest, version) FROM schema_version ORDER BY version DESC LIMIT 1",
    )
    .fetch_one(conn)
    .await?;
    if oldest > known {
        return Err(Error::TooNew { found, known });
    }
    tracing::info!(found, known, "the schema is of a newer release, which serves this one too");
    Ok(())
}

/// Refuses a schema that is not that of this release, without changing anything.
pub(super) async fn check_version(conn: &mut PgConnection) -> Result<()> {
    let known = i64::try_from(MIGRATIONS.len()).expect("a handful of migrations");
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('schema_version') IS NOT NULL").fetch_one(&mut *conn).await?;
    if !exists {
        return Err(Error::NoData);
    }
    let found: i64 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_version").fetch_one(conn).await?;
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(Error::TooOld { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::TooNew { found, known }),
    }
}
