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
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// `false` if the id is taken: by an account with another hash, which no retry has.
pub(super) fn create_user(conn: &Connection, app: &str, user: &str, hash: &str) -> Result<bool> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO users (app, user, password_hash) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )?;
    if insert.execute([app, user, hash])? == 1 {
        return Ok(true);
    }
    Ok(password_hash(conn, app, user)?.as_deref() == Some(hash))
}

/// Hash of an account's password.
pub(super) fn password_hash(conn: &Connection, app: &str, user: &str) -> Result<Option<String>> {
    let mut select = conn.prepare_cached("SELECT password_hash FROM users WHERE app = ? AND user = ?")?;
    Ok(select.query_row([app, user], |row| row.get(0)).optional()?)
}

/// Returns the ids of the sessions that it replaces.
pub(super) fn create_session(
    conn: &Connection,
    session: &Session,
    refresh_hash: Vec<u8>,
) -> Result<Vec<String>> {
    let Session { session: id, app, user, device, .. } = session;
    if let Some((found, hashes)) = load(conn, id)? {
        if found == *session && hashes == Hashes::first(refresh_hash) {
            return Ok(Vec::new());
        }
        return Err(Error::ApiError(ApiError::new(ErrorCode::AlreadyExists, "this session id is taken")));
    }
    let revoked = conn
        .prepare_cached("DELETE FROM sessions WHERE app = ? AND user = ? AND device = ? RETURNING id")?
        .query_map([app, user, device], |row| row.get(0))?
        .collect::<Result<Vec<_>, _>>()?;
    conn.prepare_cached(
        "INSERT INTO sessions (id, app, user, device, refresh_hash, previous_hash, rotated_at_ms)
         VALUES (?, ?, ?, ?, ?, x'', 0)",
    )?
    .execute(params![id, app, user, device, refresh_hash])?;
    Ok(revoked)
}

/// `None`: no such session, or no token of it.
pub(super) fn rotate_session(conn: &Connection, id: &str, rotation: Rotation) -> Result<Option<Session>> {
    let Some((session, hashes)) = load(conn, id)? else { return Ok(None) };
    let Hashes { current, previous, rotated_at_ms } = match hashes.rotate(rotation) {
        Exchange::Done(hashes) => hashes,
        Exchange::Ended => {
            revoke_session(conn, id)?;
            return Ok(Some(Session { ended: true, ..session }));
        }
        Exchange::Refused => return Ok(None),
    };
    conn.prepare_cached(
        "UPDATE sessions SET refresh_hash = ?, previous_hash = ?, rotated_at_ms = ? WHERE id = ?",
    )?
    .execute(params![current, previous, rotated_at_ms, id])?;
    Ok(Some(session))
}

/// A session that is not revoked.
pub(super) fn session(conn: &Connection, id: &str) -> Result<Option<Session>> {
    let Some((session, _)) = load(conn, id)? else { return Ok(None) };
    let mut select = conn.prepare_cached("SELECT now, before FROM generation")?;
    let (now, before) = select.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (generation, generation_before) = (contract(now), contract(before));
    Ok(Some(Session { generation, generation_before, ..session }))
}

/// Ends a session.
pub(super) fn revoke_session(conn: &Connection, id: &str) -> Result<()> {
    conn.prepare_cached("DELETE FROM sessions WHERE id = ?")?.execute([id])?;
    Ok(())
}

fn load(conn: &Connection, id: &str) -> Result<Option<(Session, Hashes)>> {
    let mut select = conn.prepare_cached(
        "SELECT id, app, user, device, refresh_hash, previous_hash, rotated_at_ms FROM sessions WHERE id = ?",
    )?;
    let found = select.query_row([id], |row| {
        let hashes = Hashes { current: row.get(4)?, previous: row.get(5)?, rotated_at_ms: row.get(6)? };
        Ok((session_of(row)?, hashes))
    });
    Ok(found.optional()?)
}

/// A row that begins with id, app, user and device.
pub(super) fn session_of(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        session: row.get(0)?,
        app: row.get(1)?,
        user: row.get(2)?,
        device: row.get(3)?,
        ..Session::default()
    })
}

/// Newest first.
pub(super) fn signing_keys(conn: &Connection) -> Result<Vec<SigningKey>> {
    let key = |row: &Row<'_>| Ok(SigningKey { id: row.get(0)?, secret: row.get::<_, Vec<u8>>(1)?.into() });
    let mut select = conn.prepare_cached("SELECT id, secret FROM signing_keys ORDER BY slot DESC")?;
    Ok(select.query_map([], key)?.collect::<Result<_, _>>()?)
}

/// Makes `fresh` the first key unless somebody was faster.
pub(super) fn first_signing_key(conn: &Connection, fresh: &SigningKey) -> Result<Vec<SigningKey>> {
    conn.prepare_cached(
        "INSERT INTO signing_keys (slot, id, secret) VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
    )?
    .execute(params![fresh.id, fresh.secret.as_ref()])?;
    signing_keys(conn)
}
