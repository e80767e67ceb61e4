//! Accounts, sessions and signing keys.

use crate::{
    error::{Error, Result},
    generation::contract,
    sessions::{Exchange, Hashes, Rotation},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{Session, SigningKey},
};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};

/// `false` if the id is taken: by an account with another hash, which no retry has.
pub(super) async fn create_user(conn: &mut PgConnection, app: &str, user: &str, hash: &str) -> Result<bool> {
    let insert = sqlx::query(
        "INSERT INTO users (app, user_id, password_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    );
    if insert.bind(app).bind(user).bind(hash).execute(&mut *conn).await?.rows_affected() == 1 {
        return Ok(true);
    }
    Ok(password_hash(conn, app, user).await?.as_deref() == Some(hash))
}

/// Hash of an account's password.
pub(super) async fn password_hash(conn: &mut PgConnection, app: &str, user: &str) -> Result<Option<String>> {
    let select = sqlx::query_scalar("SELECT password_hash FROM users WHERE app = $1 AND user_id = $2");
    Ok(select.bind(app).bind(user).fetch_optional(conn).await?)
}

/// Returns the ids of the sessions that it replaces. One attempt: two log-ins of a device at once meet.
pub(super) async fn create_session(
    conn: &mut PgConnection,
    session: &Session,
    refresh_hash: &[u8],
) -> Result<Vec<String>> {
    let Session { session: id, app, user, device, .. } = session;
    let mut tx = conn.begin().await?;
    if let Some((found, hashes)) = load(&mut tx, id).await? {
        if found == *session && hashes == Hashes::first(refresh_hash.to_vec()) {
            return Ok(Vec::new());
        }
        return Err(Error::ApiError(ApiError::new(ErrorCode::AlreadyExists, "this session id is taken")));
    }
    let revoked = sqlx::query_scalar(
        "DELETE FROM sessions WHERE app = $1 AND user_id = $2 AND device = $3 RETURNING id",
    )
    .bind(app)
    .bind(user)
    .bind(device)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (id, app, user_id, device, refresh_hash, previous_hash, rotated_at_ms)
         VALUES ($1, $2, $3, $4, $5, '', 0)",
    )
    .bind(id)
    .bind(app)
    .bind(user)
    .bind(device)
    .bind(refresh_hash)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(revoked)
}

/// `None`: no such session, or no token of it.
pub(super) async fn rotate_session(
    conn: &mut PgConnection,
    id: &str,
    rotation: &Rotation,
) -> Result<Option<Session>> {
    let mut tx = conn.begin().await?;
    // Held until the end: of two exchanges at once, the second sees the first.
    sqlx::query("SELECT id FROM sessions WHERE id = $1 FOR UPDATE").bind(id).execute(&mut *tx).await?;
    let Some((session, hashes)) = load(&mut tx, id).await? else { return Ok(None) };
    let rotated = match hashes.rotate(rotation.clone()) {
        Exchange::Done(Hashes { current, previous, rotated_at_ms }) => {
            sqlx::query(
                "UPDATE sessions SET refresh_hash = $2, previous_hash = $3, rotated_at_ms = $4 WHERE id = $1",
            )
            .bind(id)
            .bind(current)
            .bind(previous)
            .bind(rotated_at_ms)
            .execute(&mut *tx)
            .await?;
            Some(session)
        }
        Exchange::Ended => {
            revoke_session(&mut tx, id).await?;
            Some(Session { ended: true, ..session })
        }
        Exchange::Refused => None,
    };
    tx.commit().await?;
    Ok(rotated)
}

/// A session that is not revoked.
pub(super) async fn session(conn: &mut PgConnection, id: &str) -> Result<Option<Session>> {
    let select = sqlx::query(
        "SELECT s.id, s.app, s.user_id, s.device, g.now, g.before FROM sessions s CROSS JOIN generation g WHERE s.id = $1",
    );
    let Some(row) = select.bind(id).fetch_optional(conn).await? else { return Ok(None) };
    Ok(Some(Session {
        session: row.try_get(0)?,
        app: row.try_get(1)?,
        user: row.try_get(2)?,
        device: row.try_get(3)?,
        generation: contract(row.try_get(4)?),
        generation_before: contract(row.try_get(5)?),
        ended: false,
    }))
}

/// Ends a session.
pub(super) async fn revoke_session(conn: &mut PgConnection, id: &str) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(conn).await?;
    Ok(())
}

async fn load(conn: &mut PgConnection, id: &str) -> Result<Option<(Session, Hashes)>> {
    let select = sqlx::query(
        "SELECT id, app, user_id, device, refresh_hash, previous_hash, rotated_at_ms FROM sessions WHERE id = $1",
    );
    let Some(row) = select.bind(id).fetch_optional(conn).await? else { return Ok(None) };
    let hashes =
        Hashes { current: row.try_get(4)?, previous: row.try_get(5)?, rotated_at_ms: row.try_get(6)? };
    Ok(Some((session_of(&row)?, hashes)))
}

/// A row that begins with id, app, user and device.
pub(super) fn session_of(row: &PgRow) -> Result<Session> {
    Ok(Session {
        session: row.try_get(0)?,
        app: row.try_get(1)?,
        user: row.try_get(2)?,
        device: row.try_get(3)?,
        ..Session::default()
    })
}

/// Newest first. `fresh` becomes the first one if there is none, and nobody is faster.
pub(super) async fn signing_keys(conn: &mut PgConnection, fresh: &SigningKey) -> Result<Vec<SigningKey>> {
    let keys = stored_keys(&mut *conn).await?;
    if !keys.is_empty() {
        return Ok(keys);
    }
    sqlx::query("INSERT INTO signing_keys (slot, id, secret) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(&fresh.id)
        .bind(fresh.secret.as_ref())
        .execute(&mut *conn)
        .await?;
    stored_keys(conn).await
}

async fn stored_keys(conn: &mut PgConnection) -> Result<Vec<SigningKey>> {
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT id, secret FROM signing_keys ORDER BY slot DESC").fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, secret)| SigningKey { id, secret: secret.into() }).collect())
}
