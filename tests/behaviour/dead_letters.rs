//! Dead letters: how an operator lists, shows, replays and drops them with `godwit-cli`.

use abi::{ids, record, v1::Entry};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kafka_runtime::{
    KafkaConfig, KafkaProducer, KafkaProducerConfig, Log, LogConfig, LogTopic, Producer, ProducerRecord,
};
use prost::Message as _;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tests::{
    device::texts,
    eventually, http,
    process::Process,
    system::{Distributed, Embedded, unique},
    world::{Session, World},
};

/// The operator token in the distributed mode.
pub(crate) const TOKEN: &str = "a-token-of-operators-of-40-characters...";
/// A payload that can't be decoded as an entry.
const UNREADABLE: &[u8] = b"not an entry";

/// An operator's access to the dead letters of a system.
pub(crate) struct Operator {
    /// The admin address of a consumer.
    pub(crate) admin: String,
    /// `--data` or `--token`, and its value.
    pub(crate) credential: [String; 2],
}

impl Operator {
    async fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        self.run_as(&self.credential, arguments).await
    }

    async fn run_as(&self, credential: &[String; 2], arguments: &[&str]) -> Result<(bool, String)> {
        let admin = format!("http://{}", self.admin);
        let common = ["dead-letters", "--json", "--admin", &admin, &credential[0], &credential[1]];
        let mut process = Process::start("godwit-cli", common.into_iter().chain(arguments.iter().copied()))?;
        let status = process.ended().await?;
        Ok((status.success(), process.output().join("\n")))
    }

    /// Runs a command that must succeed, and returns the JSON lines of its output.
    pub(crate) async fn query(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let (success, output) = self.run(arguments).await?;
        ensure!(success, "{arguments:?}: {output}");
        output.lines().map(|line| serde_json::from_str(line).with_context(|| output.clone())).collect()
    }

    /// Waits until there are exactly `count` dead letters, and returns them.
    pub(crate) async fn dead_letters(&self, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} dead letters"), async || {
            let listed = self.query(&["list"]).await?;
            ensure!(listed.len() == count, "{listed:?}");
            Ok(listed)
        })
        .await
    }
}

/// Poison records with the key of a group that does not exist yet: messages of a user, and at the end an unreadable payload.
struct PoisonRecords {
    group: String,
    request_id: String,
    records: Vec<(Bytes, Bytes)>,
}

/// The sender can create the group later, with `request_id`.
fn poison(sender: &Session, texts: &[&str]) -> PoisonRecords {
    let request_id = unique();
    let group = ids::group(abi::DEFAULT_APP, &sender.user, &request_id);
    let key = record::key(abi::DEFAULT_APP, &group);
    let entry = |text: &&str| Entry {
        conversation: group.clone(),
        message_id: ids::message(abi::DEFAULT_APP, &group, &sender.user, &sender.device, text),
        client_msg_id: (*text).into(),
        sender: sender.user.clone(),
        sender_device: sender.device.clone(),
        sent_at_ms: 1_700_000_000_000,
        kind: abi::envelope::MESSAGE.into(),
        countable: true,
        content: Some(tests::device::content(text)),
        ..Entry::default()
    };
    let payloads = texts.iter().map(|text| entry(text).encode_to_vec().into());
    let records = payloads.chain([UNREADABLE.into()]).map(|payload| (key.clone(), payload)).collect();
    PoisonRecords { group, request_id, records }
}

pub(crate) async fn produce(
    producer: &dyn Producer,
    topic: &str,
    records: Vec<(Bytes, Bytes)>,
) -> Result<()> {
    for (key, payload) in records {
        producer.send(ProducerRecord::new(topic.into(), key, payload)).await?;
    }
    producer.flush(Duration::from_secs(10)).await?;
    Ok(())
}

/// Writes records to the log of a `godwit` that is not running.
pub(crate) async fn produce_embedded(data: &Path, records: Vec<(Bytes, Bytes)>) -> Result<()> {
    let log = Log::open(LogConfig::new(data.join("log"), vec![LogTopic::new(abi::EMBEDDED_TOPIC, 1)]))?;
    produce(&log, abi::EMBEDDED_TOPIC, records).await
}

