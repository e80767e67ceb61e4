//! Tests of durability, outages and concurrency.

use super::*;
use crate::{
    item::Item,
    position::Batch,
    rules::tests::LIMITS,
    statements::{self as sql, changes},
    store::{Directory as _, MAX_PAGE_BYTES, Users as _},
};
use abi::v1::{Content, Entry, SaveOutcome, content::Body};
use prost::Message as _;
use std::time::Instant;

const CONVERSATION: &str = "d:a:b";

fn item(n: usize, text: &str) -> Item {
    let entry = Entry {
        conversation: CONVERSATION.into(),
        message_id: abi::ids::message("app", CONVERSATION, "a", "phone", &n.to_string()),
        sender: "a".into(),
        kind: abi::envelope::MESSAGE.into(),
        countable: true,
        content: Some(Content { content_type: String::new(), body: Some(Body::Text(text.into())) }),
        ..Entry::default()
    };
    Item::new("app", entry.encode_to_vec().into()).unwrap()
}

fn view(user: &str) -> View {
    View { app: "app".into(), user: user.into(), conversation: CONVERSATION.into() }
}

async fn mark_read(store: &SqliteStore, conversation_seq: u64) -> u64 {
    let mark = ReadMark { user: "b".into(), conversation: CONVERSATION.into(), conversation_seq };
    let marked = store.mark_read("app".into(), vec![mark]).await.unwrap().remove(0);
    marked.position.unwrap().read_seq
}

async fn seqs(store: &SqliteStore) -> Vec<u64> {
    let page = store
        .history(view("b"), Page::After(0), PageLimit { entries: 500, bytes: MAX_PAGE_BYTES })
        .await
        .unwrap()
        .unwrap();
    page.entries.iter().map(|entry| Entry::decode(entry.clone()).unwrap().conversation_seq).collect()
}

#[tokio::test]
async fn p1_all_data_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(&folder.path().join("new"), LIMITS).unwrap();
    let store = open();
    store.save(Batch::alone((0..100).map(|n| item(n, "x")).collect())).await.unwrap();
    store.create_user("app".into(), "a".into(), "hash".into()).await.unwrap();
    assert_eq!(mark_read(&store, 40).await, 40);
    let key = abi::v1::SigningKey { id: "k".into(), secret: vec![7; 32].into() };
    store.signing_keys(key.clone()).await.unwrap();
    drop(store);
    let store = open();
    assert_eq!(seqs(&store).await, (1..=100).collect::<Vec<_>>());
    let again = store.save(Batch::alone(vec![item(99, "x"), item(100, "x")])).await.unwrap();
    assert_eq!((again[0].outcome(), again[0].conversation_seq), (SaveOutcome::Duplicate, 100));
    assert_eq!((again[1].outcome(), again[1].conversation_seq), (SaveOutcome::Stored, 101));
    assert_eq!(store.password_hash("app".into(), "a".into()).await.unwrap().as_deref(), Some("hash"));
    assert_eq!(mark_read(&store, 1).await, 40);
    let other = abi::v1::SigningKey { id: "other".into(), secret: vec![8; 32].into() };
    assert_eq!(store.signing_keys(other).await.unwrap(), [key]);
}

#[tokio::test]
async fn p6_a_full_disk_makes_the_store_unavailable_until_space_is_freed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), LIMITS).unwrap();
    store.save(Batch::alone(vec![item(0, "x")])).await.unwrap();
    let limit = |pages: u32| {
        store.on_writer(move |conn| {
            conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        })
    };
    limit(1).await.unwrap();
    let large = "x".repeat(64 << 10);
    for _ in 0..2 {
        let batch = Batch::alone(vec![item(1, "x"), item(2, &large)]);
        let partition = batch.partition.clone();
        let failed = store.save(batch).await.unwrap_err();
        assert_eq!(store.position(partition).await.unwrap(), None, "the position is part of the transaction");
        let error = abi::ApiError::from(failed);
        assert_eq!(error.code, abi::error::ErrorCode::Unavailable);
        assert!(error.message.contains("disk"), "{error}");
    }
    assert_eq!(seqs(&store).await, [1], "all or nothing");
    limit(1 << 30).await.unwrap();
    store.save(Batch::alone(vec![item(1, "x"), item(2, &large)])).await.unwrap();
    assert_eq!(seqs(&store).await, [1, 2, 3]);
}

#[tokio::test]
async fn connections_have_page_caches_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), LIMITS).unwrap();
    let shares = store.on_writer(|conn| {
        let select = "SELECT sqlite_compileoption_used('ENABLE_MEMORY_MANAGEMENT')";
        conn.query_row(select, [], |row| row.get::<_, bool>(0))
    });
    assert!(!shares.await.unwrap(), "build in this repository: .cargo/config.toml sets the flags of SQLite");
}

