use super::*;
use crate::store::Marked;
use abi::v1::{Entry, Message, SaveOutcome, entry::Content, message::Body};
use std::time::Instant;

const CONVERSATION: &str = "d:a:b";

fn item(n: usize, text: &str) -> Item {
    let message = Message { content_type: String::new(), body: Some(Body::Text(text.into())) };
    Item::new(Entry {
        app: "app".into(),
        conversation: CONVERSATION.into(),
        message_id: abi::ids::message("app", CONVERSATION, "a", &n.to_string()),
        sender: "a".into(),
        content: Some(Content::Message(message)),
        ..Entry::default()
    })
    .unwrap()
}

fn view(user: &str) -> View {
    View { app: "app".into(), user: user.into(), conversation: CONVERSATION.into() }
}

async fn seqs(store: &SqliteStore) -> Vec<u64> {
    let page = store.history(view("b"), Page::After(0), 500).await.unwrap().unwrap();
    page.entries.iter().map(|entry| entry.conversation_seq).collect()
}

#[tokio::test]
async fn p1_reopening_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(&folder.path().join("new"), 8).unwrap();
    let store = open();
    store.save((0..100).map(|n| item(n, "x")).collect()).await.unwrap();
    store.create_user("app".into(), "a".into(), "hash".into()).await.unwrap();
    store.mark_read(view("b"), 40).await.unwrap();
    let key = abi::v1::SigningKey { id: "k".into(), secret: vec![7; 32].into() };
    store.signing_keys(key.clone()).await.unwrap();
    drop(store);
    let store = open();
    assert_eq!(seqs(&store).await, (1..=100).collect::<Vec<_>>());
    let again = store.save(vec![item(99, "x"), item(100, "x")]).await.unwrap();
    assert_eq!((again[0].outcome(), again[0].conversation_seq), (SaveOutcome::Duplicate, 100));
    assert_eq!((again[1].outcome(), again[1].conversation_seq), (SaveOutcome::Stored, 101));
    assert_eq!(store.password_hash("app".into(), "a".into()).await.unwrap().as_deref(), Some("hash"));
    assert_eq!(store.mark_read(view("b"), 1).await.unwrap(), Some(Marked { read_seq: 40, moved: false }));
    let other = abi::v1::SigningKey { id: "other".into(), secret: vec![8; 32].into() };
    assert_eq!(store.signing_keys(other).await.unwrap(), [key]);
}

#[tokio::test]
async fn p6_a_full_disk_is_an_outage_that_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), 8).unwrap();
    store.save(vec![item(0, "x")]).await.unwrap();
    let limit = |pages: u32| {
        store.on_writer(move |conn| {
            conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        })
    };
    limit(1).await.unwrap();
    let large = "x".repeat(64 << 10);
    for _ in 0..2 {
        let failed = store.save(vec![item(1, "x"), item(2, &large)]).await.unwrap_err();
        let fault = abi::ApiError::from(failed);
        assert_eq!(fault.code, abi::error::ErrorCode::Unavailable);
        assert!(fault.message.contains("disk"), "{fault}");
    }
    assert_eq!(seqs(&store).await, [1], "all or nothing");
    limit(1 << 30).await.unwrap();
    store.save(vec![item(1, "x"), item(2, &large)]).await.unwrap();
    assert_eq!(seqs(&store).await, [1, 2, 3]);
}

#[tokio::test]
async fn p4_numbers_go_on_after_another_process_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) =
        (SqliteStore::open(folder.path(), 8).unwrap(), SqliteStore::open(folder.path(), 8).unwrap());
    one.save(vec![item(0, "x")]).await.unwrap();
    two.save(vec![item(1, "x"), item(2, "x")]).await.unwrap();
    // What `one` remembers is old: it must fail rather than number anew, and know better the next time.
    let failed = one.save(vec![item(3, "x")]).await.unwrap_err();
    assert_eq!(abi::ApiError::from(failed).code, abi::error::ErrorCode::Unavailable);
    one.save(vec![item(3, "x")]).await.unwrap();
    assert_eq!(seqs(&two).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn p1_whoever_asks_for_it_gets_what_was_saved_before_synced() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), 8).unwrap();
    // A commit that has to be synced and writes nothing leaves a mark: SQLite would not sync it otherwise.
    let marks = || async {
        let conn = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
        conn.query_row("SELECT times FROM synced", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    store.sync().await.unwrap();
    let begun = marks().await;
    store.sync().await.unwrap();
    assert_eq!(marks().await, begun, "there is nothing to sync");
    store.save(vec![item(0, "x")]).await.unwrap();
    assert_eq!(marks().await, begun);
    store.sync().await.unwrap();
    assert_eq!(marks().await, begun + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_for_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), 8).unwrap();
    store.save(vec![item(0, "x")]).await.unwrap();
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
