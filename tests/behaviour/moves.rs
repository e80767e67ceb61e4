//! Data as a whole: moved from one mode to the other, backed up and restored, while devices keep what they have.

use abi::v1::{ReceiverSeq, message::Body};
use anyhow::{Context as _, Result, ensure};
use client::{Client, Event, Events, Options, Server, State, tokens::FixedToken};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};
use tests::{
    device::{Wire, new_id, send, texts},
    eventually,
    process::Process,
    system::{Distributed, Embedded, Servers, System, unique},
    world::{Session, World},
};
use tokio::time::timeout;

/// A world over a system that the test ends by itself.
fn world_over(system: &dyn System) -> World {
    #[derive(Debug)]
    struct Addresses(Vec<String>, &'static str);
    impl System for Addresses {
        fn mode(&self) -> &'static str {
            self.1
        }
        fn gateways(&self) -> &[String] {
            &self.0
        }
    }
    World::new(Arc::new(Addresses(system.gateways().to_vec(), system.mode())))
}

/// Runs a command of `godwit`: whether it succeeded, and what it said.
async fn godwit(arguments: &[&str]) -> Result<(bool, Vec<String>)> {
    let mut process = Process::start("godwit", arguments)?;
    let status = process.ended().await?;
    Ok((status.success(), process.output()))
}

/// What a command that succeeds says.
async fn done(arguments: &[&str]) -> Result<Vec<String>> {
    let (success, said) = godwit(arguments).await?;
    ensure!(success, "godwit {arguments:?} failed: {}", said.join("\n"));
    Ok(said)
}

/// What a command that fails says.
async fn refused(arguments: &[&str]) -> Result<String> {
    let (success, said) = godwit(arguments).await?;
    ensure!(!success, "godwit {arguments:?} succeeded: {}", said.join("\n"));
    Ok(said.join("\n"))
}

/// The lines of checksums, by what they are of.
async fn checksums(arguments: &[&str]) -> Result<BTreeMap<String, String>> {
    let said = done(&[&["checksum"], arguments].concat()).await?;
    let lines = said.iter().filter_map(|line| line.split_once(' '));
    Ok(lines.filter(|(sum, _)| sum.len() == 64).map(|(sum, of)| (of.to_owned(), sum.to_owned())).collect())
}

/// The arguments that name the data of services.
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

/// A device of the SDK, with what it has seen.
struct Sdk {
    client: Client,
    events: Events,
}

impl Sdk {
    async fn connect(world: &World, session: &Session, state: State) -> Result<Self> {
        let server = Server::parse(&format!("http://{}", world.first_gateway()))?;
        let token = FixedToken(session.access_token.clone());
        let (client, events) = Client::connect(server, token, Options::default(), state).await?;
        Ok(Self { client, events })
    }

    /// The next so many entries, by their texts, and what was said of a restored backup before them.
    async fn next(&mut self, count: usize) -> Result<(Option<BTreeMap<String, u64>>, Vec<String>)> {
        let (mut restored, mut texts) = (None, Vec::new());
        while texts.len() < count {
            let event = timeout(tests::PATIENCE, self.events.next())
                .await
                .with_context(|| format!("only {texts:?}"))?;
            match event.context("it ended")? {
                Event::Restored { kept } => {
                    ensure!(texts.is_empty(), "it comes before the entries");
                    restored = Some(kept);
                }
                Event::Entry(entry) => {
                    if let Some(abi::v1::entry::Content::Message(message)) = entry.content
                        && let Some(Body::Text(text)) = message.body
                    {
                        texts.push(text);
                    }
                }
                _ => {}
            }
        }
        Ok((restored, texts))
    }

    async fn leave(self) -> State {
        let state = self.client.state();
        self.client.close().await;
        state
    }
}

fn numbered(name: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{name} {number}")).collect()
}

/// Sends texts over a connection of its own, each acknowledged.
async fn say(world: &World, session: &Session, talk: &str, words: &[String]) -> Result<()> {
    let mut device = world.connect(session).await?;
    for words in words.chunks(8) {
        let sent = device.pipeline(words.iter().map(|text| send(talk, &new_id(), text))).await?;
        for id in sent {
            device.answer(id).await?;
        }
    }
    device.drop_connection();
    Ok(())
}

