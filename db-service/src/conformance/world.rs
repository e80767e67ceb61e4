//! A fresh store behind the service, and helpers for its calls.

pub(super) use super::builders::{
    added, change, created, dissolved, edit, entry, left, marks, message, message_id, owner_changed,
    reaction, recall, removed, renamed, text,
};
use super::{
    builders::names,
    sharded::{SHARDS, Sharded},
};
use crate::{
    Server, Service,
    position::{LogPartition, unused_partition},
    postgres::{PostgresStore, tests::test_config},
    rules::tests::LIMITS,
    sqlite::{FILE, SqliteStore},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        Entry, GetHistory, GetReaders, Head, HeadsOfRequest, HeadsRequest, HistoryPage, HistoryRequest,
        MarkedRead, Readers, ReadersRequest, SaveOutcome, SaveRequest, SaveResult, User,
        db_service_client::DbServiceClient,
    },
};
use prost::Message as _;
use sqlx::{AssertSqlSafe, Executor as _, PgPool, postgres::PgPoolOptions};
use std::sync::Arc;
use tempfile::TempDir;

pub(super) const APP: &str = "default";
/// When all entries were sent, unless a test says otherwise.
pub(super) const SENT_AT_MS: i64 = 1_700_000_000_000;
/// Most members of a group, in both stores.
pub(super) const MAX_MEMBERS: usize = LIMITS.max_group_members;

pub(super) type Client = DbServiceClient<Server>;

/// A fresh store behind two instances of the service.
pub(super) struct World {
    instances: Vec<Server>,
    tables: Tables,
}

/// Direct access to the tables.
enum Tables {
    Sqlite(TempDir),
    /// One schema, or one per shard and one of the users.
    Postgres(Vec<Schema>),
}

struct Schema {
    name: String,
    pool: PgPool,
}

impl Schema {
    /// Connects to a new schema, which the store creates.
    fn new() -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let (url, _) = test_config(&name);
        let set_schema = format!("SET search_path = {name}");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .after_connect(move |conn, _| {
                let set_schema = set_schema.clone();
                Box::pin(async move { conn.execute(AssertSqlSafe(set_schema)).await.map(drop) })
            })
            .connect_lazy(&url)
            .unwrap();
        Self { name, pool }
    }

    fn store(&self) -> PostgresStore {
        let (_, config) = test_config(&self.name);
        PostgresStore::new(&config, LIMITS).unwrap()
    }
}

impl World {
    pub(super) fn sqlite() -> Self {
        // These tests need no real disk: a sync costs nothing in memory.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.unwrap();
        let server = Service::new(Arc::new(SqliteStore::open(folder.path(), LIMITS).unwrap())).server();
        // Only one instance can own the files, so both clients use it.
        Self { instances: vec![server.clone(), server], tables: Tables::Sqlite(folder) }
    }

    /// Two instances on a schema of their own.
    pub(super) async fn postgres() -> Self {
        let schema = Schema::new();
        let instance = || Service::new(Arc::new(schema.store())).server();
        Self::of_schemas(vec![instance(), instance()], vec![schema]).await
    }

    /// Two instances on three schemas of their own: two for conversations, and one for users.
    pub(super) async fn sharded() -> Self {
        let schemas: [Schema; SHARDS + 1] = std::array::from_fn(|_| Schema::new());
        let [first, second, users] = &schemas;
        let instance = || {
            let shards = [first.store(), second.store()];
            Service::new(Arc::new(Sharded { shards, users: users.store() })).server()
        };
        Self::of_schemas(vec![instance(), instance()], schemas.into()).await
    }

    async fn of_schemas(instances: Vec<Server>, schemas: Vec<Schema>) -> Self {
        let world = Self { instances, tables: Tables::Postgres(schemas) };
        let mut starts = tokio::task::JoinSet::new();
        for mut client in [world.client(), world.other_client()] {
            // Both instances migrate each schema concurrently.
            starts.spawn(async move {
                client.get_signing_keys(abi::v1::GetSigningKeysRequest {}).await.unwrap();
                client
                    .heads(HeadsRequest { app: APP.into(), user: "a".into(), ..HeadsRequest::default() })
                    .await
                    .unwrap();
            });
        }
        starts.join_all().await;
        world
    }

