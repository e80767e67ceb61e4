//! Moves between the modes, backups and restores, with devices that keep their state and tokens.

use crate::positions::numbers;
use abi::v1::ReceiverSeq;
use anyhow::{Context as _, Result, ensure};
use client::{Client, Event, Events, Options, Server, State, tokens::FixedToken};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};
use tests::{
    device::{Wire, new_id, send, texts},
    eventually,
    process::Process,
    system::{Distributed, Embedded, Servers, unique},
    world::{Session, World},
};
use tokio::time::timeout;

/// Runs a command of `godwit`, and returns whether it succeeded, and its output.
async fn godwit(arguments: &[&str]) -> Result<(bool, Vec<String>)> {
    let mut process = Process::start("godwit", arguments)?;
    let status = process.ended().await?;
    Ok((status.success(), process.output()))
}

/// Runs a command that must succeed, and returns its output.
async fn succeed(arguments: &[&str]) -> Result<Vec<String>> {
    let (success, output) = godwit(arguments).await?;
    ensure!(success, "godwit {arguments:?} failed: {}", output.join("\n"));
    Ok(output)
}

/// Runs a command that must fail, and returns its output.
async fn fail(arguments: &[&str]) -> Result<String> {
    let (success, output) = godwit(arguments).await?;
    ensure!(!success, "godwit {arguments:?} succeeded: {}", output.join("\n"));
    Ok(output.join("\n"))
}

/// The checksums, by the object of each.
async fn checksums(arguments: &[&str]) -> Result<BTreeMap<String, String>> {
    let output = succeed(&[&["checksum"], arguments].concat()).await?;
    let lines = output.iter().filter_map(|line| line.split_once(' '));
    Ok(lines
        .filter(|(sum, _)| sum.len() == 64)
        .map(|(sum, object)| (object.to_owned(), sum.to_owned()))
        .collect())
}

/// The arguments that select the data of services.
fn distributed(servers: &Servers, schema: &str, topic: &str) -> Vec<String> {
    let settings = [
        format!("db.postgres={}", servers.postgres),
        format!("db.schema={schema}"),
        format!("kafka.brokers={}", servers.kafka),
        format!("kafka.topic={topic}"),
        format!("kafka.group={topic}"),
    ];
    ["--distributed".to_owned()]
        .into_iter()
        .chain(settings.map(|setting| format!("--set={setting}")))
        .collect()
}

fn strs<'a>(fixed: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    fixed.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

/// A device that uses the SDK.
struct SdkDevice {
    client: Client,
    events: Events,
}

impl SdkDevice {
    async fn connect(world: &World, session: &Session, state: State) -> Result<Self> {
        let server = Server::parse(&format!("http://{}", world.first_gateway()))?;
        let token = FixedToken(session.access_token.clone());
        let (client, events) = Client::connect(server, token, Options::default(), state).await?;
        Ok(Self { client, events })
    }