#[tokio::test]
async fn p4_numbering_continues_after_a_write_of_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        SqliteStore::open(folder.path(), LIMITS).unwrap(),
        SqliteStore::open(folder.path(), LIMITS).unwrap(),
    );
    one.save(Batch::alone(vec![item(0, "x")])).await.unwrap();
    two.save(Batch::alone(vec![item(1, "x"), item(2, "x")])).await.unwrap();
    // The cache of `one` is stale. The save must fail instead of reusing a number, and the retry must succeed.
    let failed = one.save(Batch::alone(vec![item(3, "x")])).await.unwrap_err();
    assert_eq!(abi::ApiError::from(failed).code, abi::error::ErrorCode::Unavailable);
    one.save(Batch::alone(vec![item(3, "x")])).await.unwrap();
    assert_eq!(seqs(&two).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn p1_a_sync_makes_earlier_saves_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), LIMITS).unwrap();
    // SQLite does not sync a commit that wrote nothing, so `sync` increments this counter.
    let forced_syncs = || async {
        let conn = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
        conn.query_row("SELECT times FROM synced", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    store.sync().await.unwrap();
    let begun = forced_syncs().await;
    store.sync().await.unwrap();
    assert_eq!(forced_syncs().await, begun, "there is nothing to sync");
    store.save(Batch::alone(vec![item(0, "x")])).await.unwrap();
    assert_eq!(forced_syncs().await, begun);
    store.sync().await.unwrap();
    assert_eq!(forced_syncs().await, begun + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_does_not_wait_for_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), LIMITS).unwrap();
    store.save(Batch::alone(vec![item(0, "x")])).await.unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let busy = store.on_writer(move |_| {
        begun.send(()).unwrap();
        ends.recv().unwrap();
        Ok(())
    });
    let read = async {
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        let started = Instant::now();
        assert_eq!(seqs(&store).await, [1]);
        assert!(started.elapsed().as_secs() < 2);
        end.send(()).unwrap();
    };
    tokio::join!(async { busy.await.unwrap() }, read);
}

#[test]
fn shared_statements_bind_their_parameters_by_number() {
    let folder = tempfile::tempdir().unwrap();
    let conn = schema::open_writer(&folder.path().join(FILE)).unwrap();
    for (sql, parameters) in [
        (sql::CREATE_USER, 3),
        (sql::PASSWORD_HASH, 2),
        (sql::SESSION, 3),
        (sql::DELETE_SESSIONS_OF_DEVICE, 3),
        (sql::INSERT_SESSION, 7),
        (sql::UPDATE_SESSION, 6),
        (sql::DELETE_SESSION, 3),
        (sql::INSERT_FIRST_SIGNING_KEY, 2),
        (changes::GROUP, 2),
        (changes::CONVERSATION, 2),
        (changes::ENTRY_SEQS, 2),
        (changes::ENTRY_PAYLOAD, 2),
        (changes::INSERT_ENTRY, 10),
        (changes::ROLE, 2),
        (changes::TARGET, 3),
        (changes::RENAME, 2),
        (changes::STATE, 2),
        (changes::REPLACE_STATE, 9),
        (changes::OWN_REACTIONS, 3),
        (changes::REPLACE_REACTIONS, 4),
        (changes::DELETE_REACTIONS, 3),
        (changes::EXCLUDE_RECALLED, 3),
        (changes::UPDATE_ROLE, 3),
        (sql::UPDATE_GENERATION, 2),
        (sql::reads::VISIBILITY, 3),
        (sql::reads::INBOX, 5),
        (sql::reads::SENDER, 2),
        (sql::reads::READERS, 5),
        (sql::users::USER_EXISTS, 2),
        (sql::users::REPLACE_PROFILE, 3),
        (sql::users::CHANGE_SETTINGS, 8),
        (sql::users::COUNT_BLOCKS, 3),
        (sql::users::INSERT_BLOCK, 3),
        (sql::users::DELETE_BLOCK, 3),
        (sql::users::BLOCKS, 4),
        (history::STATES, 5),
        (heads::HEAD, 3),
        (heads::READ_BY_OTHERS, 3),
        (reads::POSITION, 3),
        (reads::COUNT_EXCLUDED, 4),
        (reads::AUTHORS, 4),
        (reads::MOVE, 5),
    ] {
        let statement = conn.prepare(sql).unwrap();
        let names: Vec<_> = (1..=parameters).map(|index| statement.parameter_name(index)).collect();
        let expected: Vec<_> = (1..=parameters).map(|index| format!("${index}")).collect();
        assert_eq!(names, expected.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>(), "{sql}");
        assert_eq!(statement.parameter_count(), parameters, "{sql}");
    }
}
