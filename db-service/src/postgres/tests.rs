use super::*;
use crate::conformance::postgres_config;
use abi::{
    Fault,
    config::Secret,
    error::ErrorCode,
    v1::{Entry, Message, entry::Content},
};
use sqlx::AssertSqlSafe;
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Passes connections on to the database until it is dropped.
struct Line(#[expect(dead_code, reason = "dropping it ends the connections")] JoinSet<()>);

impl Line {
    async fn up(at: SocketAddr, to: String) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let mut line = JoinSet::new();
        line.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let to = to.clone();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self(line)
    }
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
        match store.save(vec![item(n)], false).await {
            Ok(results) => return results[0].conversation_seq,
            Err(error) => {
                assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
                assert_eq!(Fault::from(error).code, ErrorCode::Unavailable);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_an_outage_is_unavailable_and_over_when_it_is_over() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (url, mut config) = postgres_config(&schema);
    let database = PgConnectOptions::from_str(&url).unwrap();
    let to = format!("{}:{}", database.get_host(), database.get_port());
    let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    config.postgres = Secret::new(url.replace(&to, &at.to_string()));
    let store = PostgresStore::new(&config, 8).unwrap();

    let fault = Fault::from(store.save(vec![item(1)], false).await.unwrap_err());
    assert_eq!(fault.code, ErrorCode::Unavailable);
    assert_eq!(fault.message, "the database can't be reached; try again");

    let line = Line::up(at, to.clone()).await;
    assert_eq!(eventually_saves(&store, 1).await, 1);
    drop(line);
    let fault = Fault::from(store.save(vec![item(2)], false).await.unwrap_err());
    assert_eq!(fault.code, ErrorCode::Unavailable);
    let _line = Line::up(at, to).await;
    assert_eq!(eventually_saves(&store, 2).await, 2);
    sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&store.pool).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_refused() {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    let (_, config) = postgres_config(&schema);
    let store = PostgresStore::new(&config, 8).unwrap();
    store.ready().await.unwrap();
    sqlx::query("INSERT INTO schema_version VALUES (99)").execute(&store.pool).await.unwrap();
    let newer = PostgresStore::new(&config, 8).unwrap();
    assert!(matches!(newer.ready().await, Err(Error::TooNew { found: 99, .. })));
    sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&store.pool).await.unwrap();
}