    /// Waits for `count` messages, and returns their texts. If the SDK reports a restored backup first, also returns the
    /// positions up to which the server kept the conversations.
    async fn next(&mut self, count: usize) -> Result<(Option<BTreeMap<String, u64>>, Vec<String>)> {
        let (mut restored, mut texts) = (None, Vec::new());
        while texts.len() < count {
            let event = timeout(tests::PATIENCE, self.events.next())
                .await
                .with_context(|| format!("only {texts:?}"))?;
            match event.context("the events ended")? {
                Event::Restored { kept } => {
                    ensure!(texts.is_empty(), "the report of a restored backup must come before the entries");
                    restored = Some(kept);
                }
                Event::Entry(entry) => {
                    let text = tests::device::text(&entry);
                    if !text.is_empty() {
                        texts.push(text.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok((restored, texts))
    }

    /// Disconnects, and returns the state for the next connection.
    async fn disconnect(self) -> State {
        let state = self.client.state();
        self.client.close().await;
        state
    }
}

/// Texts that consist of a name and a number.
pub(crate) fn numbered(name: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{name} {number}")).collect()
}

/// Sends texts over a new connection, and waits for all acks.
pub(crate) async fn send_all(
    world: &World,
    session: &Session,
    conversation: &str,
    contents: &[String],
) -> Result<()> {
    let mut device = world.connect(session).await?;
    for contents in contents.chunks(8) {
        let sent = device.pipeline(contents.iter().map(|text| send(conversation, &new_id(), text))).await?;
        for id in sent {
            device.answer(id).await?;
        }
    }
    device.drop_connection();
    Ok(())
}

/// A direct conversation of alice and bob, with 300 messages, that the tests move.
struct Conversation {
    alice: Session,
    bob: Session,
    id: String,
    /// The `client_msg_id` of the first message, for a retry.
    client_msg_id: String,
    /// The id of the first message.
    message_id: String,
}

impl Conversation {
    /// Sends the first message, which bob reads, and a message to a group.
    async fn start(world: &World) -> Result<Self> {
        let (alice, bob) = world.two_users().await?;
        let id = alice.conversation_with(&bob);
        let group = world.group(&alice, &[&bob], "from_join").await?;
        let mut alice_device = world.connect(&alice).await?;
        let client_msg_id = new_id();
        let message_id = alice_device.send(&id, &client_msg_id, "0").await?.message_id;
        alice_device.send(&group, &new_id(), "hello group").await?;
        let mut bob_device = world.connect(&bob).await?;
        eventually("bob reads", async || {
            ensure!(bob_device.mark_read(&id, 1).await?.read_seq == 1, "not yet");
            Ok(())
        })
        .await?;
        Ok(Self { alice, bob, id, client_msg_id, message_id })
    }

    /// Sends messages until there are 300, and waits for all acks.
    async fn fill(&self, world: &World) -> Result<()> {
        let mut alice_device = world.connect(&self.alice).await?;
        let ids = alice_device.pipeline((1..300).map(|n| send(&self.id, &new_id(), &n.to_string()))).await?;
        for id in ids {
            alice_device.answer(id).await?;
        }
        Ok(())
    }

    /// Continues the conversation after a move, with the tokens and the receiver seq from before. Returns all texts.
    async fn resume(&self, world: &World) -> Result<Vec<String>> {
        // The receiver seq of another system. It must not count as current here.
        let previous = Some(ReceiverSeq { epoch: 1, seq: 301 });
        let (mut alice_device, welcome) = world.connect_as(&self.alice, Wire::Proto, previous).await?;
        assert_ne!(welcome.receiver_seq, previous);
        assert_eq!(alice_device.send(&self.id, &self.client_msg_id, "0").await?.message_id, self.message_id);
        alice_device.send(&self.id, &new_id(), "300").await?;
        let expected: Vec<_> = (0..=300).map(|n| n.to_string()).collect();
        eventually("the new message is stored, and the retry stored nothing", async || {
            let stored = alice_device.whole_history(&self.id).await?;
            ensure!(texts(&stored) == expected, "{:?}", texts(&stored));
            let seqs: Vec<_> = stored.iter().map(|entry| entry.conversation_seq).collect();
            ensure!(seqs == (1..=301).collect::<Vec<_>>(), "{seqs:?}");
            Ok(())
        })
        .await?;
        let heads = world.connect(&self.bob).await?.heads().await?;
        let head = heads.iter().find(|head| head.conversation == self.id).context("no head")?;
        assert_eq!((head.read_seq, head.conversation_seq), (1, 301));
        Ok(expected)
    }
}

/// Imports a file, checks the checksums, and checks that a second import is refused. `data` names the target.
async fn import(file: &str, data: &[&str], checksums_before: &BTreeMap<String, String>) -> Result<()> {
    let import = [&["import", file], data].concat();
    succeed(&import).await?;
    assert_eq!(checksums(data).await?, *checksums_before, "every conversation is the same");
    let output = fail(&import).await?;
    ensure!(output.contains("is not empty"), "{output}");
    Ok(())
}

pub(crate) async fn p1_a_move_to_the_services_and_back_keeps_all_data_and_sessions() -> Result<()> {
    let servers = Servers::from_environment()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (home, file, back, other) = (path("home"), path("file"), path("back"), path("other"));
    let mut system = Embedded::start_in(home.clone().into(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let conversation = Conversation::start(&world).await?;
    let output = fail(&["export", &file, "--data", &home]).await?;
    ensure!(output.contains("in use") && !Path::new(&file).exists(), "{output}");
    // Kill the process right after the last ack. The log then has records that are not stored, or not durably.
    conversation.fill(&world).await?;
    system.kill();
    succeed(&["export", &file, "--data", &home]).await?;
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o077, 0, "an export has secrets");
    let sums = checksums(&["--data", &home]).await?;
    ensure!(sums.contains_key(&format!("300 default/{}", conversation.id)), "{sums:?}");
    assert_eq!(checksums(&[&file]).await?, sums);

    // To the services.
    let schema = format!("godwit_test_move_{}", unique());
    import(&file, &strs(&[], &distributed(&servers, &schema, "unused")), &sums).await?;
    let services = Distributed::start_on(servers.clone(), &[&format!("db.schema={schema}")]).await?;
    let world = World::at_addresses_of(&services);
    let expected = conversation.resume(&world).await?;
    let bob = world.refresh(&conversation.bob).await.context("the refresh token still works")?;

    // And back.
    let wrong_topic = distributed(&servers, &schema, "no-such-topic");
    let output = fail(&strs(&["export", &back], &wrong_topic)).await?;
    ensure!(output.contains("no-such-topic"), "{output}");
    let source = distributed(&servers, &schema, &services.topic);
    let export = strs(&["export", &back], &source);
    eventually("all records of Kafka are stored", async || succeed(&export).await).await?;
    drop(services);
    let sums = checksums(&strs(&[], &source)).await?;
    import(&back, &["--data", &other], &sums).await?;
    let system = Embedded::start_in(other.into(), &[]).await?;
    let world = World::at_addresses_of(&system);
    assert_eq!(texts(&world.connect(&bob).await?.whole_history(&conversation.id).await?), expected);
    Ok(())
}

pub(crate) async fn p1_devices_adopt_a_restored_backup_that_was_made_under_load() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (home, copy) = (path("home"), path("copy"));
    let mut system = Embedded::start_in(home.clone().into(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let (conversation, notes) = (alice.conversation_with(&bob), abi::ids::direct(&alice.user, &alice.user));
    let mut bob_device = SdkDevice::connect(&world, &bob, State::default()).await?;
    send_all(&world, &alice, &conversation, &numbered("kept", 0..10)).await?;
    assert_eq!(bob_device.next(10).await?, (None, numbered("kept", 0..10)));
    // The backup runs while alice sends messages to herself.
    let sending = async { send_all(&world, &alice, &notes, &numbered("note", 0..400)).await };
    let backup = ["backup", &copy, "--data", &home];
    let (backed_up, sent) = tokio::join!(succeed(&backup), sending);
    sent.and(backed_up)?;
    let output = fail(&backup).await?;
    ensure!(output.contains("exists"), "{output}");
    send_all(&world, &alice, &conversation, &numbered("lost", 0..5)).await?;
    assert_eq!(bob_device.next(5).await?, (None, numbered("lost", 0..5)));
    let bob_state = bob_device.disconnect().await;
    system.kill();
    std::fs::remove_dir_all(&home)?;

    let system = Embedded::start_in(copy.into(), &[]).await?;
    let world = World::at_addresses_of(&system);
    // Before bob reconnects, the conversation grows beyond its old length, with other messages at the same seqs.
    send_all(&world, &alice, &conversation, &numbered("new", 0..8)).await?;
    let mut bob_device = SdkDevice::connect(&world, &bob, bob_state).await?;
    let (restored, seen) = bob_device.next(8).await?;
    assert_eq!(restored, Some([(conversation.clone(), 10)].into()), "the SDK reports how much was kept");
    assert_eq!(seen, numbered("new", 0..8), "all new messages arrive");
    // The SDK reports the restored backup only once.
    send_all(&world, &alice, &conversation, &numbered("newer", 0..1)).await?;
    assert_eq!(bob_device.next(1).await?, (None, numbered("newer", 0..1)));
    let bob_state = bob_device.disconnect().await;
    send_all(&world, &alice, &conversation, &numbered("newest", 0..1)).await?;
    let mut bob_device = SdkDevice::connect(&world, &bob, bob_state).await?;
    assert_eq!(bob_device.next(1).await?, (None, numbered("newest", 0..1)));
    // Messages sent during the backup are kept up to some message, without gaps.
    let stored = world.connect(&alice).await?.whole_history(&notes).await?;
    assert_eq!(texts(&stored), numbered("note", 0..stored.len()));
    Ok(())
}

pub(crate) async fn p1_a_restored_database_is_completed_from_kafka() -> Result<()> {
    let servers = Servers::from_environment()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file").to_string_lossy().into_owned();
    let (lost, fresh) = (format!("godwit_test_lost_{}", unique()), format!("godwit_test_fresh_{}", unique()));
    let system = Distributed::start_on(servers.clone(), &[&format!("db.schema={lost}")]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut bob_device = SdkDevice::connect(&world, &bob, State::default()).await?;
    send_all(&world, &alice, &conversation, &numbered("kept", 0..10)).await?;
    bob_device.next(10).await?;
    let source = distributed(&servers, &lost, &system.topic);
    eventually("the backup succeeds", async || succeed(&strs(&["export", &file], &source)).await).await?;
    send_all(&world, &alice, &conversation, &numbered("in kafka", 0..5)).await?;
    bob_device.next(5).await?;
    let bob_state = bob_device.disconnect().await;
    let before = numbers(&world.connect(&alice).await?.whole_history(&conversation).await?);
    let topic = system.topic.clone();
    drop(system);

    // A new schema replaces the lost database. The consumer group has committed all records, and reads those again that follow the
    // position of the backup.
    succeed(&strs(&["import", &file], &distributed(&servers, &fresh, &topic))).await?;
    let settings = [
        format!("db.schema={fresh}"),
        format!("kafka.topic={topic}"),
        format!("kafka.group={topic}"),
        format!("redis.prefix={topic}-restored"),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let system = Distributed::start_on(servers, &settings).await?;
    let world = World::at_addresses_of(&system);
    let expected = [numbered("kept", 0..10), numbered("in kafka", 0..5)].concat();
    let mut alice_device = world.connect(&alice).await?;
    eventually("every acknowledged message is stored", async || {
        let stored = alice_device.whole_history(&conversation).await?;
        ensure!(texts(&stored) == expected, "{:?}", texts(&stored));
        ensure!(numbers(&stored) == before, "the numbers differ");
        Ok(())
    })
    .await?;
    let mut bob_device = SdkDevice::connect(&world, &bob, bob_state).await?;
    let (restored, seen) = bob_device.next(5).await?;
    assert_eq!(restored, Some([(conversation.clone(), 10)].into()));
    assert_eq!(
        seen,
        numbered("in kafka", 0..5),
        "messages after the backup are delivered again: the device cannot know that they are the same"
    );
    Ok(())
}