pub(crate) async fn p1_a_move_to_the_services_and_back_takes_everything_and_every_device_along() -> Result<()>
{
    let servers = Servers::from_environment()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (home, file, back, other) = (path("home"), path("file"), path("back"), path("other"));
    let mut system = Embedded::start_in(home.clone().into(), &[]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let group = world.group(&alice, &[&bob], "from_join").await?;
    let mut alices = world.connect(&alice).await?;
    let retried = new_id();
    let first = alices.send(&talk, &retried, "0").await?;
    alices.send(&group, &new_id(), "hello group").await?;
    let mut bobs = world.connect(&bob).await?;
    eventually("bob reads", async || {
        ensure!(bobs.mark_read(&talk, 1).await?.read_seq == 1, "not yet");
        Ok(())
    })
    .await?;
    let said = refused(&["export", &file, "--data", &home]).await?;
    ensure!(said.contains("in use") && !Path::new(&file).exists(), "{said}");
    // Killed as soon as the last message is acknowledged: the log holds what the store has not, or not durably.
    let sent = alices.pipeline((1..300).map(|n| send(&talk, &new_id(), &n.to_string()))).await?;
    for id in sent {
        alices.answer(id).await?;
    }
    system.kill();
    done(&["export", &file, "--data", &home]).await?;
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o077, 0, "it holds secrets");
    let sums = checksums(&["--data", &home]).await?;
    ensure!(sums.contains_key(&format!("300 default/{talk}")), "{sums:?}");
    assert_eq!(checksums(&[&file]).await?, sums);

    let schema = format!("godwit_test_move_{}", unique());
    let at = distributed(&servers, &schema, "unused");
    done(&strs(&["import", &file], &at)).await?;
    assert_eq!(checksums(&strs(&[], &at)).await?, sums, "every conversation is the same");
    let said = refused(&strs(&["import", &file], &at)).await?;
    ensure!(said.contains("is not empty"), "{said}");

    let services = Distributed::start_on(servers.clone(), &[&format!("db.schema={schema}")]).await?;
    let moved = world_over(&services);
    // The same tokens, and a receiver's seq of before, which means nothing here.
    let had = Some(ReceiverSeq { epoch: 1, seq: 301 });
    let (mut alices, welcome) = moved.connect_as(&alice, Wire::Proto, had).await?;
    assert_ne!(welcome.receiver_seq, had);
    assert_eq!(alices.send(&talk, &retried, "0").await?.message_id, first.message_id);
    alices.send(&talk, &new_id(), "300").await?;
    let expected: Vec<_> = (0..=300).map(|n| n.to_string()).collect();
    eventually("the conversation goes on, and the retry is no second message", async || {
        let stored = alices.whole_history(&talk).await?;
        ensure!(texts(&stored) == expected, "{:?}", texts(&stored));
        let numbers: Vec<_> = stored.iter().map(|entry| entry.conversation_seq).collect();
        ensure!(numbers == (1..=301).collect::<Vec<_>>(), "{numbers:?}");
        Ok(())
    })
    .await?;
    let head = moved.connect(&bob).await?.heads("", 10).await?.heads;
    let head = head.iter().find(|head| head.conversation == talk).context("no head")?;
    assert_eq!((head.read_seq, head.conversation_seq), (1, 301));
    let bob = moved.refresh(&bob).await.context("the refresh token is taken along")?;

    // And back.
    let elsewhere = distributed(&servers, &schema, "no-such-topic");
    let said = refused(&strs(&["export", &back], &elsewhere)).await?;
    ensure!(said.contains("no-such-topic"), "{said}");
    let at = distributed(&servers, &schema, &services.topic);
    eventually("everything in Kafka is stored", async || done(&strs(&["export", &back], &at)).await).await?;
    drop(services);
    let sums = checksums(&strs(&[], &at)).await?;
    done(&["import", &back, "--data", &other]).await?;
    assert_eq!(checksums(&["--data", &other]).await?, sums, "every conversation is the same");
    let said = refused(&["import", &back, "--data", &other]).await?;
    ensure!(said.contains("is not empty"), "{said}");
    let system = Embedded::start_in(other.into(), &[]).await?;
    let world = world_over(&system);
    assert_eq!(texts(&world.connect(&bob).await?.whole_history(&talk).await?), expected);
    Ok(())
}

