mod sample;

use super::{tables::TABLES, *};
use crate::{
    position::Batch,
    postgres::{PostgresStore, tests::test_config},
    rules::Limits,
    sqlite::SqliteStore,
    store::{Conversations, Directory, MAX_PAGE_BYTES, Page, PageLimit, Users},
};
use sample::{fill, fill_users, head, item, session, session_key, view};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use std::{
    collections::BTreeSet,
    fs::{self, File},
};
use tempfile::TempDir;

const LIMITS: Limits =
    Limits { max_group_members: 8, edit_window_ms: 0, recall_window_ms: 0, max_receipt_members: 100 };

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
    assert_eq!((first.users, first.sessions, first.conversations), (3, 1, 22));
    assert_eq!((first.members, first.entries), (45, 2_528));
    assert_eq!(data.import("file", data.postgres()).await.unwrap(), first);
    assert_eq!(data.export(data.postgres(), "back").await.unwrap(), first);
    assert_eq!(data.import("back", data.folder("second")).await.unwrap(), first);
    let sums = data.checksums(Source::Place(data.folder("first"))).await;
    assert_eq!(sums.lines().count(), 7 + 22 + 1, "{sums}");
    let tables = [" 1 settings\n", " 1 blocks\n", " 1 profiles\n", " 3 users\n", " 26 log positions\n"];
    for line in [" 2503 app/d:a:b\n", " 5 app/g:1\n"].into_iter().chain(tables) {
        assert!(sums.contains(line), "{line}: {sums}");
    }
    for of in [Source::Place(data.postgres()), Source::Place(data.folder("second"))] {
        assert_eq!(data.checksums(of).await, sums);
    }
    assert_eq!(data.checksums(Source::File(Box::new(File::open(data.at("back")).unwrap()))).await, sums);

    // Both copies continue the sequences of the source, each in a new generation.
    let (postgres, sqlite) = (
        PostgresStore::new(&test_config(&data.schema).1, LIMITS).unwrap(),
        SqliteStore::open(&data.at("second"), LIMITS).unwrap(),
    );
    let generations = [continued(&postgres).await, continued(&sqlite).await];
    let [(first, 0), (third, second)] = generations else { panic!("{generations:?}") };
    assert!(first == second && first != third && third != 0, "{generations:?}");
    data.drop_schema().await;
}

/// Saves entries to a copy. Returns its generations.
async fn continued<S: Conversations + Users + Directory>(store: &S) -> (u32, u32) {
    let items = vec![item("d:a:b", 2_499), item("d:a:b", 2_500), item("d:a:y", 0)];
    let results = store.save(Batch::alone(items)).await.unwrap();
    let numbers: Vec<_> = results.iter().map(|result| result.conversation_seq).collect();
    assert_eq!(numbers, [2_500, 2_504, 1]);
    let head = head(store, "b").await;
    assert_eq!((head.kept_seq, head.conversation_seq, head.read_seq), (2_503, 2_504, 40));
    assert_eq!(head.unread, 2_501 - 40 - 1, "one message is recalled");
    assert!(store.session(session_key()).await.unwrap().is_some());
    store.generation().await.unwrap()
}

/// The columns of all tables that are in [`TABLES`], as `TABLE.COLUMN`.
fn listed() -> BTreeSet<String> {
    let of_table = |table: &'static tables::Table| {
        table.all_columns().map(|(column, _)| format!("{}.{column}", table.name))
    };
    TABLES.iter().flat_map(of_table).collect()
}

