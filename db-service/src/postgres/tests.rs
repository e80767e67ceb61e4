//! Tests of outages, durability and migrations.

use super::*;
use crate::{error::Error, item::Item, position::Batch, rules::tests::LIMITS, store::Users as _};
use abi::{
    ApiError,
    config::Secret,
    error::ErrorCode,
    v1::{Entry, Session},
};
use prost::Message as _;
use sqlx::AssertSqlSafe;
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A TCP proxy to the database. Dropping it closes the connections.
struct Proxy {
    blackhole: watch::Sender<()>,
    _connections: JoinSet<()>,
}

impl Proxy {
    async fn start(at: SocketAddr, to: String) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (blackhole, blackholed) = watch::channel(());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (to, mut blackholed) = (to.clone(), blackholed.clone());
                blackholed.mark_unchanged();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = blackholed.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { blackhole, _connections: accepting }
    }

    /// Stops forwarding on the open connections, without closing them.
    fn blackhole(&self) {
        self.blackhole.send_replace(());
    }
}

/// The database for tests, and the configuration of an instance on it.
pub(crate) fn test_config(schema: &str) -> (String, abi::config::Db) {
    let url = std::env::var("GODWIT_TEST_POSTGRES").expect(
        "GODWIT_TEST_POSTGRES is not set: run the tests with tests/run, or set it to the address of a PostgreSQL",
    );
    let config = abi::config::Db {
        postgres: Secret::new(url.clone()),
        schema: schema.into(),
        max_connections: 4,
        ..abi::config::Db::default()
    };
    (url, config)
}

/// A configuration with the address of a proxy, that address, and the address of the database.
async fn proxied_config(schema: &str) -> (abi::config::Db, SocketAddr, String) {
    let (url, mut config) = test_config(schema);
    let database = PgConnectOptions::from_str(&url).unwrap();
    let to = format!("{}:{}", database.get_host(), database.get_port());
    let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    config.postgres = Secret::new(url.replace(&to, &at.to_string()));
    (config, at, to)
}

async fn drop_schema(store: &PostgresStore) {
    let drop = AssertSqlSafe(format!("DROP SCHEMA {} CASCADE", store.schema));
    sqlx::raw_sql(drop).execute(&store.pool).await.unwrap();
}

fn item(n: u32) -> Item {
    let entry = Entry {
        conversation: "d:a:b".into(),
        message_id: abi::ids::message("app", "d:a:b", "a", "phone", &n.to_string()),
        sender: "a".into(),
        kind: abi::envelope::MESSAGE.into(),
        countable: true,
        ..Entry::default()
    };
    Item::new("app", entry.encode_to_vec().into()).unwrap()
}