pub(crate) async fn p1_a_backup_in_use_is_restored_and_devices_go_back_to_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (home, copy) = (path("home"), path("copy"));
    let mut system = Embedded::start_in(home.clone().into(), &[]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let (talk, aside) = (alice.with(&bob), abi::ids::direct(&alice.user, &alice.user));
    let mut bobs = Sdk::connect(&world, &bob, State::default()).await?;
    say(&world, &alice, &talk, &numbered("kept", 0..10)).await?;
    assert_eq!(bobs.next(10).await?, (None, numbered("kept", 0..10)));
    // While others talk.
    let others = async { say(&world, &alice, &aside, &numbered("aside", 0..400)).await };
    let backup = ["backup", &copy, "--data", &home];
    let (copied, others) = tokio::join!(done(&backup), others);
    others.and(copied)?;
    let said = refused(&backup).await?;
    ensure!(said.contains("exists"), "{said}");
    say(&world, &alice, &talk, &numbered("lost", 0..5)).await?;
    assert_eq!(bobs.next(5).await?, (None, numbered("lost", 0..5)));
    let bobs_state = bobs.leave().await;
    system.kill();
    std::fs::remove_dir_all(&home)?;

    let system = Embedded::start_in(copy.into(), &[]).await?;
    let world = world_over(&system);
    // By the time that bob is back the conversation is longer than it was, with other messages under the same numbers.
    say(&world, &alice, &talk, &numbered("new", 0..8)).await?;
    let mut bobs = Sdk::connect(&world, &bob, bobs_state).await?;
    let (restored, seen) = bobs.next(8).await?;
    assert_eq!(restored, Some([(talk.clone(), 10)].into()), "he is told how much was kept");
    assert_eq!(seen, numbered("new", 0..8), "he sees what is new, all of it");
    // It is told once.
    say(&world, &alice, &talk, &numbered("newer", 0..1)).await?;
    assert_eq!(bobs.next(1).await?, (None, numbered("newer", 0..1)));
    let bobs_state = bobs.leave().await;
    say(&world, &alice, &talk, &numbered("newest", 0..1)).await?;
    let mut bobs = Sdk::connect(&world, &bob, bobs_state).await?;
    assert_eq!(bobs.next(1).await?, (None, numbered("newest", 0..1)));
    // What was said during the backup is there up to some message, without gaps.
    let stored = world.connect(&alice).await?.whole_history(&aside).await?;
    assert_eq!(texts(&stored), numbered("aside", 0..stored.len()));
    Ok(())
}

pub(crate) async fn p1_what_kafka_still_has_comes_back_into_a_restored_database() -> Result<()> {
    let servers = Servers::from_environment()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file").to_string_lossy().into_owned();
    let (lost, fresh) = (format!("godwit_test_lost_{}", unique()), format!("godwit_test_fresh_{}", unique()));
    let system = Distributed::start_on(servers.clone(), &[&format!("db.schema={lost}")]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut bobs = Sdk::connect(&world, &bob, State::default()).await?;
    say(&world, &alice, &talk, &numbered("kept", 0..10)).await?;
    bobs.next(10).await?;
    let at = distributed(&servers, &lost, &system.topic);
    eventually("a backup", async || done(&strs(&["export", &file], &at)).await).await?;
    say(&world, &alice, &talk, &numbered("in kafka", 0..5)).await?;
    bobs.next(5).await?;
    let bobs_state = bobs.leave().await;
    let topic = system.topic.clone();
    drop(system);

    // Another schema stands for the database that was lost; another group reads the topic from its beginning.
    done(&strs(&["import", &file], &distributed(&servers, &fresh, &topic))).await?;
    let settings = [
        format!("db.schema={fresh}"),
        format!("kafka.topic={topic}"),
        format!("kafka.group={topic}-restored"),
        format!("redis.prefix={topic}-restored"),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let system = Distributed::start_on(servers, &settings).await?;
    let world = world_over(&system);
    let expected = [numbered("kept", 0..10), numbered("in kafka", 0..5)].concat();
    let mut alices = world.connect(&alice).await?;
    eventually("everything that was acknowledged is there", async || {
        let stored = alices.whole_history(&talk).await?;
        ensure!(texts(&stored) == expected, "{:?}", texts(&stored));
        Ok(())
    })
    .await?;
    let mut bobs = Sdk::connect(&world, &bob, bobs_state).await?;
    let (restored, seen) = bobs.next(5).await?;
    assert_eq!(restored, Some([(talk.clone(), 10)].into()));
    assert_eq!(
        seen,
        numbered("in kafka", 0..5),
        "they come again: nobody can say before that they are the same"
    );
    Ok(())
}
