//! The distributed store: PostgreSQL, shared by any number of instances.
//!
//! Connections are opened on demand, and the first call that reaches the database migrates the schema. So an outage at start is
//! handled like any other outage.

mod accounts;
mod connection;
mod group;
mod read;
mod save;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod transfer;

use crate::{
    disk::Disk,
    error::{Error, Result, is_conflict},
    item::Item,
    metrics,
    rules::Limits,
    sessions::{Rotation, SessionKey},
    store::{Page, PageLimit, ReadPosition, Store, View},
};
use abi::{
    config::Db,
    v1::{HeadsPage, HistoryPage, Members, SaveResult, Session, SigningKey},
};
use async_trait::async_trait;
use connection::CallConnection;
use sqlx::{
    Connection as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{future::Future, io, str::FromStr as _, time::Duration};
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

/// A call that waits longer for a connection fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A call that takes longer fails. The database may nevertheless have executed it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Most retries of a transaction after conflicts.
const MAX_RETRIES: u32 = 20;

/// Every statement finds its rows by key. The settings `enable_*` force such plans, because the statistics of tables that have
/// just begun to grow are wrong. A generic plan serves all arguments.
///
/// The timeouts equal [`CALL_TIMEOUT`]: no caller waits longer. They also release the row locks of an instance that was
/// disconnected within a transaction, which the database would otherwise notice much later.
const SETTINGS: [(&str, &str); 7] = [
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// Commits must survive a crash of the server: devices have seen their `conversation_seq`s, and the committed offsets prevent a
/// replay from the log. Settings stricter than `on`, which also wait for replicas, are kept.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Runs a call on a connection of its own, with a timeout.
macro_rules! call {
    ($store:expr, $conn:ident => $call:expr) => {
        with_timeout(async {
            let mut acquired = $store.acquire().await?;
            let $conn = &mut *acquired;
            let outcome = $call.await;
            acquired.release(&outcome);
            $store.disk.observe(&outcome);
            outcome
        })
        .await
    };
}

/// Runs a call whose future is one transaction, and retries it after conflicts.
macro_rules! transact {
    ($store:expr, $conn:ident => $attempt:expr) => {
        call!($store, $conn => async {
            let mut retries = 0;
            loop {
                match $attempt.await {
                    Err(Error::Postgres(error)) if is_conflict(&error) && retries < MAX_RETRIES => {
                        retries += 1;
                        back_off(retries).await;
                    }
                    outcome => break outcome,
                }
            }
        })
    };
}

/// The store.
pub(crate) struct PostgresStore {
    pool: PgPool,
    /// Owns the tasks that return connections to the pool.
    releases: TaskTracker,
    schema: String,
    migrated: OnceCell<()>,
    disk: Disk,
    limits: Limits,
}

/// The config errors of a URL and of the file with certificate authorities that it names.
pub(crate) fn check(url: &str) -> Vec<String> {
    if let Err(error) = PgConnectOptions::from_str(url) {
        return vec![format!("db.postgres: must be postgres://USER:PASSWORD@HOST:PORT/DATABASE: {error}")];
    }
    let options = url.split_once('?').map_or("", |(_, options)| options).split('&');
    // Only sqlx decodes %XX, so a path with an escape is not checked here.
    let authorities =
        options.filter_map(|option| option.strip_prefix("sslrootcert=")).filter(|path| !path.contains('%'));
    authorities.flat_map(|path| utils::tls::checks::authorities("db.postgres", path)).collect()
}

impl PostgresStore {
    /// Creates a store. Does not connect yet.
    pub(crate) fn new(config: &Db) -> Result<Self> {
        let options = options(config)?.options(SETTINGS);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > PING_AFTER_IDLE {
                        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
                        timeout(PING_TIMEOUT, conn.ping()).await.map_err(timed_out)??;
                    }
                    Ok(true)
                })
            })
            .after_connect(|conn, _| Box::pin(async move { conn.execute(DURABLE).await.map(drop) }))
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            releases: TaskTracker::new(),
            schema: config.schema.clone(),
            migrated: OnceCell::new(),
            disk: Disk::default(),
            limits: Limits::new(config),
        })
    }

    /// Succeeds once the database answers and its schema is migrated.
    pub(crate) async fn ready(&self) -> Result<()> {
        call!(self, conn => async { Ok(conn.ping().await?) })
    }

    /// A connection to a database whose schema is migrated.
    async fn acquire(&self) -> Result<CallConnection> {
        let migrate = async || {
            let mut acquired = CallConnection::acquire(&self.pool, &self.releases).await?;
            let outcome = schema::migrate(&mut acquired, &self.schema).await;
            acquired.release(&outcome);
            outcome
        };
        self.migrated.get_or_try_init(migrate).await?;
        CallConnection::acquire(&self.pool, &self.releases).await
    }
}

/// The connection options of a configuration.
fn options(config: &Db) -> Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(config.postgres.expose())?
        .application_name("godwit")
        .statement_cache_capacity(64)
        .options([("search_path", config.schema.as_str())]))
}

async fn with_timeout<T>(call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(Error::Timeout { seconds: CALL_TIMEOUT.as_secs() }))
}

/// Waits before a retry. The delay grows with the number of retries and has jitter.
async fn back_off(retries: u32) {
    metrics::retried();
    sleep(Duration::from_micros(u64::from(retries) * (500 + u64::from(rand::random::<u8>()) * 20))).await;
}

#[async_trait]
impl Store for PostgresStore {
    fn health(&self) -> std::result::Result<(), String> {
        self.disk.health()
    }

    async fn save(&self, items: Vec<Item>) -> Result<Vec<SaveResult>> {
        transact!(self, conn => save::save(&mut *conn, &items, self.limits))
    }

    async fn sync(&self) -> Result<()> {
        // Every commit is durable.
        Ok(())
    }

    async fn check_change(&self, item: Item) -> Result<Option<SaveResult>> {
        call!(self, conn => group::check(conn, &item, self.limits))
    }

    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<HistoryPage>> {
        call!(self, conn => read::history(conn, &view, page, limit))
    }

    async fn heads(&self, app: String, user: String, after: String, limit: usize) -> Result<HeadsPage> {
        call!(self, conn => read::heads(conn, &app, &user, &after, limit))
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        call!(self, conn => async {
            Ok(read::group(conn, &app, &conversation).await?.map(Members::from))
        })
    }

    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<ReadPosition>> {
        call!(self, conn => read::mark_read(conn, &view, seq))
    }

    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool> {
        call!(self, conn => accounts::create_user(conn, &app, &user, &password_hash))
    }

    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>> {
        call!(self, conn => accounts::password_hash(conn, &app, &user))
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

    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>> {
        call!(self, conn => accounts::signing_keys(conn, &candidate))
    }
}
