//! Several versions at once, as in a rolling upgrade: entries of a later version on their way through this one, and data of an older
//! version.

use crate::dead_letters::{Operator, TOKEN, produce, produce_embedded};
use abi::{
    envelope::{MESSAGE, field, put_bytes, put_number},
    ids, record,
    v1::{Content, EntriesPage, Entry, GetHistory, client_frame::Frame},
};
use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_runtime::{KafkaConfig, KafkaProducer, KafkaProducerConfig};
use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, query_scalar, raw_sql};
use tests::{
    device::{Device, Wire, content, text},
    eventually,
    process::Process,
    system::{Distributed, Embedded, Instance, Servers, unique},
    world::{Session, World},
};

/// A kind that this version doesn't know.
const LATER_KIND: &str = "hologram";
/// Numbers of fields that this version doesn't know.
const LATER_FIELDS: [u32; 2] = [900, 901];
/// Fields that are added on the way from the log to a device.
const ADDED: [u32; 5] =
    [field::CONVERSATION_SEQ, field::COUNTABLE_SEQ, field::REFERS_TO_SEQ, field::STATE, field::TARGET_STATE];

/// A server frame in which entries stay encoded.
#[derive(Clone, PartialEq, Message)]
struct EncodedFrame {
    #[prost(message, optional, tag = "4")]
    deliver: Option<EncodedDeliver>,
    #[prost(message, optional, tag = "6")]
    history: Option<EntriesPage>,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedDeliver {
    #[prost(bytes = "bytes", repeated, tag = "3")]
    entries: Vec<Bytes>,
}

/// The fields of an encoded message with their keys, ordered by number, without those that are added on the way.
fn fields(message: &Bytes) -> Result<Vec<(u32, Bytes)>> {
    let (mut rest, mut fields) = (message.clone(), Vec::new());
    while !rest.is_empty() {
        let begin = message.len() - rest.len();
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        fields.push((number, message.slice(begin..message.len() - rest.len())));
    }
    fields.retain(|(number, _)| !ADDED.contains(number));
    fields.sort_by_key(|(number, _)| *number);
    Ok(fields)
}

fn all_fields(entries: &[Bytes]) -> Result<Vec<Vec<(u32, Bytes)>>> {
    entries.iter().map(fields).collect()
}

/// An entry as the gateway of a later version writes it to the log, with unknown fields in it and in its content.
fn later_entry(entry: &Entry, text: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    let mut later_content = BytesMut::from(&Content::encode_to_vec(&content(text))[..]);
    put_bytes(LATER_FIELDS[0], b"of a later version", &mut later_content);
    entry.encode(&mut bytes).expect("a buffer grows");
    put_bytes(field::CONTENT, &later_content, &mut bytes);
    put_bytes(LATER_FIELDS[0], text.as_bytes(), &mut bytes);
    put_number(LATER_FIELDS[1], 7, &mut bytes);
    bytes.freeze()
}

/// A message, and entries of a later kind: one that counts as unread, and one that doesn't and refers to the message.
fn later_entries(sender: &Session, conversation: &str) -> Vec<Bytes> {
    let entry = |kind: &str, countable, text: &str, refers_to: &str| Entry {
        conversation: conversation.into(),
        message_id: ids::message(abi::DEFAULT_APP, conversation, &sender.user, &sender.device, text),
        client_msg_id: text.into(),
        sender: sender.user.clone(),
        sender_device: sender.device.clone(),
        sent_at_ms: 1_700_000_000_000,
        kind: kind.into(),
        countable,
        refers_to: refers_to.into(),
        ..Entry::default()
    };
    let message = entry(MESSAGE, true, "one", "");
    let countable = entry(LATER_KIND, true, "two", "");
    let reference = entry(LATER_KIND, false, "three", &message.message_id);
    vec![later_entry(&message, "one"), later_entry(&countable, "two"), later_entry(&reference, "three")]
}

fn records(conversation: &str, entries: &[Bytes]) -> Vec<(Bytes, Bytes)> {
    let key = record::key(abi::DEFAULT_APP, conversation);
    entries.iter().map(|entry| (key.clone(), entry.clone())).collect()
}

/// Two devices of a user: one reads encoded entries, the other one JSON.
struct Receiver {
    proto: Device,
    json: Device,
}

impl Receiver {
    async fn connect(world: &World, user: &Session) -> Result<Self> {
        let other = world.log_in(user, "tablet").await?;
        let json = world.connect_as(&other, Wire::Json, None).await?.0;
        Ok(Self { proto: world.connect(user).await?, json })
    }

