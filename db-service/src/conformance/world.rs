//! A fresh store behind the service, and helpers for its calls.

use crate::{
    Server, Service,
    postgres::{PostgresStore, tests::test_config},
    rules::Limits,
    sqlite::{FILE, SqliteStore},
};
use abi::{
    ApiError,
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
use std::sync::Arc;
use tempfile::TempDir;

pub(super) const APP: &str = "default";
/// Most members of a group, in both stores.
pub(super) const MAX_MEMBERS: usize = 8;
const LIMITS: Limits = Limits { max_group_members: MAX_MEMBERS };

pub(super) type Client = DbServiceClient<Server>;

/// A fresh store behind two instances of the service.
pub(super) struct World {
    instances: Vec<Server>,
    tables: Tables,
}

/// Direct access to the tables.
enum Tables {
    Sqlite(TempDir),
    Postgres { pool: PgPool, schema: String },
}

impl World {
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Service::new(Arc::new(SqliteStore::open(folder.path(), LIMITS).unwrap())).server();
        // Only one instance can own the files, so both clients use it.
        Self { instances: vec![server.clone(), server], tables: Tables::Sqlite(folder) }
    }

    /// Two instances on a schema of their own.
    pub(super) async fn postgres() -> Self {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let (url, config) = test_config(&schema);
        let instance = || Service::new(Arc::new(PostgresStore::new(&config).unwrap())).server();
        let instances = vec![instance(), instance()];
        let set_schema = format!("SET search_path = {schema}");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .after_connect(move |conn, _| {
                let set_schema = set_schema.clone();
                Box::pin(async move { conn.execute(AssertSqlSafe(set_schema)).await.map(drop) })
            })
            .connect_lazy(&url)
            .unwrap();
        let world = Self { instances, tables: Tables::Postgres { pool, schema } };
        let mut starts = tokio::task::JoinSet::new();
        for mut client in [world.client(), world.other_client()] {
            // Both instances migrate the schema concurrently.
            starts.spawn(
                async move { client.get_signing_keys(abi::v1::GetSigningKeysRequest {}).await.unwrap() },
            );
        }
        starts.join_all().await;
        world
    }

    /// Drops the schema of PostgreSQL. The folder of SQLite is deleted with the world.
    pub(super) async fn clean_up(self) {
        if let Tables::Postgres { pool, schema } = self.tables {
            pool.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
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

    /// Runs a query whose result is one number.
    pub(super) async fn query(&self, sql: &'static str) -> i64 {
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
        self.history_of(user, page, 0).await
    }

    pub(super) async fn history_of(
        &self,
        user: &str,
        page: GetHistory,
        max_bytes: u64,
    ) -> Result<HistoryPage, ApiError> {
        let request = HistoryRequest { app: APP.into(), user: user.into(), page: Some(page), max_bytes };
        self.client().history(request).await.map(tonic::Response::into_inner).map_err(ApiError::from)
    }

    pub(super) async fn heads(&self, user: &str, page: GetHeads) -> HeadsPage {
        let request = HeadsRequest { app: APP.into(), user: user.into(), page: Some(page) };
        self.client().heads(request).await.unwrap().into_inner()
    }
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

/// The code of an error.
pub(super) fn code<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> ErrorCode {
    ApiError::from(result.unwrap_err()).code
}
