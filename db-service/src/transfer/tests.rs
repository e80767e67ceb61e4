use super::*;
use crate::{
    item::Item,
    postgres::{PostgresStore, tests::test_config},
    rules::Limits,
    sessions::{Rotation, SessionKey},
    sqlite::SqliteStore,
    store::{Page, PageLimit, Store, View},
};
use abi::v1::{Entry, Message, Session, SigningKey, entry::Content};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::fs::{self, File};
use tempfile::TempDir;

const LIMITS: Limits = Limits { max_group_members: 8 };

fn item(conversation: &str, n: usize) -> Item {
    Item::new(Entry {
        app: "app".into(),
        conversation: conversation.into(),
        message_id: abi::ids::message("app", conversation, "a", &n.to_string()),
        sender: "a".into(),
        sent_at_ms: 7,
        content: Some(Content::Message(Message { content_type: "x".repeat(n % 100), body: None })),
        ..Entry::default()
    })
    .unwrap()
}

fn view(user: &str) -> View {
    View { app: "app".into(), user: user.into(), conversation: "d:a:b".into() }
}

fn session(id: &str) -> Session {
    Session {
        session: id.into(),
        app: "app".into(),
        user: "a".into(),
        device: "phone".into(),
        ..Session::default()
    }
}

fn session_key() -> SessionKey {
    SessionKey::from(&session("s"))
}

async fn fill(store: &dyn Store) {
    store.create_user("app".into(), "a".into(), "hash".into()).await.unwrap();
    store.create_user("app".into(), "b".into(), "hash".into()).await.unwrap();
    store.create_session(session("s"), vec![1]).await.unwrap();
    let rotation = Rotation { presented: vec![1], next: vec![2], number: Some(1) };
    store.rotate_session(session_key(), rotation).await.unwrap();
    store.signing_keys(SigningKey { id: "k".into(), secret: vec![7; 32].into() }).await.unwrap();
    // More than one batch, and more than one fetch from a cursor.
    for from in (0..2_500).step_by(500) {
        store.save((from..from + 500).map(|n| item("d:a:b", n)).collect()).await.unwrap();
    }
    for n in 0..20 {
        store.save(vec![item(&format!("d:a:u{n}"), 0)]).await.unwrap();
    }
    store.mark_read(view("b"), 40).await.unwrap();
}

struct Data {
    folder: TempDir,
    schema: String,
}

