//! Tests of the distributed mode alone: killed and replaced instances, server outages, poison records in the topic.

use crate::load::{Load, report};
use abi::{
    error::ErrorCode,
    v1::{GetChanges, GetHistory, MarkRead, client_frame::Frame},
};
use anyhow::{Context as _, Result, ensure};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use serde_json::json;
use std::time::{Duration, Instant};
use tests::{
    PATIENCE,
    device::{Device, Wire, new_id, refusal, send, texts},
    eventually,
    system::{DISTRIBUTED_PROGRAMS, Distributed, Instance, OwnServers, unique},
    world::{PASSWORD, Session, World},
};
use tokio::sync::Mutex;

pub(crate) async fn p1_sigkill_of_each_service_under_load_loses_nothing() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    for program in DISTRIBUTED_PROGRAMS {
        let load = Load::start(&world).await?;
        let instance = system.instances(program).next().context("there are two of each")?;
        instance.kill();
        load.progresses().await.with_context(|| format!("without one {program}"))?;
        instance.start_again().await?;
        load.progresses().await.with_context(|| format!("with {program} back"))?;
        let acknowledged =
            load.finish(&world).await.with_context(|| format!("after {program} was killed"))?;
        report(&format!("{program} killed"), acknowledged);
    }
    Ok(())
}

pub(crate) async fn p9_each_service_is_replaced_under_load_without_loss() -> Result<()> {
    let mut system = Distributed::start(&["gateway.drain=200ms"]).await?;
    let world = World::at_addresses_of(&system);
    let load = Load::start(&world).await?;
    for program in DISTRIBUTED_PROGRAMS {
        let instance = system.instances(program).next().context("there are two of each")?;
        instance.process().signal("TERM")?;
        let status = instance.process().ended().await?;
        ensure!(status.code() == Some(0), "{program}: {status}: {}", instance.process().output().join("\n"));
        instance.start_again().await?;
        load.progresses().await.with_context(|| format!("with a new {program}"))?;
    }
    report("each service replaced", load.finish(&world).await?);
    Ok(())
}

/// Tests that start their own servers hold this lock, so that there is one such set at a time.
pub(crate) static OWN_SERVERS: Mutex<()> = Mutex::const_new(());

pub(crate) async fn p6_an_outage_of_any_server_loses_nothing() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    // Consul goes last. The services ask it only when instances start or stop.
    let servers = OwnServers::start()?;
    let system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = World::at_addresses_of(&system);
    for server in ["postgres", "redis", "kafka", "consul"] {
        let load = Load::start(&world).await?;
        servers.run(&["kill", server])?;
        if server != "kafka" {
            // Acks need only the log, so sends continue during an outage of any other server.
            load.progresses().await.with_context(|| format!("without {server}"))?;
        }
        servers.run(&["start", server])?;
        load.progresses().await.with_context(|| format!("with {server} back"))?;
        let acknowledged =
            load.finish(&world).await.with_context(|| format!("after an outage of {server}"))?;
        report(&format!("{server} killed"), acknowledged);
    }
    Ok(())
}

pub(crate) async fn p4_a_redis_data_loss_starts_a_new_epoch_and_loses_no_message() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let system = Distributed::start_on(servers.addresses(), &["gateway.heartbeat=3s"]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    let (_, welcome) = world.connect_as(&bob, Wire::Proto, None).await?;
    let previous = welcome.receiver_seq.context("welcome has no receiver seq")?;
    alice_device.send(&conversation, &new_id(), "before").await?;
    alice_device.entries(1).await?;
    // Redis restarts without its data.
    for command in ["kill", "wipe", "start"] {
        servers.run(&[command, "redis"])?;
    }
    let mut bob_device = eventually("bob can connect again", async || world.connect(&bob).await).await?;
    let current = bob_device.ping().await?.receiver_seq.context("pong has no receiver seq")?;
    assert_ne!(current.epoch, previous.epoch, "devices could mistake an old receiver seq for a current one");
    // Surviving connections are registered again, and all stored messages are there.
    let registered = eventually("alice's connection is registered", async || {
        // A pong without a receiver seq means that the gateway could not register the connection yet.
        alice_device.ping().await?.receiver_seq.context("no receiver seq")
    })
    .await?;
    bob_device.send(&conversation, &new_id(), "after").await?;
    eventually("alice is told that there is something new", async || {
        let seq = alice_device.ping().await?.receiver_seq.context("no receiver seq")?;
        ensure!(seq.epoch == registered.epoch && seq.seq > registered.seq, "{seq:?} after {registered:?}");
        Ok(())
    })
    .await?;
    // A consumer that still had a broken connection to Redis has counted that entry without pushing it. The next one is pushed.
    bob_device.send(&conversation, &new_id(), "later").await?;
    let mut pushed = alice_device.entries(1).await?;
    if texts(&pushed) == ["after"] {
        pushed = alice_device.entries(1).await?;
    }
    assert_eq!(texts(&pushed), ["later"]);
    assert_eq!(texts(&bob_device.whole_history(&conversation).await?), ["before", "after", "later"]);
    Ok(())
}

