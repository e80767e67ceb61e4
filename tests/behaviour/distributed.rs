//! What only the services have: a topic that anybody can write to, instances that end, servers that are not there.

use crate::load::{Load, report};
use abi::error::ErrorCode;
use anyhow::{Context as _, Result, ensure};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use std::{sync::Arc, time::Duration};
use tests::{
    PATIENCE,
    device::{Wire, new_id, refusal, texts},
    eventually,
    system::{DISTRIBUTED_PROGRAMS, Distributed, Instance, OwnServers, System},
    world::World,
};
use tokio::sync::Mutex;

/// A world over a system that the test keeps to itself. Gateways come back at their addresses.
pub(crate) fn world_over(system: &Distributed) -> World {
    #[derive(Debug)]
    struct Addresses(Vec<String>);
    impl System for Addresses {
        fn mode(&self) -> &'static str {
            "distributed"
        }
        fn gateways(&self) -> &[String] {
            &self.0
        }
    }
    World::new(Arc::new(Addresses(system.gateways().to_vec())))
}

pub(crate) async fn p1_sigkill_of_each_service_under_load_loses_nothing() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let world = world_over(&system);
    for program in DISTRIBUTED_PROGRAMS {
        let load = Load::start(&world).await?;
        let instance = system.instances(program).next().context("there are two of each")?;
        instance.kill();
        load.goes_on().await.with_context(|| format!("without one {program}"))?;
        instance.start_again().await?;
        load.goes_on().await.with_context(|| format!("with {program} back"))?;
        let counted = load.finish(&world).await.with_context(|| format!("after {program} was killed"))?;
        report(&format!("{program} killed"), counted);
    }
    Ok(())
}

pub(crate) async fn p9_each_service_is_replaced_under_load_unseen() -> Result<()> {
    let mut system = Distributed::start(&["gateway.drain=200ms"]).await?;
    let world = world_over(&system);
    let load = Load::start(&world).await?;
    for program in DISTRIBUTED_PROGRAMS {
        let instance = system.instances(program).next().context("there are two of each")?;
        instance.process().signal("TERM")?;
        let status = instance.process().ended().await?;
        ensure!(status.code() == Some(0), "{program}: {status}: {}", instance.process().output().join("\n"));
        instance.start_again().await?;
        load.goes_on().await.with_context(|| format!("with another {program}"))?;
    }
    report("each service replaced", load.finish(&world).await?);
    Ok(())
}

/// Held by tests that start servers of their own, so that there is one such set at a time.
pub(crate) static OWN_SERVERS: Mutex<()> = Mutex::const_new(());

pub(crate) async fn p6_an_outage_of_any_server_loses_nothing() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    // Servers of its own, for they are killed. (Consul goes last: it is asked only when instances come and go.)
    let servers = OwnServers::start()?;
    let system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = world_over(&system);
    for server in ["postgres", "redis", "kafka", "consul"] {
        let load = Load::start(&world).await?;
        servers.run(&["kill", server])?;
        if server != "kafka" {
            // The log has what is acknowledged: nobody needs to wait for the others.
            load.goes_on().await.with_context(|| format!("without {server}"))?;
        }
        servers.run(&["start", server])?;
        load.goes_on().await.with_context(|| format!("with {server} back"))?;
        let counted = load.finish(&world).await.with_context(|| format!("after an outage of {server}"))?;
        report(&format!("{server} killed"), counted);
    }
    Ok(())
}