pub(crate) async fn embedded_p6_dead_letters_are_listed_shown_replayed_and_dropped() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let alice = world.user("alice").await?;
    let poison = poison(&alice, &["first", "second", "third"]);
    system.process().signal("TERM")?;
    system.process().ended().await?;
    produce_embedded(&system.data(), poison.records.clone()).await?;
    system.start_again().await?;
    let credential = ["--data".to_owned(), system.data().to_string_lossy().into_owned()];
    check_commands(&world, &alice, poison, Operator { admin: system.admin().into(), credential }).await
}

pub(crate) async fn distributed_p6_dead_letters_are_listed_shown_replayed_and_dropped() -> Result<()> {
    let token = format!("operator.token={TOKEN}");
    let mut system = Distributed::start(&[&token]).await?;
    let world = World::at_addresses_of(&system);
    let alice = world.user("alice").await?;
    let poison = poison(&alice, &["first", "second", "third"]);
    let kafka = KafkaConfig::new(vec![system.servers.kafka.clone()], "test");
    let producer = KafkaProducer::new(&kafka, KafkaProducerConfig::default())?;
    produce(&producer, &system.topic, poison.records.clone()).await?;
    // Every consumer serves the dead letters of all partitions.
    let admin = system.instances("consumer").last().context("there are two")?.admin().to_owned();
    let credential = ["--token", TOKEN].map(str::to_owned);
    check_commands(&world, &alice, poison, Operator { admin, credential }).await
}

/// Checks all commands. The poison records are in the log.
async fn check_commands(
    world: &World,
    alice: &Session,
    poison: PoisonRecords,
    operator: Operator,
) -> Result<()> {
    let PoisonRecords { group, request_id, .. } = poison;
    let ids = check_list_and_show(&operator, alice, &group).await?;
    let unreadable = check_failed_replay(&operator, &ids[3]).await?;

    // Once the group exists, the messages to it can be stored.
    let body = json!({ "name": "friends", "members": [], "history": "all", "request_id": request_id });
    let created = world.http("POST", "/v1/groups", Some(&alice.access_token), Some(body)).await?;
    assert_eq!(created.json()?["conversation"], group, "{created:?}");
    operator.query(&["replay", "--reason", "group"]).await?;
    let mut device = world.connect(alice).await?;
    eventually("all messages are stored, in order", async || {
        let stored = device.whole_history(&group).await?;
        let messages: Vec<_> = texts(&stored).into_iter().filter(|text| !text.is_empty()).collect();
        ensure!(messages == ["first", "second", "third"], "{messages:?}");
        Ok(())
    })
    .await?;
    assert_eq!(operator.dead_letters(1).await?[0]["id"], *unreadable);
    operator.query(&["drop", &unreadable]).await?;
    operator.dead_letters(0).await?;
    for command in ["show", "replay", "drop"] {
        let (success, output) = operator.run(&[command, &unreadable]).await?;
        ensure!(!success && output.contains("there is no dead letter"), "{command}: {output}");
        let (success, output) = operator.run(&[command, "../x"]).await?;
        ensure!(!success && output.contains("PARTITION-OFFSET"), "{command}: {output}");
    }
    Ok(())
}