pub(crate) async fn p1_acks_and_pongs_wait_for_no_request_while_db_service_hangs() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    device.send(&conversation, &new_id(), "before").await?;
    device.entries(1).await?;
    for instance in system.instances("db-service") {
        instance.process().signal("STOP")?;
    }
    let history = GetHistory { conversation: conversation.clone(), ..GetHistory::default() };
    let unanswered = device.pipeline((0..8).map(|_| Frame::History(history.clone()))).await?;
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        device.send(&conversation, &new_id(), "meanwhile").await?;
        device.ping().await?;
        slowest = slowest.max(began.elapsed());
    }
    for instance in system.instances("db-service") {
        instance.process().signal("CONT")?;
    }
    // Far below the deadline of a call to db-service, and far above a slow disk.
    ensure!(slowest < Duration::from_secs(2), "a send and a ping took {slowest:?}");
    for id in unanswered {
        // Late, or refused after the deadline of the call.
        let answer = device.answer(id).await;
        ensure!(answer.is_ok() || refusal(answer).code == ErrorCode::Unavailable, "a wrong answer");
    }
    Ok(())
}

pub(crate) async fn p8_a_removal_is_acknowledged_only_once_it_is_in_force() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut bob_device = world.connect(&bob).await?;
    bob_device.send(&group, &new_id(), "still here").await?;
    // The gateways read members from Redis. While it is paused, the removal can't take effect there.
    servers.run(&["pause", "redis"])?;
    let path = format!("/v1/groups/{group}/members/{}?request_id={}", bob.user, new_id());
    let failed = world.http("DELETE", &path, Some(&alice.access_token), None).await?;
    servers.run(&["resume", "redis"])?;
    assert_eq!(failed.status, 503, "{failed:?}");
    assert!(failed.body.contains("request_id"), "{failed:?}");
    eventually("the repeated removal succeeds", async || {
        let repeated = world.http("DELETE", &path, Some(&alice.access_token), None).await?;
        ensure!(repeated.status == 200, "{repeated:?}");
        Ok(())
    })
    .await?;
    assert_eq!(refusal(bob_device.send(&group, &new_id(), "hello").await).code, ErrorCode::Forbidden);
    Ok(())
}

pub(crate) async fn p6_a_poison_record_is_dead_lettered_and_later_records_continue() -> Result<()> {
    let system = Distributed::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    device.send(&conversation, &new_id(), "before").await?;
    device.entries(1).await?;
    // The poison records have the key of the conversation, so they are in its partition.
    let key = abi::record::key(abi::DEFAULT_APP, &conversation);
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", &system.servers.kafka).create()?;
    for payload in [&b"not an entry"[..], b""] {
        let record = BaseRecord::to(&system.topic).key(&key[..]).payload(payload);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    device.send(&conversation, &new_id(), "after").await?;
    assert_eq!(texts(&device.entries(1).await?), ["after"]);
    let dead_letters = dead_letters(&system, 2).await?;
    let payloads: Vec<_> = dead_letters.iter().map(|(payload, _)| payload.as_slice()).collect();
    assert_eq!(payloads, [&b"not an entry"[..], b""]);
    for (_, reason) in &dead_letters {
        assert!(!reason.is_empty(), "a dead letter without a reason: {dead_letters:?}");
    }
    Ok(())
}

/// Waits for `count` dead letters, and returns their payloads and reasons.
async fn dead_letters(system: &Distributed, count: usize) -> Result<Vec<(Vec<u8>, String)>> {
    let topic = format!("{}.dead", system.topic);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &system.servers.kafka)
        .set("group.id", &topic)
        .set("enable.auto.commit", "false")
        .create()?;
    let mut found = Vec::new();
    eventually("the dead letters are there", async || {
        if consumer.assignment()?.count() == 0 {
            let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5))?;
            let partitions = metadata.topics().first().context("no such topic")?.partitions();
            let mut all = TopicPartitionList::new();
            for partition in partitions {
                all.add_partition_offset(&topic, partition.id(), Offset::Beginning)?;
            }
            consumer.assign(&all)?;
        }
        while let Some(record) = consumer.poll(Duration::from_millis(50)) {
            let record = record?;
            let reason = record.headers().into_iter().flat_map(|headers| headers.iter());
            let reason =
                reason.filter(|header| header.key.ends_with("reason")).find_map(|header| header.value);
            let reason = String::from_utf8_lossy(reason.unwrap_or_default()).into_owned();
            found.push((record.payload().unwrap_or_default().to_vec(), reason));
        }
        ensure!(found.len() >= count, "{found:?}");
        Ok(())
    })
    .await?;
    Ok(found)
}