impl Data {
    fn new() -> Self {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        Self { folder: tempfile::tempdir().unwrap(), schema }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn folder(&self, name: &str) -> Place {
        Place::Folder(self.at(name))
    }

    fn postgres(&self) -> Place {
        Place::Postgres(Box::new(test_config(&self.schema).1))
    }

    async fn export(&self, from: Place, to: &str) -> Result<Summary> {
        let file = File::create(self.at(to)).unwrap();
        copy(Source::Place(from), Target::File(Box::new(file))).await
    }

    async fn import(&self, from: &str, to: Place) -> Result<Summary> {
        let file = File::open(self.at(from)).unwrap();
        copy(Source::File(Box::new(file)), Target::Empty(to)).await
    }

    async fn checksums(&self, of: Source) -> String {
        let file = File::create(self.at("sums")).unwrap();
        copy(of, Target::Checksums(Box::new(file))).await.unwrap();
        fs::read_to_string(self.at("sums")).unwrap()
    }

    async fn drop_schema(&self) {
        let mut conn = PgConnection::connect(&test_config(&self.schema).0).await.unwrap();
        let drop = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema));
        sqlx::raw_sql(drop).execute(&mut conn).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_copy_to_postgres_and_back_is_complete() {
    let data = Data::new();
    let store = SqliteStore::open(&data.at("first"), LIMITS).unwrap();
    fill(&store).await;
    drop(store);
    let first = data.export(data.folder("first"), "file").await.unwrap();
    assert_eq!((first.users, first.sessions, first.conversations), (2, 1, 21));
    assert_eq!((first.members, first.entries), (42, 2_520));
    assert_eq!(data.import("file", data.postgres()).await.unwrap(), first);
    assert_eq!(data.export(data.postgres(), "back").await.unwrap(), first);
    assert_eq!(data.import("back", data.folder("second")).await.unwrap(), first);
    let sums = data.checksums(Source::Place(data.folder("first"))).await;
    assert_eq!(sums.lines().count(), 3 + 21 + 1, "{sums}");
    assert!(sums.contains(" 2500 app/d:a:b\n"), "{sums}");
    for of in [Source::Place(data.postgres()), Source::Place(data.folder("second"))] {
        assert_eq!(data.checksums(of).await, sums);
    }
    assert_eq!(data.checksums(Source::File(Box::new(File::open(data.at("back")).unwrap()))).await, sums);

    // Both copies continue the sequences of the source, each in a new generation.
    let (postgres, sqlite) = (
        PostgresStore::new(&test_config(&data.schema).1).unwrap(),
        SqliteStore::open(&data.at("second"), LIMITS).unwrap(),
    );
    let mut generations = Vec::new();
    for store in [&postgres as &dyn Store, &sqlite] {
        let again = store.save(vec![item("d:a:b", 2_499), item("d:a:b", 2_500), item("d:x:y", 0)]);
        let numbers: Vec<_> = again.await.unwrap().iter().map(|result| result.conversation_seq).collect();
        assert_eq!(numbers, [2_500, 2_501, 1]);
        let head = store.heads("app".into(), "b".into(), String::new(), 10).await.unwrap().heads.remove(0);
        assert_eq!((head.kept_seq, head.conversation_seq, head.read_seq), (2_500, 2_501, 40));
        let session = store.session(session_key()).await.unwrap().unwrap();
        generations.push((session.generation_before, session.generation));
    }
    let [(0, first), (second, third)] = generations[..] else { panic!("{generations:?}") };
    assert!(first == second && first != third && third != 0, "{generations:?}");
    data.drop_schema().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_damaged_file_is_refused_and_leaves_no_data() {
    let data = Data::new();
    let store = SqliteStore::open(&data.at("first"), LIMITS).unwrap();
    fill(&store).await;
    drop(store);
    data.export(data.folder("first"), "file").await.unwrap();
    let whole = fs::read(data.at("file")).unwrap();
    let damaged = |name: &str, bytes: &[u8]| fs::write(data.at(name), bytes).unwrap();
    damaged("cut", &whole[..whole.len() / 2]);
    damaged("without end", &whole[..whole.len() - 45]);
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    damaged("changed", &changed);
    damaged("longer", &[&whole[..], b"x"].concat());
    damaged("other", b"-- PostgreSQL database dump\n");
    for name in ["cut", "without end", "changed", "longer", "other"] {
        for place in [data.folder("second"), data.postgres()] {
            let error = data.import(name, place).await.unwrap_err().to_string();
            assert!(error.contains("file") && !error.contains("stopped"), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(data.at("second")).unwrap().count(), 0, "{name}");
    }
    // The target is still empty, so an intact file can be imported, but only once.
    for place in [data.folder("second"), data.postgres()] {
        data.import("file", place).await.unwrap();
    }
    for place in [data.folder("second"), data.postgres()] {
        assert!(matches!(data.import("file", place).await, Err(Error::NotEmpty { .. })));
    }
    data.drop_schema().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_backup_of_a_store_in_use_is_consistent_and_begins_a_generation() {
    let data = Data::new();
    let store = SqliteStore::open(&data.at("first"), LIMITS).unwrap();
    store.create_session(session("s"), vec![1]).await.unwrap();
    store.save((0..10).map(|n| item("d:a:b", n)).collect()).await.unwrap();
    back_up(&data.at("first"), &data.at("copy")).unwrap();
    store.save((10..20).map(|n| item("d:a:b", n)).collect()).await.unwrap();
    assert!(matches!(back_up(&data.at("first"), &data.at("copy")), Err(Error::NotEmpty { .. })));
    let mut generations = vec![0];
    for _ in 0..2 {
        let copy = SqliteStore::open(&data.at("copy"), LIMITS).unwrap();
        let page = copy
            .history(view("b"), Page::After(0), PageLimit { entries: 100, bytes: 1 << 20 })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(page.entries.len(), 10);
        let head = copy.heads("app".into(), "b".into(), String::new(), 10).await.unwrap().heads.remove(0);
        assert_eq!(head.kept_seq, 10);
        generations.push(copy.session(session_key()).await.unwrap().unwrap().generation);
    }
    assert_ne!(generations[0], generations[1], "the first opening begins a generation");
    assert_eq!(generations[1], generations[2], "the second opening does not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_restored_begins_a_generation() {
    let data = Data::new();
    let config = test_config(&data.schema).1;
    assert!(matches!(restored(&config).await, Err(Error::NoData)));
    let store = PostgresStore::new(&config).unwrap();
    fill(&store).await;
    restored(&config).await.unwrap();
    let session = store.session(session_key()).await.unwrap().unwrap();
    assert!(session.generation != 0 && session.generation_before == 0, "{session:?}");
    let head = store.heads("app".into(), "b".into(), String::new(), 10).await.unwrap().heads.remove(0);
    assert_eq!(head.kept_seq, 2_500);
    data.drop_schema().await;
}
