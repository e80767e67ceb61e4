//! The distributed store: PostgreSQL, shared by any number of instances.
//!
//! Connections are made when they are needed, and the schema is brought up to date by the first call that reaches the
//! database: an outage at start is an outage like any other.

mod accounts;
mod group;
mod read;
mod save;
mod schema;
#[cfg(test)]
mod tests;

use crate::{
    error::{Error, Result, is_conflict},
    item::Item,
    metrics,
    sessions::Rotation,
    store::{Marked, Page, Store, View},
};
use abi::{
    config::Db,
    v1::{HeadsPage, HistoryPage, Members, SaveResult, Session, SigningKey},
};
use async_trait::async_trait;
use sqlx::{
    Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{future::Future, str::FromStr as _, time::Duration};
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

/// A call that found no free connection by then fails.
const ACQUIRE: Duration = Duration::from_secs(3);
/// A call that was not answered by then fails, and may have been done.
const CALL: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is asked whether it still lives before it is used.
const FRESH: Duration = Duration::from_secs(1);
/// How often a transaction that met others is made again.
const RETRIES: u32 = 20;

/// Every statement finds its rows by key. Plans must not follow the statistics, which know nothing of tables that have just
/// begun to grow, and one plan per statement serves all arguments.
const SETTINGS: [(&str, &str); 5] = [
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// The store.
pub(crate) struct PostgresStore {
    pool: PgPool,
    schema: String,
    migrated: OnceCell<()>,
    max_members: usize,
}

impl PostgresStore {
    /// A store that has not connected yet. `max_members` is the size limit of groups.
    pub(crate) fn new(config: &Db, max_members: usize) -> Result<Self> {
        let options = PgConnectOptions::from_str(config.postgres.expose())?
            .application_name("godwit")
            .statement_cache_capacity(64)
            .options([("search_path", config.schema.as_str())])
            .options(SETTINGS);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > FRESH {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, schema: config.schema.clone(), migrated: OnceCell::new(), max_members })
    }

    /// Returns once the database answers and has the schema of this release.
    pub(crate) async fn ready(&self) -> Result<()> {
        limited(async {
            self.pool().await?.acquire().await?.ping().await?;
            Ok(())
        })
        .await
    }

    async fn pool(&self) -> Result<&PgPool> {
        self.migrated.get_or_try_init(|| schema::migrate(&self.pool, &self.schema)).await?;
        Ok(&self.pool)
    }
}

async fn limited<T>(call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(CALL, call).await.unwrap_or(Err(Error::Timeout { seconds: CALL.as_secs() }))
}

/// After the `n`th meeting with another transaction: wait a little, each a different while, and go on.
async fn meet(n: u32) {
    metrics::retried();
    sleep(Duration::from_micros(u64::from(n) * (500 + u64::from(rand::random::<u8>()) * 20))).await;
}

/// Makes an attempt, which is one transaction, again for as long as it fails because it met another one.
macro_rules! transact {
    ($attempt:expr) => {
        limited(async {
            let mut retries = 0;
            loop {
                match $attempt.await {
                    Err(Error::Postgres(error)) if is_conflict(&error) && retries < RETRIES => {
                        retries += 1;
                        meet(retries).await;
                    }
                    outcome => break outcome,
                }
            }
        })
        .await
    };
}

#[async_trait]
impl Store for PostgresStore {
    async fn save(&self, items: Vec<Item>, _durable: bool) -> Result<Vec<SaveResult>> {
        // Every commit is durable.
        transact!(async { save::save(self.pool().await?, &items, self.max_members).await })
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn check_change(&self, item: Item) -> Result<()> {
        limited(async { group::check(self.pool().await?, &item, self.max_members).await }).await
    }

    async fn history(&self, view: View, page: Page, limit: usize) -> Result<Option<HistoryPage>> {
        limited(async { read::history(self.pool().await?, &view, page, limit).await }).await
    }

    async fn heads(&self, app: String, user: String, after: String, limit: usize) -> Result<HeadsPage> {
        limited(async { read::heads(self.pool().await?, &app, &user, &after, limit).await }).await
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        limited(async {
            let mut conn = self.pool().await?.acquire().await?;
            Ok(read::group(&mut conn, &app, &conversation).await?.map(Members::from))
        })
        .await
    }

    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<Marked>> {
        limited(async { read::mark(self.pool().await?, &view, seq).await }).await
    }

    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool> {
        limited(async { accounts::create_user(self.pool().await?, &app, &user, &password_hash).await }).await
    }

    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>> {
        limited(async { accounts::password_hash(self.pool().await?, &app, &user).await }).await
    }

    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>> {
        transact!(async { accounts::create_session(self.pool().await?, &session, &refresh_hash).await })
    }

    async fn rotate_session(&self, id: String, rotation: Rotation) -> Result<Option<Session>> {
        transact!(async { accounts::rotate_session(self.pool().await?, &id, &rotation).await })
    }

    async fn session(&self, id: String) -> Result<Option<Session>> {
        limited(async { accounts::session(self.pool().await?, &id).await }).await
    }

    async fn revoke_session(&self, id: String) -> Result<()> {
        limited(async { accounts::revoke_session(self.pool().await?, &id).await }).await
    }

    async fn signing_keys(&self, fresh: SigningKey) -> Result<Vec<SigningKey>> {
        limited(async { accounts::signing_keys(self.pool().await?, &fresh).await }).await
    }
}