pub(crate) async fn p6_readiness_names_the_missing_server() -> Result<()> {
    // No server listens on port 1.
    for (program, setting, missing) in [
        ("db-service", "db.postgres=postgres://godwit:godwit@127.0.0.1:1/godwit", "postgres"),
        ("ws-gateway", "redis.url=redis://127.0.0.1:1", "redis"),
        ("consumer", "kafka.brokers=127.0.0.1:1", "kafka"),
        ("pusher", "redis.url=redis://127.0.0.1:1", "redis"),
    ] {
        let settings = vec![setting.to_owned(), "discovery.kind=fixed".to_owned()];
        let mut instance = Instance::start_unready(program, settings, "127.0.0.1:0").await?;
        eventually(&format!("{program} names {missing}"), async || {
            let (status, body) = instance.readiness().await?;
            ensure!(status == 503 && body.contains(missing), "{program}: {status} {body}");
            Ok(())
        })
        .await?;
        // A program that waits for a server must still stop on SIGTERM.
        instance.process().signal("TERM")?;
        instance.process().ended().await.with_context(|| format!("{program} after SIGTERM"))?;
    }
    Ok(())
}

pub(crate) async fn every_config_error_is_reported_at_once() -> Result<()> {
    for program in DISTRIBUTED_PROGRAMS {
        crate::check_config_errors(program).await?;
    }
    Ok(())
}

/// Words that would tell a client how the system is built.
const INTERNAL: [&str; 14] = [
    "127.0.0.1",
    "localhost",
    "db-service",
    "pusher",
    "consumer",
    "ws-gateway",
    "kafka",
    "redis",
    "postgres",
    "consul",
    "grpc",
    "tcp",
    "os error",
    "transport",
];

/// Makes each kind of request, and returns the texts of the errors.
async fn errors(world: &World, alice: &Session, group: &str, device: &mut Device) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let stranger = json!({ "user": unique(), "password": PASSWORD, "device": "phone" });
    let members = format!("/v1/groups/{group}/members");
    for (method, path, body) in [
        ("POST", "/v1/accounts", Some(stranger.clone())),
        ("POST", "/v1/sessions", Some(stranger)),
        ("POST", "/v1/sessions/refresh", Some(json!({ "refresh_token": alice.refresh_token }))),
        ("POST", "/v1/groups", Some(json!({ "name": "friends", "members": [unique()] }))),
        ("GET", &members, None),
        ("POST", &members, Some(json!({ "users": [unique()] }))),
        ("DELETE", &format!("{members}/nobody"), None),
        ("DELETE", "/v1/sessions/current", None),
    ] {
        let answer = world.http(method, path, Some(&alice.access_token), body).await?;
        ensure!(answer.status >= 400, "{method} {path} was answered: {answer:?}");
        texts.push(answer.body);
    }
    let direct = abi::ids::direct(&alice.user, &unique());
    for frame in [
        send(&direct, &new_id(), "hello"),
        Frame::Changes(GetChanges::default()),
        Frame::History(GetHistory { conversation: group.into(), ..GetHistory::default() }),
        Frame::Read(MarkRead { conversation: group.into(), conversation_seq: 1 }),
    ] {
        texts.push(refusal(device.call(frame).await).message);
    }
    Ok(texts)
}

pub(crate) async fn p8_no_error_names_an_internal_address_or_service() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut device = world.connect(&alice).await?;
    // Calls to an instance that is paused end with their deadline; calls to one that is gone are refused.
    for signal in ["STOP", "KILL"] {
        for instance in system.instances("db-service") {
            instance.process().signal(signal)?;
        }
        for text in errors(&world, &alice, &group, &mut device).await? {
            let lower = text.to_lowercase();
            let named = INTERNAL.iter().find(|word| lower.contains(**word));
            ensure!(named.is_none(), "{signal}: {text}");
            ensure!(lower.contains("try again"), "{signal}: {text}");
        }
    }
    Ok(())
}