/// Whether a table belongs to the schema itself.
fn is_internal(table: &str) -> bool {
    ["generation", "schema_version", "synced"].contains(&table) || table.starts_with("sqlite_")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_every_table_and_every_column_is_copied() {
    let data = Data::new();
    let store = SqliteStore::open(&data.at("first"), LIMITS).unwrap();
    fill(&store).await;
    let columns = store
        .on_writer(|conn| {
            let mut select = conn.prepare(
                "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'",
            )?;
            let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            rows.collect::<Result<Vec<_>, _>>()
        })
        .await
        .unwrap();
    let stored = |columns: Vec<(String, String)>| -> BTreeSet<String> {
        let columns = columns.into_iter().filter(|(table, _)| !is_internal(table));
        columns.map(|(table, column)| format!("{table}.{column}")).collect()
    };
    assert_eq!(stored(columns), listed());
    for table in TABLES {
        let count = format!("SELECT count(*) FROM {}", table.name);
        let rows = store.on_writer(move |conn| conn.query_row(&count, [], |row| row.get::<_, i64>(0))).await;
        assert_ne!(rows.unwrap(), 0, "the test must fill {}", table.name);
    }
    PostgresStore::new(&test_config(&data.schema).1, LIMITS).unwrap().ready().await.unwrap();
    let mut conn = PgConnection::connect(&test_config(&data.schema).0).await.unwrap();
    let columns = sqlx::query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = $1",
    );
    let columns = columns.bind(&data.schema).fetch_all(&mut conn).await.unwrap();
    assert_eq!(stored(columns.iter().map(|row| (row.get(0), row.get(1))).collect()), listed());
    data.drop_schema().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_another_format_is_refused_with_a_reason() {
    let data = Data::new();
    fs::write(data.at("old"), b"godwit export 1\nrecords of that format").unwrap();
    let error = data.import("old", data.folder("second")).await.unwrap_err().to_string();
    assert!(error.contains("another release"), "{error}");
    let store = SqliteStore::open(&data.at("first"), LIMITS).unwrap();
    fill_users(&store).await;
    drop(store);
    data.export(data.folder("first"), "file").await.unwrap();
    // The list of tables in the file differs. The file is read up to there before its checksum.
    let mut other = fs::read(data.at("file")).unwrap();
    let at = other.windows(8).position(|bytes| bytes == b"profiles").unwrap();
    other[at..at + 8].copy_from_slice(b"profilez");
    fs::write(data.at("other"), other).unwrap();
    let error = data.import("other", data.folder("second")).await.unwrap_err().to_string();
    assert!(error.contains("another release") || error.contains("checksum"), "{error}");
    assert_eq!(fs::read_dir(data.at("second")).unwrap().count(), 0);
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
    store.save(Batch::alone((0..10).map(|n| item("d:a:b", n)).collect())).await.unwrap();
    back_up(&data.at("first"), &data.at("copy")).unwrap();
    store.save(Batch::alone((10..20).map(|n| item("d:a:b", n)).collect())).await.unwrap();
    assert!(matches!(back_up(&data.at("first"), &data.at("copy")), Err(Error::NotEmpty { .. })));
    let mut generations = vec![0];
    for _ in 0..2 {
        let copy = SqliteStore::open(&data.at("copy"), LIMITS).unwrap();
        let page = copy
            .history(view("b"), Page::After(0), PageLimit { entries: 100, bytes: MAX_PAGE_BYTES })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(page.entries.len(), 10);
        assert_eq!(head(&copy, "b").await.kept_seq, 10);
        generations.push(copy.generation().await.unwrap().0);
    }
    assert_ne!(generations[0], generations[1], "the first opening begins a generation");
    assert_eq!(generations[1], generations[2], "the second opening does not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_restored_begins_a_generation() {
    let data = Data::new();
    let config = test_config(&data.schema).1;
    assert!(matches!(restored(&config).await, Err(Error::NoData)));
    let store = PostgresStore::new(&config, LIMITS).unwrap();
    fill(&store).await;
    restored(&config).await.unwrap();
    let (now, before) = store.generation().await.unwrap();
    assert!(now != 0 && before == 0, "{now} {before}");
    assert_eq!(head(&store, "b").await.kept_seq, 2_503);
    data.drop_schema().await;
}
