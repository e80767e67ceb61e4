//! The distributed store: PostgreSQL, shared by any number of instances.
//!
//! Connections are made when they are needed, and the schema is brought up to date by the first call that reaches the
//! database: an outage at start is an outage like any other.

mod accounts;
mod group;
mod lent;
mod read;
mod save;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod transfer;

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
use lent::Lent;
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

/// A call that found no free connection by then fails.
const ACQUIRE: Duration = Duration::from_secs(3);
/// A call that was not answered by then fails, and may have been done.
const CALL: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is asked whether it still lives before it is used.
const FRESH: Duration = Duration::from_secs(1);
/// It has so long to say so.
const LIVES: Duration = Duration::from_millis(500);
/// How often a transaction that met others is made again.
const RETRIES: u32 = 20;

/// Every statement finds its rows by key. Plans must not follow the statistics, which know nothing of tables that have just
/// begun to grow, and one plan per statement serves all arguments.
///
/// Nobody waits for a statement longer than [`CALL`], and an instance that was cut off in the middle of a transaction must not
/// hold its rows for as long as it takes the database to find that out.
const SETTINGS: [(&str, &str); 7] = [
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// A commit that a crash of the server takes back would take back numbers that devices have seen, while the log's offsets say
/// that it is stored. A server that waits for its replicas as well is left alone.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Makes a call on a connection of its own, within its time.
macro_rules! call {
    ($store:expr, $conn:ident => $call:expr) => {
        limited(async {
            let mut lent = $store.lend().await?;
            let $conn = &mut *lent;
            let outcome = $call.await;
            lent.back(&outcome);
            outcome
        })
        .await
    };
}

/// Makes an attempt, which is one transaction, again for as long as it fails because it met another one.
macro_rules! transact {
    ($store:expr, $conn:ident => $attempt:expr) => {
        call!($store, $conn => async {
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
    };
}

/// The store.
pub(crate) struct PostgresStore {
    pool: PgPool,
    /// Connections on their way back into the pool.
    returns: TaskTracker,
    schema: String,
    migrated: OnceCell<()>,
    max_members: usize,
}

/// What is wrong with a URL, or with the file of authorities that it names.
pub(crate) fn check(url: &str) -> Vec<String> {
    if let Err(error) = PgConnectOptions::from_str(url) {
        return vec![format!("db.postgres: must be postgres://USER:PASSWORD@HOST:PORT/DATABASE: {error}")];
    }
    let options = url.split_once('?').map_or("", |(_, options)| options).split('&');
    // A path that is written with %XX is read by sqlx alone.
    let authorities =
        options.filter_map(|option| option.strip_prefix("sslrootcert=")).filter(|path| !path.contains('%'));
    authorities.flat_map(|path| utils::tls::checks::authorities("db.postgres", path)).collect()
}

impl PostgresStore {
    /// A store that has not connected yet. `max_members` is the size limit of groups.
    pub(crate) fn new(config: &Db, max_members: usize) -> Result<Self> {
        let options = options(config)?.options(SETTINGS);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > FRESH {
                        let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
                        timeout(LIVES, conn.ping()).await.map_err(silent)??;
                    }
                    Ok(true)
                })
            })
            .after_connect(|conn, _| Box::pin(async move { conn.execute(DURABLE).await.map(drop) }))
            .connect_lazy_with(options);
        let (returns, migrated) = (TaskTracker::new(), OnceCell::new());
        Ok(Self { pool, returns, schema: config.schema.clone(), migrated, max_members })
    }

    /// Returns once the database answers and has the schema of this release.
    pub(crate) async fn ready(&self) -> Result<()> {
        call!(self, conn => async { Ok(conn.ping().await?) })
    }

    /// A connection to a database that has the schema of this release.
    async fn lend(&self) -> Result<Lent> {
        let migrate = async || {
            let mut lent = Lent::from(&self.pool, &self.returns).await?;
            let outcome = schema::migrate(&mut lent, &self.schema).await;
            lent.back(&outcome);
            outcome
        };
        self.migrated.get_or_try_init(migrate).await?;
        Lent::from(&self.pool, &self.returns).await
    }
}

/// Where the database is and how to reach it.
fn options(config: &Db) -> Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(config.postgres.expose())?
        .application_name("godwit")
        .statement_cache_capacity(64)
        .options([("search_path", config.schema.as_str())]))
}

async fn limited<T>(call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(CALL, call).await.unwrap_or(Err(Error::Timeout { seconds: CALL.as_secs() }))
}

/// After the `n`th meeting with another transaction: wait a little, each a different while, and go on.
async fn meet(n: u32) {
    metrics::retried();
    sleep(Duration::from_micros(u64::from(n) * (500 + u64::from(rand::random::<u8>()) * 20))).await;
}

#[async_trait]
impl Store for PostgresStore {
    async fn save(&self, items: Vec<Item>) -> Result<Vec<SaveResult>> {
        transact!(self, conn => save::save(&mut *conn, &items, self.max_members))
    }

    async fn sync(&self) -> Result<()> {
        // Every commit is durable.
        Ok(())
    }

    async fn check_change(&self, item: Item) -> Result<Option<SaveResult>> {
        call!(self, conn => group::check(conn, &item, self.max_members))
    }

    async fn history(&self, view: View, page: Page, limit: usize) -> Result<Option<HistoryPage>> {
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

    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<Marked>> {
        call!(self, conn => read::mark(conn, &view, seq))
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

    async fn rotate_session(&self, id: String, rotation: Rotation) -> Result<Option<Session>> {
        transact!(self, conn => accounts::rotate_session(&mut *conn, &id, &rotation))
    }

    async fn session(&self, id: String) -> Result<Option<Session>> {
        call!(self, conn => accounts::session(conn, &id))
    }

    async fn revoke_session(&self, id: String) -> Result<()> {
        call!(self, conn => accounts::revoke_session(conn, &id))
    }

    async fn signing_keys(&self, fresh: SigningKey) -> Result<Vec<SigningKey>> {
        call!(self, conn => accounts::signing_keys(conn, &fresh))
    }
}