async fn eventually_saves(store: &PostgresStore, n: u32) -> u64 {
    let begun = Instant::now();
    loop {
        match store.save(Batch::alone(vec![item(n)])).await {
            Ok(results) => return results[0].conversation_seq,
            Err(error) => {
                assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
                assert_eq!(ApiError::from(error).code, ErrorCode::Unavailable);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_an_outage_makes_the_store_unavailable_until_it_ends() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (config, at, to) = proxied_config(&schema).await;
    let store = PostgresStore::new(&config, LIMITS).unwrap();

    let error = ApiError::from(store.save(Batch::alone(vec![item(1)])).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(error.message, "the database cannot be reached; try again");

    let proxy = Proxy::start(at, to.clone()).await;
    assert_eq!(eventually_saves(&store, 1).await, 1);
    drop(proxy);
    let error = ApiError::from(store.save(Batch::alone(vec![item(2)])).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Unavailable);
    let _proxy = Proxy::start(at, to).await;
    assert_eq!(eventually_saves(&store, 2).await, 2);
    drop_schema(&store).await;
}

/// A store whose single connection stops answering: during its return to the pool, or with `once_idle` after that.
async fn blackholed_store(once_idle: bool) -> (PostgresStore, Proxy) {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (mut config, at, to) = proxied_config(&schema).await;
    config.max_connections = 1;
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    let proxy = Proxy::start(at, to).await;
    assert_eq!(eventually_saves(&store, 1).await, 1);
    while once_idle && store.pool.num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.blackhole();
    (store, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_call_that_timed_out_on_a_dead_connection_does_not_shrink_the_pool() {
    let (store, _proxy) = blackholed_store(true).await;
    let timed_out = timeout(Duration::from_millis(300), store.save(Batch::alone(vec![item(2)]))).await;
    assert!(timed_out.is_err(), "the connection answers");
    assert!(eventually_saves(&store, 3).await >= 2);
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_connection_that_dies_during_its_release_does_not_shrink_the_pool() {
    let (store, _proxy) = blackholed_store(false).await;
    assert!(eventually_saves(&store, 2).await >= 2);
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_call_after_a_cancelled_call_is_durable() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, mut config) = test_config(&schema);
    config.max_connections = 1;
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    store.ready().await.unwrap();
    let other = PostgresStore::new(&config, LIMITS).unwrap();
    for n in 0..60 {
        // The timeouts hit different steps of the call, including the begin of its transaction.
        let session = Session { session: n.to_string(), ..Session::default() };
        let _ = timeout(Duration::from_micros(n * 50), store.create_session(session, vec![1])).await;
        assert!(store.create_user("app".into(), n.to_string(), "hash".into()).await.unwrap());
        let seen = other.password_hash("app".into(), n.to_string()).await.unwrap();
        assert_eq!(seen.as_deref(), Some("hash"), "it was stored in an abandoned transaction");
    }
    drop_schema(&store).await;
}

#[tokio::test]
async fn p1_commits_are_durable_despite_the_default_of_the_server() {
    for (default, expected) in [("off", "on"), ("remote_apply", "remote_apply")] {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let (url, mut config) = test_config(&schema);
        config.postgres = Secret::new(format!("{url}?options=-c%20synchronous_commit%3D{default}"));
        let store = PostgresStore::new(&config, LIMITS).unwrap();
        store.ready().await.unwrap();
        let setting: String =
            sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&store.pool).await.unwrap();
        assert_eq!(setting, expected);
        drop_schema(&store).await;
    }
}

#[tokio::test]
async fn p9_a_newer_schema_is_accepted_only_if_it_declares_compatibility() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, config) = test_config(&schema);
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    store.ready().await.unwrap();
    let known: i64 =
        sqlx::query_scalar("SELECT max(version) FROM schema_version").fetch_one(&store.pool).await.unwrap();
    // A future release that is compatible with this one, and one that is not.
    for (version, oldest) in [(98, known), (99, known + 1)] {
        let insert = sqlx::query("INSERT INTO schema_version (version, oldest) VALUES ($1, $2)");
        insert.bind(version).bind(oldest).execute(&store.pool).await.unwrap();
        let opened = PostgresStore::new(&config, LIMITS).unwrap().ready().await;
        if oldest == known {
            opened.unwrap();
        } else {
            let refusal = opened.unwrap_err();
            assert!(matches!(refusal, Error::TooNew { found, .. } if found == version), "{refusal}");
            assert!(refusal.to_string().contains("a newer release wrote"), "{refusal}");
        }
    }
    drop_schema(&store).await;
}

#[tokio::test]
async fn data_that_cannot_be_migrated_are_refused_and_stay_as_they_are() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (url, config) = test_config(&schema);
    let pool = PgPool::connect(&url).await.unwrap();
    // The table of versions of a release whose schema can't be migrated.
    let begin = format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.schema_version (version bigint NOT NULL);
         INSERT INTO {schema}.schema_version VALUES (2)"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&pool).await.unwrap();
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    let refused = store.ready().await.unwrap_err();
    assert!(matches!(refused, Error::Obsolete { found: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("empty"), "{refused}");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = $1";
    let tables: i64 = sqlx::query_scalar(tables).bind(&schema).fetch_one(&pool).await.unwrap();
    assert_eq!(tables, 1);
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_concurrent_instances_migrate_the_schema_once() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, config) = test_config(&schema);
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = PostgresStore::new(&config, LIMITS).unwrap();
        starts.spawn(async move { store.ready().await });
    }
    for started in starts.join_all().await {
        started.unwrap();
    }
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    store.ready().await.unwrap();
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM schema_version").fetch_one(&store.pool).await.unwrap();
    assert_eq!(rows, 1);
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_full_disk_of_postgresql_is_named_and_reported() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, config) = test_config(&schema);
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    store.ready().await.unwrap();
    assert_eq!(Conversations::health(&store), Ok(()));
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON users EXECUTE FUNCTION full_disk()";
    sqlx::raw_sql(full).execute(&store.pool).await.unwrap();
    let refused = store.create_user("app".into(), "alice".into(), "hash".into()).await;
    let error = ApiError::from(refused.unwrap_err());
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("disk of the store is full"), "{error}");
    assert!(Conversations::health(&store).unwrap_err().contains("PostgreSQL is full"));
    drop_schema(&store).await;
}