    /// Checks that these entries are delivered live.
    async fn check_live(&mut self, sent: &[Bytes]) -> Result<()> {
        let mut delivered = Vec::new();
        while delivered.len() < sent.len() {
            let frame = EncodedFrame::decode(self.proto.encoded_frame().await?)?;
            delivered.extend(frame.deliver.into_iter().flat_map(|deliver| deliver.entries));
        }
        ensure!(all_fields(&delivered)? == all_fields(sent)?, "{delivered:?} was delivered, not {sent:?}");
        check_known(&self.json.entries(sent.len()).await?)
    }

    /// Checks that the conversation ends with these entries.
    async fn check_history(&mut self, conversation: &str, sent: &[Bytes]) -> Result<()> {
        let json = self.json.whole_history(conversation).await?;
        check_known(&json[json.len().saturating_sub(sent.len())..])?;
        let page = GetHistory { conversation: conversation.into(), ..GetHistory::default() };
        self.proto.pipeline([Frame::History(page)]).await?;
        let stored = loop {
            let frame = EncodedFrame::decode(self.proto.encoded_frame().await?)?;
            if let Some(page) = frame.history {
                break page.entries;
            }
        };
        let last = &stored[stored.len().saturating_sub(sent.len())..];
        ensure!(all_fields(last)? == all_fields(sent)?, "{last:?} is stored, not {sent:?}");
        let heads = self.json.heads().await?;
        let head = heads.iter().find(|head| head.conversation == conversation).context("no head")?;
        assert_eq!((head.unread, head.last.as_ref().map(text)), (2, Some("three")));
        // The connection is still open.
        self.json.ping().await.map(drop)
    }
}

/// Checks what this version knows of [`later_entries`].
fn check_known(entries: &[Entry]) -> Result<()> {
    let known: Vec<_> = entries.iter().map(|entry| (&*entry.kind, entry.countable, text(entry))).collect();
    ensure!(
        known == [(MESSAGE, true, "one"), (LATER_KIND, true, "two"), (LATER_KIND, false, "three")],
        "{known:?}"
    );
    ensure!(entries[2].refers_to_seq == entries[0].conversation_seq, "{entries:?}");
    Ok(())
}

/// The log gets entries to a direct conversation, and entries to a group that does not exist yet. Those are dead letters until
/// the group exists; then an operator replays them while the devices are connected.
pub(crate) async fn embedded_p6_entries_of_later_versions_pass_byte_for_byte() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let (direct, request_id) = (alice.conversation_with(&bob), unique());
    let group = ids::group(abi::DEFAULT_APP, &alice.user, &request_id);
    let (to_direct, to_group) = (later_entries(&alice, &direct), later_entries(&alice, &group));
    system.process().signal("TERM")?;
    system.process().ended().await?;
    let all = [records(&group, &to_group), records(&direct, &to_direct)].concat();
    produce_embedded(&system.data(), all).await?;
    system.start_again().await?;
    let credential = ["--data".to_owned(), system.data().to_string_lossy().into_owned()];
    let operator = Operator { admin: system.admin().into(), credential };
    operator.dead_letters(to_group.len()).await?;
    let body = json!({ "name": "friends", "members": [bob.user], "request_id": request_id });
    let created = world.http("POST", "/v1/groups", Some(&alice.access_token), Some(body)).await?;
    assert_eq!(created.json()?["conversation"], group, "{created:?}");
    let mut receiver = Receiver::connect(&world, &bob).await?;
    operator.query(&["replay", "--all"]).await?;
    receiver.check_live(&to_group).await?;
    receiver.check_history(&group, &to_group).await?;
    receiver.check_history(&direct, &to_direct).await?;
    operator.dead_letters(0).await.map(drop)
}

