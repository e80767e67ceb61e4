//! Accounts, sessions and signing keys.

use crate::{
    error::{Error, Result},
    sessions::{Hashes, Outcome, Rotation, SessionKey},
    statements as sql,
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{Session, SigningKey},
};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};

/// Returns `false` if another account has the id. An account with the same hash is the result of an earlier attempt.
pub(super) async fn create_user(conn: &mut PgConnection, app: &str, user: &str, hash: &str) -> Result<bool> {
    let insert = sqlx::query(sql::CREATE_USER).bind(app).bind(user).bind(hash);
    if insert.execute(&mut *conn).await?.rows_affected() == 1 {
        return Ok(true);
    }
    Ok(password_hash(conn, app, user).await?.as_deref() == Some(hash))
}

/// The password hash of an account.
pub(super) async fn password_hash(conn: &mut PgConnection, app: &str, user: &str) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(sql::PASSWORD_HASH).bind(app).bind(user).fetch_optional(conn).await?)
}

/// Returns the ids of the device's earlier sessions, which it ends. One attempt: concurrent log-ins of a device conflict.
pub(super) async fn create_session(
    conn: &mut PgConnection,
    session: &Session,
    refresh_hash: &[u8],
) -> Result<Vec<String>> {
    let Session { session: id, app, user, device, .. } = session;
    let hashes = Hashes::new(refresh_hash.to_vec());
    let mut tx = conn.begin().await?;
    if let Some((existing, existing_hashes)) = load(&mut tx, &SessionKey::from(session)).await? {
        if existing == *session && existing_hashes == hashes {
            return Ok(Vec::new());
        }
        return Err(Error::ApiError(ApiError::new(ErrorCode::AlreadyExists, "this session id is taken")));
    }
    let delete = sqlx::query_scalar(sql::DELETE_SESSIONS_OF_DEVICE).bind(app).bind(user).bind(device);
    let revoked = delete.fetch_all(&mut *tx).await?;
    sqlx::query(sql::INSERT_SESSION)
        .bind(id)
        .bind(app)
        .bind(user)
        .bind(device)
        .bind(hashes.current)
        .bind(hashes.previous)
        .bind(hashes.number)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(revoked)
}

/// `None` if there is no such session, or the presented token was never issued for it.
pub(super) async fn rotate_session(
    conn: &mut PgConnection,
    key: &SessionKey,
    rotation: &Rotation,
) -> Result<Option<Session>> {
    let mut tx = conn.begin().await?;
    // The row lock makes a concurrent rotation wait, so that it sees the result of this one.
    sqlx::query("SELECT id FROM sessions WHERE app = $1 AND user_id = $2 AND id = $3 FOR UPDATE")
        .bind(&key.app)
        .bind(&key.user)
        .bind(&key.session)
        .execute(&mut *tx)
        .await?;
    let Some((session, hashes)) = load(&mut tx, key).await? else { return Ok(None) };
    let rotated = match hashes.rotate(rotation.clone()) {
        Outcome::Rotated(hashes) => {
            sqlx::query(sql::UPDATE_SESSION)
                .bind(hashes.current)
                .bind(hashes.previous)
                .bind(hashes.number)
                .bind(&key.app)
                .bind(&key.user)
                .bind(&key.session)
                .execute(&mut *tx)
                .await?;
            Some(session)
        }
        Outcome::Ended => {
            revoke_session(&mut tx, key).await?;
            Some(Session { ended: true, ..session })
        }
        Outcome::Refused => None,
    };
    tx.commit().await?;
    Ok(rotated)
}

/// A session that is not revoked.
pub(super) async fn session(conn: &mut PgConnection, key: &SessionKey) -> Result<Option<Session>> {
    Ok(load(conn, key).await?.map(|(session, _)| session))
}

/// Ends a session.
pub(super) async fn revoke_session(conn: &mut PgConnection, key: &SessionKey) -> Result<()> {
    let delete = sqlx::query(sql::DELETE_SESSION).bind(&key.app).bind(&key.user).bind(&key.session);
    delete.execute(conn).await?;
    Ok(())
}

async fn load(conn: &mut PgConnection, key: &SessionKey) -> Result<Option<(Session, Hashes)>> {
    let select = sqlx::query(sql::SESSION).bind(&key.app).bind(&key.user).bind(&key.session);
    let Some(row) = select.fetch_optional(conn).await? else { return Ok(None) };
    let hashes = Hashes { current: row.try_get(4)?, previous: row.try_get(5)?, number: row.try_get(6)? };
    Ok(Some((session_from_row(&row)?, hashes)))
}

/// Reads the columns id, app, user and device, with which the row must begin.
pub(super) fn session_from_row(row: &PgRow) -> Result<Session> {
    Ok(Session {
        session: row.try_get(0)?,
        app: row.try_get(1)?,
        user: row.try_get(2)?,
        device: row.try_get(3)?,
        ..Session::default()
    })
}

/// Newest first. Stores `candidate` if there is no key yet.
pub(super) async fn signing_keys(conn: &mut PgConnection, candidate: &SigningKey) -> Result<Vec<SigningKey>> {
    let keys = stored_keys(&mut *conn).await?;
    if !keys.is_empty() {
        return Ok(keys);
    }
    sqlx::query(sql::INSERT_FIRST_SIGNING_KEY)
        .bind(&candidate.id)
        .bind(candidate.secret.as_ref())
        .execute(&mut *conn)
        .await?;
    stored_keys(conn).await
}

async fn stored_keys(conn: &mut PgConnection) -> Result<Vec<SigningKey>> {
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(sql::SIGNING_KEYS).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, secret)| SigningKey { id, secret: secret.into() }).collect())
}
