use super::*;
use crate::conformance::postgres_config;
use abi::{
    ApiError,
    config::Secret,
    error::ErrorCode,
    v1::{Entry, Message, entry::Content},
};
use sqlx::AssertSqlSafe;
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on to the database until it is dropped.
struct Line {
    silence: watch::Sender<()>,
    /// Dropping it ends the connections.
    _connections: JoinSet<()>,
}

impl Line {
    async fn up(at: SocketAddr, to: String) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (silence, silenced) = watch::channel(());
        let mut line = JoinSet::new();
        line.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (to, mut silenced) = (to.clone(), silenced.clone());
                silenced.mark_unchanged();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { silence, _connections: line }
    }

    /// Nothing is passed on any more on the connections that there are, and neither end hears of it.
    fn silence(&self) {
        self.silence.send_replace(());
    }
}

/// A configuration that leads through a line, with the line's address and the database's.
async fn through_a_line(schema: &str) -> (abi::config::Db, SocketAddr, String) {
    let (url, mut config) = postgres_config(schema);
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
    Item::new(Entry {
        app: "app".into(),
        conversation: "d:a:b".into(),
        message_id: abi::ids::message("app", "d:a:b", "a", &n.to_string()),
        sender: "a".into(),
        content: Some(Content::Message(Message::default())),
        ..Entry::default()
    })
    .unwrap()
}

async fn eventually_saves(store: &PostgresStore, n: u32) -> u64 {
    let begun = Instant::now();
    loop {
        match store.save(vec![item(n)]).await {
            Ok(results) => return results[0].conversation_seq,
            Err(error) => {
                assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
                assert_eq!(ApiError::from(error).code, ErrorCode::Unavailable);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_an_outage_is_unavailable_and_over_when_it_is_over() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (config, at, to) = through_a_line(&schema).await;
    let store = PostgresStore::new(&config, 8).unwrap();

    let fault = ApiError::from(store.save(vec![item(1)]).await.unwrap_err());
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert_eq!(fault.message, "the database can't be reached; try again");

    let line = Line::up(at, to.clone()).await;
    assert_eq!(eventually_saves(&store, 1).await, 1);
    drop(line);
    let fault = ApiError::from(store.save(vec![item(2)]).await.unwrap_err());
    assert_eq!(fault.code, ErrorCode::Unavailable);
    let _line = Line::up(at, to).await;
    assert_eq!(eventually_saves(&store, 2).await, 2);
    drop_schema(&store).await;
}

/// A store of one connection, which has been used and then falls silent: on its way back into the pool, or once it is there.
async fn silent_store(once_it_is_back: bool) -> (PostgresStore, Line) {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (mut config, at, to) = through_a_line(&schema).await;
    config.max_connections = 1;
    let store = PostgresStore::new(&config, 8).unwrap();
    let line = Line::up(at, to).await;
    assert_eq!(eventually_saves(&store, 1).await, 1);
    while once_it_is_back && store.pool.num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    line.silence();
    (store, line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_call_that_gave_up_on_a_silent_connection_leaves_room_for_others() {
    let (store, _line) = silent_store(true).await;
    let given_up = timeout(Duration::from_millis(300), store.save(vec![item(2)])).await;
    assert!(given_up.is_err(), "the connection was to be silent");
    assert!(eventually_saves(&store, 3).await >= 2);
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_connection_that_falls_silent_on_its_way_back_leaves_room_for_others() {
    let (store, _line) = silent_store(false).await;
    assert!(eventually_saves(&store, 2).await >= 2);
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_what_is_stored_after_calls_that_gave_up_is_stored() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, mut config) = postgres_config(&schema);
    config.max_connections = 1;
    let store = PostgresStore::new(&config, 8).unwrap();
    store.ready().await.unwrap();
    let other = PostgresStore::new(&config, 8).unwrap();
    for n in 0..60 {
        // Given up at another step each time, the beginning of its transaction among them.
        let session = Session { session: n.to_string(), ..Session::default() };
        let _ = timeout(Duration::from_micros(n * 50), store.create_session(session, vec![1])).await;
        assert!(store.create_user("app".into(), n.to_string(), "hash".into()).await.unwrap());
        let seen = other.password_hash("app".into(), n.to_string()).await.unwrap();
        assert_eq!(seen.as_deref(), Some("hash"), "it was stored in a transaction that nobody will commit");
    }
    drop_schema(&store).await;
}

#[tokio::test]
async fn p1_commits_are_durable_whatever_the_server_does_by_default() {
    for (default, expected) in [("off", "on"), ("remote_apply", "remote_apply")] {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let (url, mut config) = postgres_config(&schema);
        config.postgres = Secret::new(format!("{url}?options=-c%20synchronous_commit%3D{default}"));
        let store = PostgresStore::new(&config, 8).unwrap();
        store.ready().await.unwrap();
        let setting: String =
            sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&store.pool).await.unwrap();
        assert_eq!(setting, expected);
        drop_schema(&store).await;
    }
}

#[tokio::test]
async fn p9_a_newer_schema_is_used_if_it_says_so_and_refused_otherwise() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, config) = postgres_config(&schema);
    let store = PostgresStore::new(&config, 8).unwrap();
    store.ready().await.unwrap();
    let known: i64 =
        sqlx::query_scalar("SELECT max(version) FROM schema_version").fetch_one(&store.pool).await.unwrap();
    // What a release of the future writes that this one can live with, and then one that it can't.
    for (version, oldest) in [(98, Some(known)), (99, Some(known + 1)), (100, None)] {
        let insert = sqlx::query("INSERT INTO schema_version (version, oldest) VALUES ($1, $2)");
        insert.bind(version).bind(oldest).execute(&store.pool).await.unwrap();
        let opened = PostgresStore::new(&config, 8).unwrap().ready().await;
        if oldest == Some(known) {
            opened.unwrap();
        } else {
            let refusal = opened.unwrap_err();
            assert!(matches!(refusal, Error::TooNew { found, .. } if found == version), "{refusal}");
            assert!(refusal.to_string().contains("run a newer release"), "{refusal}");
        }
    }
    drop_schema(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_instances_that_start_at_once_bring_the_schema_up_to_date_once() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, config) = postgres_config(&schema);
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = PostgresStore::new(&config, 8).unwrap();
        starts.spawn(async move { store.ready().await });
    }
    for started in starts.join_all().await {
        started.unwrap();
    }
    let store = PostgresStore::new(&config, 8).unwrap();
    store.ready().await.unwrap();
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM schema_version").fetch_one(&store.pool).await.unwrap();
    assert_eq!(rows, 1);
    drop_schema(&store).await;
}
