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
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// Returns `false` if another account has the id. An account with the same hash is the result of an earlier attempt.
pub(super) fn create_user(conn: &Connection, app: &str, user: &str, hash: &str) -> Result<bool> {
    if conn.prepare_cached(sql::CREATE_USER)?.execute([app, user, hash])? == 1 {
        return Ok(true);
    }
    Ok(password_hash(conn, app, user)?.as_deref() == Some(hash))
}

/// The password hash of an account.
pub(super) fn password_hash(conn: &Connection, app: &str, user: &str) -> Result<Option<String>> {
    let mut select = conn.prepare_cached(sql::PASSWORD_HASH)?;
    Ok(select.query_row([app, user], |row| row.get(0)).optional()?)
}

/// Returns the ids of the device's earlier sessions, which it ends.
pub(super) fn create_session(
    conn: &Connection,
    session: &Session,
    refresh_hash: Vec<u8>,
) -> Result<Vec<String>> {
    let Session { session: id, app, user, device, .. } = session;
    let hashes = Hashes::new(refresh_hash);
    if let Some((existing, existing_hashes)) = load(conn, &SessionKey::from(session))? {
        if existing == *session && existing_hashes == hashes {
            return Ok(Vec::new());
        }
        return Err(Error::ApiError(ApiError::new(ErrorCode::AlreadyExists, "this session id is taken")));
    }
    let revoked = conn
        .prepare_cached(sql::DELETE_SESSIONS_OF_DEVICE)?
        .query_map([app, user, device], |row| row.get(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let Hashes { current, previous, number } = hashes;
    conn.prepare_cached(sql::INSERT_SESSION)?
        .execute(params![id, app, user, device, current, previous, number])?;
    Ok(revoked)
}

/// `None` if there is no such session, or the presented token was never issued for it.
pub(super) fn rotate_session(
    conn: &Connection,
    key: &SessionKey,
    rotation: Rotation,
) -> Result<Option<Session>> {
    let Some((session, hashes)) = load(conn, key)? else { return Ok(None) };
    let Hashes { current, previous, number } = match hashes.rotate(rotation) {
        Outcome::Rotated(hashes) => hashes,
        Outcome::Ended => {
            revoke_session(conn, key)?;
            return Ok(Some(Session { ended: true, ..session }));
        }
        Outcome::Refused => return Ok(None),
    };
    conn.prepare_cached(sql::UPDATE_SESSION)?.execute(params![
        current,
        previous,
        number,
        key.app,
        key.user,
        key.session
    ])?;
    Ok(Some(session))
}

/// A session that is not revoked.
pub(super) fn session(conn: &Connection, key: &SessionKey) -> Result<Option<Session>> {
    Ok(load(conn, key)?.map(|(session, _)| session))
}

/// Ends a session.
pub(super) fn revoke_session(conn: &Connection, key: &SessionKey) -> Result<()> {
    conn.prepare_cached(sql::DELETE_SESSION)?.execute(parameters(key))?;
    Ok(())
}

/// The parameters that name a session: app, user, session.
fn parameters(key: &SessionKey) -> [&str; 3] {
    [&key.app, &key.user, &key.session]
}

fn load(conn: &Connection, key: &SessionKey) -> Result<Option<(Session, Hashes)>> {
    let mut select = conn.prepare_cached(sql::SESSION)?;
    let found = select.query_row(parameters(key), |row| {
        let hashes = Hashes { current: row.get(4)?, previous: row.get(5)?, number: row.get(6)? };
        Ok((session_from_row(row)?, hashes))
    });
    Ok(found.optional()?)
}

/// Reads the columns id, app, user and device, with which the row must begin.
pub(super) fn session_from_row(row: &Row<'_>) -> rusqlite::Result<Session> {
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
    let mut select = conn.prepare_cached(sql::SIGNING_KEYS)?;
    Ok(select.query_map([], key)?.collect::<Result<_, _>>()?)
}

/// Stores `candidate` if there is no key yet. Returns all keys.
pub(super) fn insert_first_signing_key(conn: &Connection, candidate: &SigningKey) -> Result<Vec<SigningKey>> {
    conn.prepare_cached(sql::INSERT_FIRST_SIGNING_KEY)?
        .execute(params![candidate.id, candidate.secret.as_ref()])?;
    signing_keys(conn)
}
