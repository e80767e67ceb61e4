//! Dead letters as an operator handles them, with the real command line.

use abi::{
    ids, record,
    v1::{Entry, Message, entry::Content, message::Body},
};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kafka_runtime::{
    KafkaConfig, KafkaProducer, KafkaProducerConfig, Log, LogConfig, LogTopic, Producer, ProducerRecord,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tests::{
    device::texts,
    eventually, http,
    process::Process,
    system::{Distributed, Embedded, System, unique},
    world::{Session, World},
};

/// Of an operator, in the distributed mode.
const TOKEN: &str = "a-token-of-operators-of-40-characters...";
/// What is no entry.
const NONSENSE: &[u8] = b"not an entry";

/// How an operator reaches the letters of a system.
struct Operator {
    admin: String,
    /// `--data` or `--token`, and its value.
    right: [String; 2],
}

impl Operator {
    async fn run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        self.run_as(&self.right, arguments).await
    }

    async fn run_as(&self, right: &[String; 2], arguments: &[&str]) -> Result<(bool, String)> {
        let admin = format!("http://{}", self.admin);
        let common = ["dead-letters", "--json", "--admin", &admin, &right[0], &right[1]];
        let mut process = Process::start("godwit-cli", common.into_iter().chain(arguments.iter().copied()))?;
        let status = process.ended().await?;
        Ok((status.success(), process.output().join("\n")))
    }

    /// What a command that succeeds says.
    async fn ask(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let (success, said) = self.run(arguments).await?;
        ensure!(success, "{arguments:?}: {said}");
        said.lines().map(|line| serde_json::from_str(line).with_context(|| said.clone())).collect()
    }

    /// So many letters.
    async fn letters(&self, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} dead letters"), async || {
            let letters = self.ask(&["list"]).await?;
            ensure!(letters.len() == count, "{letters:?}");
            Ok(letters)
        })
        .await
    }
}

/// Records for a conversation that nobody has acknowledged: one that is no message, and some of `sender` to a group.
struct Poison {
    group: String,
    request: String,
    records: Vec<(Bytes, Bytes)>,
}

/// The group is made later, by `sender`.
fn poison(sender: &Session, texts: &[&str]) -> Poison {
    let request = unique();
    let group = ids::group(abi::DEFAULT_APP, &sender.user, &request);
    let key = record::key(abi::DEFAULT_APP, &group);
    let entry = |text: &&str| Entry {
        app: abi::DEFAULT_APP.into(),
        conversation: group.clone(),
        message_id: ids::message(abi::DEFAULT_APP, &group, &sender.user, text),
        client_msg_id: (*text).into(),
        sender: sender.user.clone(),
        sender_device: sender.device.clone(),
        sent_at_ms: 1_700_000_000_000,
        content: Some(Content::Message(Message {
            content_type: String::new(),
            body: Some(Body::Text((*text).into())),
        })),
        ..Entry::default()
    };
    let payloads = texts.iter().map(|text| record::encode(&entry(text)));
    let records = payloads.chain([NONSENSE.into()]).map(|payload| (key.clone(), payload)).collect();
    Poison { group, request, records }
}

async fn produce(producer: &dyn Producer, topic: &str, records: Vec<(Bytes, Bytes)>) -> Result<()> {
    for (key, payload) in records {
        producer.send(ProducerRecord::new(topic.into(), key, payload)).await?;
    }
    producer.flush(Duration::from_secs(10)).await?;
    Ok(())
}

/// Into the log of a `godwit` that is not running.
async fn produce_embedded(data: &Path, records: Vec<(Bytes, Bytes)>) -> Result<()> {
    let log = Log::open(LogConfig::new(data.join("log"), vec![LogTopic::new(abi::MESSAGES_TOPIC, 1)]))?;
    produce(&log, abi::MESSAGES_TOPIC, records).await
}

fn world_over(system: &dyn System) -> World {
    #[derive(Debug)]
    struct Addresses(&'static str, Vec<String>);
    impl System for Addresses {
        fn mode(&self) -> &'static str {
            self.0
        }
        fn gateways(&self) -> &[String] {
            &self.1
        }
    }
    World::new(std::sync::Arc::new(Addresses(system.mode(), system.gateways().to_vec())))
}

pub(crate) async fn embedded_p6_dead_letters_are_listed_shown_replayed_and_dropped() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = world_over(&system);
    let alice = world.user("alice").await?;
    let poison = poison(&alice, &["first", "second", "third"]);
    system.process().signal("TERM")?;
    system.process().ended().await?;
    produce_embedded(&system.data(), poison.records.clone()).await?;
    system.start_again().await?;
    let right = ["--data".to_owned(), system.data().to_string_lossy().into_owned()];
    listed_shown_replayed_and_dropped(
        &world,
        &alice,
        poison,
        Operator { admin: system.admin().into(), right },
    )
    .await
}

pub(crate) async fn distributed_p6_dead_letters_are_listed_shown_replayed_and_dropped() -> Result<()> {
    let token = format!("operator.token={TOKEN}");
    let mut system = Distributed::start(&[&token]).await?;
    let world = world_over(&system);
    let alice = world.user("alice").await?;
    let poison = poison(&alice, &["first", "second", "third"]);
    let kafka = KafkaConfig::new(vec![system.servers.kafka.clone()], "test");
    let producer = KafkaProducer::new(&kafka, KafkaProducerConfig::default())?;
    produce(&producer, &system.topic, poison.records.clone()).await?;
    // Any of the consumers answers for all.
    let admin = system.instances("consumer").last().context("there are two")?.admin().to_owned();
    let right = ["--token", TOKEN].map(str::to_owned);
    listed_shown_replayed_and_dropped(&world, &alice, poison, Operator { admin, right }).await
}