pub(crate) async fn distributed_p6_entries_of_later_versions_pass_byte_for_byte() -> Result<()> {
    let mut system = Distributed::start(&[&format!("operator.token={TOKEN}")]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut receiver = Receiver::connect(&world, &bob).await?;
    let kafka = KafkaConfig::new(vec![system.servers.kafka.clone()], "test");
    let producer = KafkaProducer::new(&kafka, KafkaProducerConfig::default())?;
    for conversation in [group, alice.conversation_with(&bob)] {
        let sent = later_entries(&alice, &conversation);
        produce(&producer, &system.topic, records(&conversation, &sent)).await?;
        receiver.check_live(&sent).await?;
        receiver.check_history(&conversation, &sent).await?;
    }
    let admin = system.instances("consumer").next().context("there are two")?.admin().to_owned();
    let operator = Operator { admin, credential: ["--token", TOKEN].map(str::to_owned) };
    operator.dead_letters(0).await.map(drop)
}

/// Versions of data that this version can't migrate.
const OLDER: [i64; 2] = [1, 10];

pub(crate) async fn embedded_data_of_an_older_version_are_refused_and_stay_as_they_are() -> Result<()> {
    for version in OLDER {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("store/store.sqlite");
        std::fs::create_dir_all(folder.path().join("store"))?;
        let store = rusqlite::Connection::open(&file)?;
        store.execute_batch("CREATE TABLE messages (id INTEGER); INSERT INTO messages VALUES (7)")?;
        store.pragma_update(None, "user_version", version)?;
        drop(store);
        let older = std::fs::read(&file)?;
        let mut godwit = Process::spawn("godwit", Embedded::command(folder.path(), &[], "127.0.0.1:0")?)?;
        let status = godwit.ended().await?;
        let output = godwit.output().join("\n");
        assert_eq!(status.code(), Some(1), "{output}");
        for part in [
            &*folder.path().to_string_lossy(),
            &format!("schema {version}"),
            "start with an empty data folder",
        ] {
            ensure!(output.contains(part), "{part:?} is not in: {output}");
        }
        let store = rusqlite::Connection::open(&file)?;
        let kept: i64 = store.query_row("SELECT id FROM messages", [], |row| row.get(0))?;
        assert_eq!((kept, std::fs::read(&file)?.len()), (7, older.len()));
    }
    Ok(())
}

pub(crate) async fn distributed_data_of_an_older_version_are_refused_and_stay_as_they_are() -> Result<()> {
    let servers = Servers::from_environment()?;
    let mut database = PgConnection::connect(&servers.postgres).await?;
    for version in OLDER {
        let schema = format!("godwit_test_{}", unique());
        let statements = format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.schema_version (version bigint, oldest bigint); \
             INSERT INTO {schema}.schema_version VALUES ({version}, 1)"
        );
        raw_sql(AssertSqlSafe(statements)).execute(&mut database).await?;
        let settings = vec![
            format!("db.postgres={}", servers.postgres),
            format!("db.schema={schema}"),
            "discovery.kind=fixed".to_owned(),
        ];
        let instance = Instance::start_unready("db-service", settings, "127.0.0.1:0").await?;
        eventually("db-service says what to do", async || {
            let (status, body) = instance.readiness().await?;
            let is_refused = body.contains(&format!("schema {version}"))
                && body.contains("empty data folder or database schema");
            ensure!(status == 503 && is_refused, "{status} {body}");
            Ok(())
        })
        .await?;
        drop(instance);
        let count = query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = $1").bind(&schema);
        let tables: i64 = count.fetch_one(&mut database).await?;
        assert_eq!(tables, 1);
        raw_sql(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&mut database).await?;
    }
    Ok(())
}