/// Checks `list` and `show`, and returns the ids of the four dead letters.
async fn check_list_and_show(operator: &Operator, alice: &Session, group: &str) -> Result<Vec<String>> {
    let listed = operator.dead_letters(4).await?;
    let text = Value::from(listed.clone()).to_string();
    ensure!(
        !text.contains("first") && !text.contains("payload_base64"),
        "a list shows message texts: {text}"
    );
    for dead_letter in &listed {
        let (conversation, attempts) = (&dead_letter["conversation"], &dead_letter["attempts"]);
        assert_eq!((conversation, attempts), (&json!(group), &json!(1)), "{dead_letter}");
        ensure!(dead_letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{dead_letter}");
    }
    let ids = listed.iter().filter_map(|dead_letter| dead_letter["id"].as_str()).map(str::to_owned);
    let ids: Vec<String> = ids.collect();
    let shown = operator.query(&["show", &ids[0]]).await?.remove(0);
    assert_eq!(shown["entry"]["sender"], alice.user, "{shown}");
    ensure!(shown.get("text").is_none() && shown.get("payload_base64").is_none(), "{shown}");
    assert_eq!(operator.query(&["show", &ids[0], "--body"]).await?[0]["text"], "first");
    let unreadable = operator.query(&["show", &ids[3], "--body"]).await?;
    ensure!(
        unreadable[0]["unreadable"].is_string() && unreadable[0].get("entry").is_none(),
        "{unreadable:?}"
    );
    Ok(ids)
}

/// Replays an unreadable dead letter. It fails again, as a new dead letter; returns the id of that one.
async fn check_failed_replay(operator: &Operator, id: &str) -> Result<String> {
    operator.query(&["replay", id]).await?;
    let rejected = eventually("the replayed record is rejected again", async || {
        let listed = operator.dead_letters(4).await?;
        let new = listed.into_iter().find(|dead_letter| dead_letter["replayed_from"] == id);
        new.context("no new dead letter")
    })
    .await?;
    assert_eq!(operator.query(&["list", "--reason", "not an entry"]).await?.len(), 1);
    assert_eq!(operator.query(&["list", "--conversation", "d:nobody:noone"]).await?.len(), 0);
    let (success, output) = operator.run(&["replay", id]).await?;
    ensure!(!success && output.contains("there is no dead letter"), "{output}");
    Ok(rejected["id"].as_str().context("no id")?.to_owned())
}

pub(crate) async fn embedded_p8_dead_letters_require_the_operator_token() -> Result<()> {
    let system = Embedded::start(&[]).await?;
    let credential = ["--data".to_owned(), system.data().to_string_lossy().into_owned()];
    let operator = Operator { admin: system.admin().into(), credential };
    operator.dead_letters(0).await?;
    let empty = tempfile::tempdir()?;
    let wrong = ["--data".to_owned(), empty.path().to_string_lossy().into_owned()];
    let (success, output) = operator.run_as(&wrong, &["list"]).await?;
    ensure!(!success && output.contains("--token"), "{output}");
    check_token_required(&operator).await
}

pub(crate) async fn distributed_p8_dead_letters_require_the_operator_token() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let consumer = system.instances("consumer").next().context("there are two")?;
    let credential = ["--token".to_owned(), "anything".to_owned()];
    let operator = Operator { admin: consumer.admin().to_owned(), credential };
    let (success, output) = operator.run(&["list"]).await?;
    ensure!(!success && output.contains("operator.token"), "without a token in the configuration: {output}");
    let gateway = system.instances("ws-gateway").next().context("there are two")?;
    let operator = Operator { admin: gateway.admin().to_owned(), ..operator };
    let (success, output) = operator.run(&["list"]).await?;
    ensure!(!success && output.contains("admin address of a consumer"), "{output}");
    Ok(())
}

async fn check_token_required(operator: &Operator) -> Result<()> {
    let wrong = ["--token".to_owned(), "0".repeat(64)];
    for command in
        [&["list"][..], &["show", "0-0"], &["replay", "0-0"], &["replay", "--all"], &["drop", "0-0"]]
    {
        let (success, output) = operator.run_as(&wrong, command).await?;
        ensure!(!success && output.contains("token is wrong"), "{command:?}: {output}");
    }
    for (method, path) in [
        ("GET", "/dead-letters"),
        ("GET", "/dead-letters/0-0"),
        ("POST", "/dead-letters/0-0/replay"),
        ("POST", "/dead-letters/replay"),
        ("DELETE", "/dead-letters/0-0"),
    ] {
        let answer = http::request(&operator.admin, method, path, None, None).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (401, "unauthenticated"), "{method} {path}");
    }
    Ok(())
}