pub(crate) async fn p4_a_lost_redis_begins_a_new_epoch_and_loses_nothing() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let system = Distributed::start_on(servers.addresses(), &["gateway.heartbeat=1s"]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    let (_, welcome) = world.connect_as(&bob, Wire::Proto, None).await?;
    let had = welcome.receiver_seq.context("welcome has no receiver's seq")?;
    alices.send(&talk, &new_id(), "before").await?;
    alices.entries(1).await?;
    // It comes back empty.
    for command in ["kill", "wipe", "start"] {
        servers.run(&[command, "redis"])?;
    }
    let mut bobs = eventually("bob is let in again", async || world.connect(&bob).await).await?;
    let now = bobs.ping().await?.receiver_seq.context("pong has no receiver's seq")?;
    assert_ne!(now.epoch, had.epoch, "a number of before the loss could be taken for one of after");
    // Connections that outlived it are found again, and what was stored is all there.
    eventually("alice's connection serves", async || alices.ping().await).await?;
    bobs.send(&talk, &new_id(), "after").await?;
    assert_eq!(texts(&alices.entries(1).await?), ["after"]);
    assert_eq!(texts(&bobs.whole_history(&talk).await?), ["before", "after"]);
    Ok(())
}

pub(crate) async fn p8_a_removal_is_answered_once_it_is_in_force() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut bobs = world.connect(&bob).await?;
    bobs.send(&group, &new_id(), "still here").await?;
    // The gateways know the members from Redis, and Redis can't be told of the removal.
    servers.run(&["pause", "redis"])?;
    let path = format!("/v1/groups/{group}/members/{}?request_id={}", bob.user, new_id());
    let untold = world.http("DELETE", &path, Some(&alice.access_token), None).await?;
    servers.run(&["resume", "redis"])?;
    assert_eq!(untold.status, 503, "{untold:?}");
    assert!(untold.body.contains("request_id"), "{untold:?}");
    eventually("the same removal is answered", async || {
        let told = world.http("DELETE", &path, Some(&alice.access_token), None).await?;
        ensure!(told.status == 200, "{told:?}");
        Ok(())
    })
    .await?;
    assert_eq!(refusal(bobs.send(&group, &new_id(), "hello").await).code, ErrorCode::Forbidden);
    Ok(())
}

pub(crate) async fn p6_a_record_that_is_none_goes_to_the_dead_letters_and_stops_nothing() -> Result<()> {
    let system = Distributed::start(&[]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    device.send(&talk, &new_id(), "before").await?;
    device.entries(1).await?;
    // In the way of this very conversation: the same key, so the same partition.
    let key = abi::record::key(abi::DEFAULT_APP, &talk);
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", &system.servers.kafka).create()?;
    for payload in [&b"not an entry"[..], b""] {
        let record = BaseRecord::to(&system.topic).key(&key[..]).payload(payload);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    device.send(&talk, &new_id(), "after").await?;
    assert_eq!(texts(&device.entries(1).await?), ["after"]);
    let letters = dead_letters(&system, 2).await?;
    let payloads: Vec<_> = letters.iter().map(|(payload, _)| payload.as_slice()).collect();
    assert_eq!(payloads, [&b"not an entry"[..], b""]);
    for (_, reason) in &letters {
        assert!(!reason.is_empty(), "a dead letter without a reason: {letters:?}");
    }
    Ok(())
}

/// The payloads of so many dead letters, each with its reason.
async fn dead_letters(system: &Distributed, count: usize) -> Result<Vec<(Vec<u8>, String)>> {
    let topic = format!("{}.dead", system.topic);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &system.servers.kafka)
        .set("group.id", &topic)
        .set("enable.auto.commit", "false")
        .create()?;
    let mut letters = Vec::new();
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
            letters.push((record.payload().unwrap_or_default().to_vec(), reason));
        }
        ensure!(letters.len() >= count, "{letters:?}");
        Ok(())
    })
    .await?;
    Ok(letters)
}

pub(crate) async fn p6_a_service_without_its_server_says_which_one_is_missing() -> Result<()> {
    // Nobody listens on the port 1.
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
        // Waiting for it is no reason not to stop.
        instance.process().signal("TERM")?;
        instance.process().ended().await.with_context(|| format!("{program} was told to stop"))?;
    }
    Ok(())
}

pub(crate) async fn a_bad_configuration_is_told_with_every_fault() -> Result<()> {
    for program in DISTRIBUTED_PROGRAMS {
        crate::bad_configuration(program).await?;
    }
    Ok(())
}
