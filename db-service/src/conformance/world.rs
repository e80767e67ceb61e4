//! A store to test, and short ways to talk to it.

use crate::{
    Server, Service,
    postgres::PostgresStore,
    sqlite::{FILE, SqliteStore},
};
use abi::{
    ApiError,
    config::{Db, Secret},
    error::ErrorCode,
    ids,
    v1::{
        Entry, GetHeads, GetHistory, GroupChange, GroupCreated, HeadsPage, HeadsRequest, HistoryPage,
        HistoryRequest, HistoryVisibility, MemberLeft, MembersAdded, MembersRemoved, Message, SaveOutcome,
        SaveRequest, SaveResult, User, db_service_client::DbServiceClient, entry::Content,
        group_change::Change, message::Body,
    },
};
use sqlx::{AssertSqlSafe, Executor as _, PgPool, postgres::PgPoolOptions};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tempfile::TempDir;

pub(super) const APP: &str = "default";
/// Most members of a group here.
pub(super) const MAX_MEMBERS: usize = 8;

pub(super) type Client = DbServiceClient<Server>;

/// A fresh store behind one or more instances of the service.
pub(super) struct World {
    instances: Vec<Server>,
    tables: Tables,
    /// What the clock of all instances shows.
    now_ms: Arc<AtomicI64>,
}

/// The way to the tables themselves, around the service.
enum Tables {
    Sqlite(TempDir),
    Postgres { pool: PgPool, schema: String },
}

impl World {
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicI64::new(1_000_000));
        let server = serve(Arc::new(SqliteStore::open(folder.path(), MAX_MEMBERS).unwrap()), &now_ms);
        // Only one instance can own the files; "the other one" is the same.
        Self { instances: vec![server.clone(), server], tables: Tables::Sqlite(folder), now_ms }
    }

    /// Two instances on a schema of their own.
    pub(super) async fn postgres() -> Self {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let (url, config) = postgres_config(&schema);
        let now_ms = Arc::new(AtomicI64::new(1_000_000));
        let instance = || serve(Arc::new(PostgresStore::new(&config, MAX_MEMBERS).unwrap()), &now_ms);
        let instances = vec![instance(), instance()];
        let in_schema = format!("SET search_path = {schema}");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .after_connect(move |conn, _| {
                let in_schema = in_schema.clone();
                Box::pin(async move { conn.execute(AssertSqlSafe(in_schema)).await.map(drop) })
            })
            .connect_lazy(&url)
            .unwrap();
        let world = Self { instances, tables: Tables::Postgres { pool, schema }, now_ms };
        let mut starts = tokio::task::JoinSet::new();
        for mut client in [world.client(), world.other()] {
            // Both bring the schema up to date at once.
            starts.spawn(
                async move { client.get_signing_keys(abi::v1::GetSigningKeysRequest {}).await.unwrap() },
            );
        }
        starts.join_all().await;
        world
    }

    /// Removes what the next run would not: nothing of SQLite's, the schema of PostgreSQL's.
    pub(super) async fn clean_up(self) {
        if let Tables::Postgres { pool, schema } = self.tables {
            pool.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
        }
    }

    /// Moves the clock of all instances.
    pub(super) fn later(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// A client of the first instance.
    pub(super) fn client(&self) -> Client {
        DbServiceClient::new(self.instances[0].clone()).max_decoding_message_size(64 << 20)
    }

    /// A client of another instance.
    pub(super) fn other(&self) -> Client {
        DbServiceClient::new(self.instances[1].clone()).max_decoding_message_size(64 << 20)
    }

    /// The one number that a query finds in the tables.
    pub(super) async fn number(&self, sql: &'static str) -> i64 {
        match &self.tables {
            Tables::Sqlite(folder) => {
                let conn = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
                conn.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Tables::Postgres { pool, .. } => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        }
    }

    pub(super) async fn save(&self, entries: Vec<Entry>) -> Vec<SaveResult> {
        save(&mut self.client(), entries).await
    }

    /// Saves one entry and expects it to be stored.
    pub(super) async fn store(&self, entry: Entry) -> SaveResult {
        let result = self.save(vec![entry]).await.remove(0);
        assert_eq!(result.outcome(), SaveOutcome::Stored, "{result:?}");
        result
    }

    /// Saves one entry and expects it to be rejected.
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
        let request = HistoryRequest { app: APP.into(), user: user.into(), page: Some(page) };
        self.client().history(request).await.map(tonic::Response::into_inner).map_err(ApiError::from)
    }

    pub(super) async fn heads(&self, user: &str, page: GetHeads) -> HeadsPage {
        let request = HeadsRequest { app: APP.into(), user: user.into(), page: Some(page) };
        self.client().heads(request).await.unwrap().into_inner()
    }
}

/// The database for tests, and the configuration of an instance on it.
pub(crate) fn postgres_config(schema: &str) -> (String, Db) {
    let url = std::env::var("GODWIT_TEST_POSTGRES").expect(
        "GODWIT_TEST_POSTGRES is not set: run the tests with tests/run, or set it to the address of a PostgreSQL",
    );
    let config =
        Db { postgres: Secret::new(url.clone()), schema: schema.into(), max_connections: 4, ..Db::default() };
    (url, config)
}

fn serve(store: Arc<dyn crate::store::Store>, now_ms: &Arc<AtomicI64>) -> Server {
    let now_ms = Arc::clone(now_ms);
    Service::new(store).with_clock(move || now_ms.load(Ordering::SeqCst)).server()
}

pub(super) async fn save(client: &mut Client, entries: Vec<Entry>) -> Vec<SaveResult> {
    client.save(SaveRequest { entries }).await.unwrap().into_inner().results
}

fn entry(conversation: &str, sender: &str, client_msg_id: &str, content: Content) -> Entry {
    let id = match content {
        Content::Message(_) => ids::message,
        Content::GroupChange(_) => ids::change,
    };
    Entry {
        app: APP.into(),
        conversation: conversation.into(),
        message_id: id(APP, conversation, sender, client_msg_id),
        sender: sender.into(),
        sender_device: "phone".into(),
        client_msg_id: client_msg_id.into(),
        sent_at_ms: 1_700_000_000_000,
        content: Some(content),
        ..Entry::default()
    }
}

pub(super) fn message(conversation: &str, sender: &str, client_msg_id: &str) -> Entry {
    let body = Some(Body::Text(format!("text of {client_msg_id}")));
    let message = Message { content_type: String::new(), body };
    entry(conversation, sender, client_msg_id, Content::Message(message))
}

pub(super) fn change(conversation: &str, sender: &str, client_msg_id: &str, change: Change) -> Entry {
    let change = GroupChange { change: Some(change) };
    entry(conversation, sender, client_msg_id, Content::GroupChange(change))
}

pub(super) fn created(members: &[&str], history: HistoryVisibility) -> Change {
    Change::Created(GroupCreated { name: "A group".into(), members: names(members), history: history.into() })
}

pub(super) fn added(users: &[&str]) -> Change {
    Change::Added(MembersAdded { users: names(users) })
}

pub(super) fn removed(users: &[&str]) -> Change {
    Change::Removed(MembersRemoved { users: names(users) })
}

pub(super) fn left() -> Change {
    Change::Left(MemberLeft {})
}

fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

/// The code of a refusal.
pub(super) fn code<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> ErrorCode {
    ApiError::from(answer.unwrap_err()).code
}
