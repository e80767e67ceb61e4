//! The traits of data that no conversation owns: accounts, sessions and the users' own state.

use super::{SqliteStore, accounts, user_state};
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
impl Users for SqliteStore {
    async fn inbox(
        &self,
        app: String,
        user: String,
        after: Option<Listed>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        self.readers.call(move |conn| user_state::inbox(conn, &app, &user, after.as_ref(), limit)).await
    }

    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool> {
        self.writer.call(true, move |tx| accounts::create_user(tx.conn, &app, &user, &password_hash)).await
    }

    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>> {
        self.readers.call(move |conn| accounts::password_hash(conn, &app, &user)).await
    }

    async fn existing(&self, app: String, users: Vec<String>) -> Result<HashSet<String>> {
        if users.is_empty() {
            return Ok(HashSet::new());
        }
        self.readers.call(move |conn| user_state::existing(conn, &app, users)).await
    }

    async fn profiles(&self, app: String, users: Vec<String>) -> Result<Vec<Profile>> {
        self.readers.call(move |conn| user_state::profiles(conn, &app, &users)).await
    }

    async fn replace_profile(&self, app: String, profile: Profile) -> Result<bool> {
        self.writer.call(true, move |tx| user_state::replace_profile(tx.conn, &app, &profile)).await
    }

    async fn settings(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<HashMap<String, ConversationSettings>> {
        self.readers.call(move |conn| user_state::settings(conn, &app, &user, conversations)).await
    }

    async fn change_settings(
        &self,
        app: String,
        user: String,
        change: SetSettings,
    ) -> Result<ConversationSettings> {
        self.writer.call(true, move |tx| user_state::change_settings(tx.conn, &app, &user, &change)).await
    }

    async fn change_block(&self, app: String, user: String, block: Block) -> Result<()> {
        self.writer.call(true, move |tx| user_state::change_block(tx.conn, &app, &user, &block)).await
    }

    async fn blocks(&self, app: String, user: String, after: String, limit: usize) -> Result<Vec<String>> {
        self.readers.call(move |conn| user_state::blocks(conn, &app, &user, &after, limit)).await
    }

    async fn blockers(&self, app: String, blocked: String, by: Vec<String>) -> Result<Vec<String>> {
        self.readers.call(move |conn| user_state::blockers(conn, &app, &blocked, by)).await
    }

    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>> {
        self.writer.call(true, move |tx| accounts::create_session(tx.conn, &session, refresh_hash)).await
    }

    async fn rotate_session(&self, key: SessionKey, rotation: Rotation) -> Result<Option<Session>> {
        self.writer.call(true, move |tx| accounts::rotate_session(tx.conn, &key, rotation)).await
    }

    async fn session(&self, key: SessionKey) -> Result<Option<Session>> {
        self.readers.call(move |conn| accounts::session(conn, &key)).await
    }

    async fn revoke_session(&self, key: SessionKey) -> Result<()> {
        self.writer.call(true, move |tx| accounts::revoke_session(tx.conn, &key)).await
    }
}

#[async_trait]
impl Directory for SqliteStore {
    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>> {
        let keys = self.readers.call(accounts::signing_keys).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        self.writer.call(true, move |tx| accounts::insert_first_signing_key(tx.conn, &candidate)).await
    }

    async fn generation(&self) -> Result<(u32, u32)> {
        let select = |conn: &rusqlite::Connection| {
            let mut select = conn.prepare_cached(sql::GENERATIONS)?;
            Ok(select.query_row([], |row| {
                Ok((generation::from_column(row.get(0)?), generation::from_column(row.get(1)?)))
            })?)
        };
        self.readers.call(select).await
    }
}
