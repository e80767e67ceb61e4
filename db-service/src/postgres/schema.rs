//! The schema, brought up to date by whichever instance comes first.

use crate::error::{Error, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};

/// In order; the schema's version is how many of them were applied. Only ever added to, and each such that the release
/// before still works with it: instances of both run during a deploy.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/postgres/0001_begin.sql")];

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
    let missing = MIGRATIONS.get(applied..).ok_or(Error::TooNew { found, known })?;
    for migration in missing {
        raw_sql(*migration).execute(&mut *tx).await?;
    }
    if !missing.is_empty() {
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)").bind(known).execute(&mut *tx).await?;
        tracing::info!(schema, from = found, to = known, "the schema was brought up to date");
    }
    tx.commit().await?;
    Ok(())
}
