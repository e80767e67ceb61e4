//! The distributed store: PostgreSQL, shared by any number of instances.
//!
//! Connections are opened on demand, and the first call that reaches the database migrates the schema. So an outage at start is
//! handled like any other outage.

#[macro_use]
mod calls;
mod accounts;
mod changes;
mod connection;
mod conversations;
mod duplicates;
mod groups;
mod heads;
mod history;
mod positions;
mod reads;
mod save;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod transfer;
mod user_state;
mod users;

use crate::{
    disk::Disk,
    error::Result,
    item::Item,
    position::{Batch, LogPartition},
    rules::Limits,
    store::{Conversations, EncodedHead, Page, PageLimit, View},
};
use abi::{
    config::Db,
    v1::{EntriesPage, MarkedRead, Members, ReadMark, Readers, SaveResult},
};
use async_trait::async_trait;
use connection::CallConnection;
use duplicates::Duplicates;
use sqlx::{
    Connection as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{collections::HashSet, io, str::FromStr as _, time::Duration};
use tokio::{sync::OnceCell, time::timeout};
use tokio_util::task::TaskTracker;

/// A call that waits longer for a connection fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Every statement finds its rows by key. The settings `enable_*` force such plans, because the statistics of tables that have
/// just begun to grow are wrong. A generic plan serves all arguments.
///
/// The timeouts equal [`calls::CALL_TIMEOUT`]: no caller waits longer. They also release the row locks of an instance that was
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

/// The store.
pub(crate) struct PostgresStore {
    pool: PgPool,
    /// Owns the tasks that return connections to the pool.
    releases: TaskTracker,
    schema: String,
    migrated: OnceCell<()>,
    disk: Disk,
    duplicates: Duplicates,
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
    pub(crate) fn new(config: &Db, limits: Limits) -> Result<Self> {
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
            duplicates: Duplicates::default(),
            limits,
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

#[async_trait]
impl Conversations for PostgresStore {
    fn health(&self) -> std::result::Result<(), String> {
        self.disk.health()
    }

    async fn save(&self, batch: Batch) -> Result<Vec<SaveResult>> {
        transact!(self, conn => save::save(&mut *conn, &batch, self.limits, &self.duplicates))
    }

    async fn position(&self, partition: LogPartition) -> Result<Option<i64>> {
        call!(self, conn => positions::position(conn, &partition))
    }

    async fn forget_position(&self, partition: LogPartition) -> Result<()> {
        call!(self, conn => positions::forget(conn, &partition))
    }

    async fn sync(&self) -> Result<()> {
        // Every commit is durable.
        Ok(())
    }

    async fn check_change(&self, item: Item, accounts: HashSet<String>) -> Result<Option<SaveResult>> {
        call!(self, conn => changes::check(conn, &item, &accounts, self.limits))
    }

    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<EntriesPage>> {
        call!(self, conn => history::history(conn, &view, page, limit))
    }

    async fn heads_of(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<Vec<EncodedHead>> {
        call!(self, conn => heads::heads_of(conn, &app, &user, &conversations, self.limits))
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        call!(self, conn => async {
            Ok(groups::group(conn, &app, &conversation).await?.map(Members::from))
        })
    }

    async fn readers(&self, view: View, seq: i64, after: String, limit: usize) -> Result<Option<Readers>> {
        call!(self, conn => reads::readers(conn, &view, seq, &after, limit))
    }

    async fn mark_read(&self, app: String, marks: Vec<ReadMark>) -> Result<Vec<MarkedRead>> {
        transact!(self, conn => reads::mark_read(&mut *conn, &app, &marks, self.limits))
    }
}
