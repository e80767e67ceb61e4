//! Migration of the schema.
//!
//! This is not sqlx's migrator, for three reasons. All missing migrations and the new version are one transaction here. An older
//! release must learn from `schema_version.oldest` whether it can work with a newer schema during a rolling upgrade. And sqlx's
//! table of checksums does not exist in databases that this migrator has set up.

use crate::error::{Error, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};

/// In order. The version of the schema is the number of applied migrations. Append only. The previous release must work with the
/// result, because instances of both releases run during a rolling upgrade.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_begin.sql"),
    include_str!("../../migrations/postgres/0002_generation.sql"),
    include_str!("../../migrations/postgres/0003_sessions.sql"),
];

/// A program that supports this version or a newer one works with the schema of this release. Raise it when a migration removes
/// something that older releases need. (Programs that support only version 1 do not read it: they refuse every other version.)
const OLDEST_COMPATIBLE: i64 = 3;

/// Applies the missing migrations in one transaction. A lock makes concurrent instances wait for the first one.
pub(super) async fn migrate(conn: &mut PgConnection, schema: &str) -> Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('godwit migrations ' || $1, 0))")
        .bind(schema)
        .execute(&mut *tx)
        .await?;
    // `CREATE SCHEMA IF NOT EXISTS` needs the right to create schemas even if the schema exists.
    let exists: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(format!("\"{schema}\""))
        .fetch_one(&mut *tx)
        .await?;
    if !exists {
        // The configuration restricts the name to lower-case letters, digits and '_'.
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{schema}\""))).execute(&mut *tx).await?;
    }
    raw_sql("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)").execute(&mut *tx).await?;
    let found = version(&mut tx).await?;
    let known = known_version();
    let applied = usize::try_from(found).map_err(|_| Error::Corrupt("the version of the schema"))?;
    let Some(missing) = MIGRATIONS.get(applied..) else {
        return check_compatible(&mut tx, found, known).await;
    };
    for migration in missing {
        raw_sql(*migration).execute(&mut *tx).await?;
    }
    if !missing.is_empty() {
        let insert = sqlx::query("INSERT INTO schema_version (version, oldest) VALUES ($1, $2)");
        insert.bind(known).bind(OLDEST_COMPATIBLE).execute(&mut *tx).await?;
        tracing::info!(schema, from = found, to = known, "migrated the schema");
    }
    tx.commit().await?;
    Ok(())
}

fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

async fn version(conn: &mut PgConnection) -> Result<i64> {
    let select = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_version");
    Ok(select.fetch_one(conn).await?)
}

/// Refuses the schema of a newer release, unless that release has declared it compatible with this one.
async fn check_compatible(conn: &mut PgConnection, found: i64, known: i64) -> Result<()> {
    let oldest: i64 = sqlx::query_scalar(
        "SELECT coalesce(oldest, version) FROM schema_version ORDER BY version DESC LIMIT 1",
    )
    .fetch_one(conn)
    .await?;
    if oldest > known {
        return Err(Error::TooNew { found, known });
    }
    tracing::info!(found, known, "the schema is that of a newer release, which is compatible with this one");
    Ok(())
}

/// Refuses data without a schema and every schema other than this release's. Changes nothing.
pub(super) async fn check_version(conn: &mut PgConnection) -> Result<()> {
    if !exists(conn).await? {
        return Err(Error::NoData);
    }
    let (found, known) = (version(conn).await?, known_version());
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(Error::TooOld { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::TooNew { found, known }),
    }
}

/// Whether there are data of any version.
pub(super) async fn exists(conn: &mut PgConnection) -> Result<bool> {
    let select = sqlx::query_scalar("SELECT to_regclass('schema_version') IS NOT NULL");
    Ok(select.fetch_one(conn).await?)
}
