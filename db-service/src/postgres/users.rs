//! The traits of data that no conversation owns: accounts, sessions and the users' own state.

use super::{PostgresStore, accounts, user_state};
use crate::{
    error::Result,
    generation,
    sessions::{Rotation, SessionKey},
    statements as sql,
    store::{Directory, Listed, Users},
};
use abi::v1::{Block, ConversationSettings, Profile, Session, SetSettings, SigningKey};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};

#[async_trait]
impl Users for PostgresStore {
    async fn inbox(
        &self,
        app: String,
        user: String,
        after: Option<Listed>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        call!(self, conn => user_state::inbox(conn, &app, &user, after.as_ref(), limit))
    }

    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool> {
        call!(self, conn => accounts::create_user(conn, &app, &user, &password_hash))
    }

    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>> {
        call!(self, conn => accounts::password_hash(conn, &app, &user))
    }

    async fn existing(&self, app: String, users: Vec<String>) -> Result<HashSet<String>> {
        if users.is_empty() {
            return Ok(HashSet::new());
        }
        call!(self, conn => user_state::existing(conn, &app, users))
    }

    async fn profiles(&self, app: String, users: Vec<String>) -> Result<Vec<Profile>> {
        call!(self, conn => user_state::profiles(conn, &app, &users))
    }

    async fn replace_profile(&self, app: String, profile: Profile) -> Result<bool> {
        transact!(self, conn => user_state::replace_profile(&mut *conn, &app, &profile))
    }

    async fn settings(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<HashMap<String, ConversationSettings>> {
        call!(self, conn => user_state::settings(conn, &app, &user, conversations))
    }

    async fn change_settings(
        &self,
        app: String,
        user: String,
        change: SetSettings,
    ) -> Result<ConversationSettings> {
        transact!(self, conn => user_state::change_settings(&mut *conn, &app, &user, &change))
    }

    async fn change_block(&self, app: String, user: String, block: Block) -> Result<()> {
        transact!(self, conn => user_state::change_block(&mut *conn, &app, &user, &block))
    }

    async fn blocks(&self, app: String, user: String, after: String, limit: usize) -> Result<Vec<String>> {
        call!(self, conn => user_state::blocks(conn, &app, &user, &after, limit))
    }

    async fn blockers(&self, app: String, blocked: String, by: Vec<String>) -> Result<Vec<String>> {
        call!(self, conn => user_state::blockers(conn, &app, &blocked, by))
    }

    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>> {
        transact!(self, conn => accounts::create_session(&mut *conn, &session, &refresh_hash))
    }

    async fn rotate_session(&self, key: SessionKey, rotation: Rotation) -> Result<Option<Session>> {
        transact!(self, conn => accounts::rotate_session(&mut *conn, &key, &rotation))
    }

    async fn session(&self, key: SessionKey) -> Result<Option<Session>> {
        call!(self, conn => accounts::session(conn, &key))
    }

    async fn revoke_session(&self, key: SessionKey) -> Result<()> {
        call!(self, conn => accounts::revoke_session(conn, &key))
    }
}

#[async_trait]
impl Directory for PostgresStore {
    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>> {
        call!(self, conn => accounts::signing_keys(conn, &candidate))
    }

    async fn generation(&self) -> Result<(u32, u32)> {
        let (now, before): (i64, i64) = call!(self, conn => async {
            Ok(sqlx::query_as(sql::GENERATIONS).fetch_one(conn).await?)
        })?;
        Ok((generation::from_column(now), generation::from_column(before)))
    }
}