/// The records of `poison` are in the log.
async fn listed_shown_replayed_and_dropped(
    world: &World,
    alice: &Session,
    poison: Poison,
    operator: Operator,
) -> Result<()> {
    let Poison { group, request, .. } = poison;
    let letters = operator.letters(4).await?;
    let listed = Value::from(letters.clone()).to_string();
    ensure!(
        !listed.contains("first") && !listed.contains("payload_base64"),
        "a list shows what people wrote: {listed}"
    );
    for letter in &letters {
        assert_eq!((&letter["conversation"], &letter["attempts"]), (&json!(group), &json!(1)), "{letter}");
        ensure!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{letter}");
    }
    let ids: Vec<&str> = letters.iter().filter_map(|letter| letter["id"].as_str()).collect();
    let shown = operator.ask(&["show", ids[0]]).await?.remove(0);
    assert_eq!(shown["entry"]["sender"], alice.user, "{shown}");
    ensure!(shown.get("text").is_none() && shown.get("payload_base64").is_none(), "{shown}");
    assert_eq!(operator.ask(&["show", ids[0], "--body"]).await?[0]["text"], "first");
    let nonsense = operator.ask(&["show", ids[3], "--body"]).await?;
    ensure!(nonsense[0]["unreadable"].is_string() && nonsense[0].get("entry").is_none(), "{nonsense:?}");

    // Nothing is mended: it comes back as a new letter.
    operator.ask(&["replay", ids[3]]).await?;
    let nonsense = eventually("it is rejected again", async || {
        let letters = operator.letters(4).await?;
        let back = letters.into_iter().find(|letter| letter["replayed_from"] == ids[3]);
        back.context("it is not back")
    })
    .await?;
    let nonsense = nonsense["id"].as_str().context("no id")?;
    assert_eq!(operator.ask(&["list", "--reason", "not an Entry"]).await?.len(), 1);
    assert_eq!(operator.ask(&["list", "--conversation", "d:nobody:noone"]).await?.len(), 0);
    let (success, said) = operator.run(&["replay", ids[3]]).await?;
    ensure!(!success && said.contains("there is no dead letter"), "{said}");

    // The cause is mended: the group is there.
    let body = json!({ "name": "friends", "members": [], "history": "all", "request_id": request });
    let made = world.http("POST", "/v1/groups", Some(&alice.access_token), Some(body)).await?;
    assert_eq!(made.json()?["conversation"], group, "{made:?}");
    operator.ask(&["replay", "--reason", "group"]).await?;
    let mut device = world.connect(alice).await?;
    eventually("all are stored, in order", async || {
        let stored = device.whole_history(&group).await?;
        let said: Vec<_> = texts(&stored).into_iter().filter(|text| !text.is_empty()).collect();
        ensure!(said == ["first", "second", "third"], "{said:?}");
        Ok(())
    })
    .await?;
    assert_eq!(operator.letters(1).await?[0]["id"], nonsense);
    operator.ask(&["drop", nonsense]).await?;
    operator.letters(0).await?;
    for command in ["show", "replay", "drop"] {
        let (success, said) = operator.run(&[command, nonsense]).await?;
        ensure!(!success && said.contains("there is no dead letter"), "{command}: {said}");
        let (success, said) = operator.run(&[command, "../x"]).await?;
        ensure!(!success && said.contains("PARTITION-OFFSET"), "{command}: {said}");
    }
    Ok(())
}

pub(crate) async fn embedded_p8_dead_letters_are_for_operators() -> Result<()> {
    let system = Embedded::start(&[]).await?;
    let right = ["--data".to_owned(), system.data().to_string_lossy().into_owned()];
    let operator = Operator { admin: system.admin().into(), right };
    operator.letters(0).await?;
    let empty = tempfile::tempdir()?;
    let stranger = ["--data".to_owned(), empty.path().to_string_lossy().into_owned()];
    let (success, said) = operator.run_as(&stranger, &["list"]).await?;
    ensure!(!success && said.contains("--token"), "{said}");
    refused_without_the_token(&operator).await
}

pub(crate) async fn distributed_p8_dead_letters_are_for_operators() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let consumer = system.instances("consumer").next().context("there are two")?;
    let right = ["--token".to_owned(), "anything".to_owned()];
    let operator = Operator { admin: consumer.admin().to_owned(), right };
    let (success, said) = operator.run(&["list"]).await?;
    ensure!(!success && said.contains("operator.token"), "without a token in the configuration: {said}");
    let gateway = system.instances("ws-gateway").next().context("there are two")?;
    let operator = Operator { admin: gateway.admin().to_owned(), ..operator };
    let (success, said) = operator.run(&["list"]).await?;
    ensure!(!success && said.contains("admin address of a consumer"), "{said}");
    Ok(())
}

async fn refused_without_the_token(operator: &Operator) -> Result<()> {
    let wrong = ["--token".to_owned(), "0".repeat(64)];
    for command in
        [&["list"][..], &["show", "0-0"], &["replay", "0-0"], &["replay", "--all"], &["drop", "0-0"]]
    {
        let (success, said) = operator.run_as(&wrong, command).await?;
        ensure!(!success && said.contains("token is wrong"), "{command:?}: {said}");
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