    /// Drops the schemas of PostgreSQL. The folder of SQLite is deleted with the world.
    pub(super) async fn clean_up(self) {
        if let Tables::Postgres(schemas) = self.tables {
            for Schema { name, pool } in schemas {
                pool.execute(AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"))).await.unwrap();
            }
        }
    }

    /// Number of schemas of PostgreSQL.
    pub(super) fn schemas(&self) -> usize {
        match &self.tables {
            Tables::Sqlite(_) => 0,
            Tables::Postgres(schemas) => schemas.len(),
        }
    }

    /// A client of the first instance.
    pub(super) fn client(&self) -> Client {
        DbServiceClient::new(self.instances[0].clone()).max_decoding_message_size(64 << 20)
    }

    /// A client of the second instance.
    pub(super) fn other_client(&self) -> Client {
        DbServiceClient::new(self.instances[1].clone()).max_decoding_message_size(64 << 20)
    }

    /// A client of a new instance, which has nothing in memory.
    pub(super) fn client_of_reopened_store(&self) -> Client {
        match &self.tables {
            Tables::Sqlite(folder) => {
                let store = SqliteStore::open(folder.path(), LIMITS).unwrap();
                DbServiceClient::new(Service::new(Arc::new(store)).server())
            }
            Tables::Postgres(_) => self.client(),
        }
    }

    /// Runs a query whose result is one number. With several schemas, the sum of their results.
    pub(super) async fn query(&self, sql: &'static str) -> i64 {
        match &self.tables {
            Tables::Sqlite(folder) => {
                let conn = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
                conn.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Tables::Postgres(schemas) => {
                let mut sum = 0;
                for schema in schemas {
                    let found: Option<Option<i64>> =
                        sqlx::query_scalar(sql).fetch_optional(&schema.pool).await.unwrap();
                    sum += found.flatten().unwrap_or(0);
                }
                sum
            }
        }
    }

    /// Runs a statement, with several schemas in each.
    pub(super) async fn execute(&self, sql: &'static str) {
        match &self.tables {
            Tables::Sqlite(folder) => {
                let conn = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
                conn.execute(sql, []).unwrap();
            }
            Tables::Postgres(schemas) => {
                for schema in schemas {
                    schema.pool.execute(sql).await.unwrap();
                }
            }
        }
    }

    pub(super) async fn save(&self, entries: Vec<Entry>) -> Vec<SaveResult> {
        save(&mut self.client(), entries).await
    }

    /// Saves one entry and asserts that it is stored.
    pub(super) async fn store(&self, entry: Entry) -> SaveResult {
        let result = self.save(vec![entry]).await.remove(0);
        assert_eq!(result.outcome(), SaveOutcome::Stored, "{result:?}");
        result
    }

    /// Saves one entry and asserts that it is rejected.
    pub(super) async fn reject(&self, entry: Entry) -> ErrorCode {
        let result = self.save(vec![entry]).await.remove(0);
        assert_eq!(result.outcome(), SaveOutcome::Rejected, "{result:?}");
        assert_eq!((result.conversation_seq, result.countable_seq), (0, 0));
        result.error.unwrap().code()
    }

    pub(super) async fn users(&self, users: &[&str]) {
        for user in users {
            let user = User { app: APP.into(), user: (*user).into(), password_hash: "$argon2id$x".into() };
            let request = abi::v1::CreateUserRequest { user: Some(user) };
            self.client().create_user(request).await.unwrap();
        }
    }

    pub(super) async fn history(&self, user: &str, page: GetHistory) -> Result<HistoryPage, ApiError> {
        let request = HistoryRequest {
            app: APP.into(),
            user: user.into(),
            page: Some(page),
            ..HistoryRequest::default()
        };
        let page = self.client().history(request).await.map_err(ApiError::from)?.into_inner();
        // Equal on the wire.
        Ok(HistoryPage::decode(page.encode_to_vec().as_slice()).unwrap())
    }

    /// All entries of a conversation that a user can see.
    pub(super) async fn entries(&self, user: &str, conversation: &str) -> Vec<Entry> {
        let (mut entries, mut after) = (Vec::new(), 0);
        loop {
            let page =
                GetHistory { conversation: conversation.into(), after, limit: 100, ..GetHistory::default() };
            let page = self.history(user, page).await.unwrap();
            entries.extend(page.entries);
            after = entries.last().map_or(0, |entry| entry.conversation_seq);
            if !page.more {
                return entries;
            }
        }
    }

    /// A page of heads, and the cursor of the next one.
    pub(super) async fn heads(&self, user: &str, cursor: &str, limit: i32) -> (Vec<Head>, String) {
        let request = HeadsRequest { app: APP.into(), user: user.into(), cursor: cursor.into(), limit };
        let page = self.client().heads(request).await.unwrap().into_inner();
        (page.heads.into_iter().map(|head| Head::decode(head).unwrap()).collect(), page.next)
    }

    /// The heads of named conversations.
    pub(super) async fn heads_of(&self, user: &str, conversations: &[&str]) -> Vec<Head> {
        let request =
            HeadsOfRequest { app: APP.into(), user: user.into(), conversations: names(conversations) };
        let page = self.client().heads_of(request).await.unwrap().into_inner();
        page.heads.into_iter().map(|head| Head::decode(head).unwrap()).collect()
    }

    /// The head of one conversation.
    pub(super) async fn head(&self, user: &str, conversation: &str) -> Head {
        let mut heads = self.heads_of(user, &[conversation]).await;
        assert_eq!(heads.len(), 1);
        heads.remove(0)
    }

    /// Saves entries one by one and asserts that they are stored.
    pub(super) async fn store_all<const N: usize>(&self, entries: [Entry; N]) {
        for entry in entries {
            self.store(entry).await;
        }
    }

    /// Saves messages of the first user of a direct conversation.
    pub(super) async fn save_messages(&self, conversation: &str, messages: usize) {
        let sender = conversation.split(':').nth(1).unwrap();
        let messages = (0..messages).map(|n| message(conversation, sender, &n.to_string()));
        self.save(messages.collect()).await;
    }

    /// Moves one read position.
    pub(super) async fn mark_read(&self, user: &str, conversation: &str, seq: u64) -> MarkedRead {
        let request = marks(&[(user, conversation, seq)]);
        self.client().mark_read(request).await.unwrap().into_inner().marked.remove(0)
    }

    /// Who has read an entry, as a user sees it.
    pub(super) async fn readers(
        &self,
        user: &str,
        conversation: &str,
        seq: u64,
    ) -> Result<Readers, ApiError> {
        self.readers_after(user, conversation, seq, "", 500).await
    }

    /// A page of the members who can see an entry.
    pub(super) async fn readers_after(
        &self,
        user: &str,
        conversation: &str,
        seq: u64,
        after: &str,
        limit: i32,
    ) -> Result<Readers, ApiError> {
        let (conversation, after) = (conversation.to_owned(), after.to_owned());
        let page = GetReaders { conversation, conversation_seq: seq, after, limit };
        let request = ReadersRequest { app: APP.into(), user: user.into(), page: Some(page) };
        self.client().readers(request).await.map(tonic::Response::into_inner).map_err(ApiError::from)
    }
}

/// A request to save entries, from a partition of its own.
pub(super) fn save_request(entries: &[Entry]) -> SaveRequest {
    save_request_at(&unused_partition(), 0, entries)
}

/// A request to save the entries of a part of the log without other records.
pub(super) fn save_request_at(partition: &LogPartition, first_offset: i64, entries: &[Entry]) -> SaveRequest {
    SaveRequest {
        app: APP.into(),
        entries: entries.iter().map(|entry| entry.encode_to_vec().into()).collect(),
        topic: partition.topic.clone(),
        partition: partition.number,
        first_offset,
        next_offset: first_offset + entries.len() as i64,
        offsets: Vec::new(),
    }
}

pub(super) async fn save(client: &mut Client, entries: Vec<Entry>) -> Vec<SaveResult> {
    client.save(save_request(&entries)).await.unwrap().into_inner().results
}

/// The code of an error.
pub(super) fn code<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> ErrorCode {
    ApiError::from(result.unwrap_err()).code
}
