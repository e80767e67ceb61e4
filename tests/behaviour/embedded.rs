//! What only the one-process program has: its data directory, and its end.

use crate::load::{Load, report};
use abi::error::ErrorCode;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{process::Command, sync::Arc, time::Duration};
use tests::{
    device::{new_id, refusal, texts},
    eventually, http,
    process::Process,
    system::{Embedded, System},
    world::World,
};

/// A world over a system that the test keeps to itself. The system may be ended and started again: its address stays.
pub(crate) fn world_over(system: &Embedded) -> World {
    #[derive(Debug)]
    struct Addresses(Vec<String>);
    impl System for Addresses {
        fn mode(&self) -> &'static str {
            "embedded"
        }
        fn gateways(&self) -> &[String] {
            &self.0
        }
    }
    World::new(Arc::new(Addresses(system.gateways().to_vec())))
}

pub(crate) async fn p1_sigkill_under_load_loses_nothing() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = world_over(&system);
    let load = Load::start(&world).await?;
    for _ in 0..3 {
        system.kill();
        system.start_again().await?;
        load.goes_on().await?;
    }
    report("godwit killed three times", load.finish(&world).await?);
    Ok(())
}

pub(crate) async fn p9_a_stop_under_load_is_orderly_and_loses_nothing() -> Result<()> {
    let mut system = Embedded::start(&["gateway.drain=200ms"]).await?;
    let world = world_over(&system);
    let load = Load::start(&world).await?;
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.code() == Some(0), "it ended with {status}: {}", system.process().output().join("\n"));
    system.start_again().await?;
    load.goes_on().await?;
    report("godwit stopped and started", load.finish(&world).await?);
    Ok(())
}

pub(crate) async fn p9_the_load_generator_says_how_long_the_longest_pause_was() -> Result<()> {
    const AWAY: Duration = Duration::from_secs(1);
    let mut system = Embedded::start(&[]).await?;
    let url = format!("http://{}", system.gateways()[0]);
    // A server that is never there costs nothing but the way to the next one.
    let load = "load pair --pairs 4 --rate 200 --seconds 4 --json --url http://127.0.0.1:1";
    let mut load = Process::start("godwit-cli", load.split(' ').chain(["--url", &url]))?;
    eventually("messages get through", async || {
        let metrics = http::request(system.admin(), "GET", "/metrics", None, None).await?.body;
        let acks = metrics.lines().find_map(|line| line.strip_prefix("godwit_ws_gateway_acks_total "));
        ensure!(acks.is_some_and(|acks| acks != "0"), "none yet");
        Ok(())
    })
    .await?;
    system.kill();
    tokio::time::sleep(AWAY).await;
    system.start_again().await?;
    ensure!(load.ended().await?.success(), "{}", load.output().join("\n"));
    let report: Value = serde_json::from_str(load.output().last().context("it said nothing")?)?;
    assert_eq!((&report["acked"], &report["failed"], &report["lost"]), (&json!(800), &json!(0), &json!(0)));
    let (pause, longest) = (report["longest_pause_ms"].as_f64(), report["ack_ms"]["max"].as_f64());
    let (pause, longest) = (pause.context("no pause")?, longest.context("no longest")?);
    let (least, most) = (AWAY.as_secs_f64() * 1_000.0, 30_000.0);
    ensure!((least..most).contains(&pause) && longest >= least, "pause {pause} ms, longest {longest} ms");
    Ok(())
}

pub(crate) async fn p1_a_full_disk_refuses_and_loses_nothing() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    device.send(&talk, &new_id(), "before").await?;
    // From here on no file of the process can grow.
    limit_files(&system_id(&mut system), "0")?;
    let id = new_id();
    let fault = refusal(device.send(&talk, &id, "while full").await);
    assert_eq!(fault.code, ErrorCode::Unavailable, "{fault:?}");
    assert!(fault.code.is_retryable());
    limit_files(&system_id(&mut system), "unlimited")?;
    let mut device = world.connect(&alice).await?;
    eventually("the same message is taken", async || device.send(&talk, &id, "while full").await).await?;
    device.send(&talk, &new_id(), "after").await?;
    let expected = ["before", "while full", "after"];
    eventually("all is stored, once", async || {
        let stored = device.whole_history(&talk).await?;
        ensure!(texts(&stored) == expected, "{:?}", texts(&stored));
        Ok(())
    })
    .await
}

fn system_id(system: &mut Embedded) -> String {
    system.process().id().to_string()
}

/// Limits the size of files that a process can write.
fn limit_files(process: &str, size: &str) -> Result<()> {
    let limit = format!("--fsize={size}:unlimited");
    let status =
        Command::new("prlimit").args(["--pid", process, &limit]).status().context("prlimit of util-linux")?;
    ensure!(status.success(), "prlimit {limit} ended with {status}");
    Ok(())
}

pub(crate) async fn p1_a_second_process_on_the_same_data_is_refused() -> Result<()> {
    let mut first = Embedded::start(&[]).await?;
    let command = Embedded::command(&first.data(), &[], "127.0.0.1:0")?;
    let mut second = Process::spawn("the second godwit", command)?;
    let status = second.ended().await?;
    let said = second.output().join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&*first.data().to_string_lossy()), "it does not name the directory: {said}");
    // The first one goes on, and after its end the data is free.
    world_over(&first).user("alice").await?;
    first.kill();
    first.start_again().await?;
    world_over(&first).user("bob").await?;
    Ok(())
}

pub(crate) async fn p1_what_the_services_call_their_topic_does_not_concern_one_process() -> Result<()> {
    let system = Embedded::start(&["kafka.topic=chat"]).await?;
    let world = world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let (mut from, mut to) = (world.connect(&alice).await?, world.connect(&bob).await?);
    from.send(&alice.with(&bob), &new_id(), "hello").await?;
    assert_eq!(texts(&to.entries(1).await?), ["hello"]);
    Ok(())
}

pub(crate) async fn a_bad_configuration_is_told_with_every_fault() -> Result<()> {
    crate::bad_configuration("godwit").await
}

pub(crate) async fn p9_keys_are_changed_and_nobody_is_logged_out() -> Result<()> {
    const OLD: &str = "old=an-old-secret-of-more-than-32-bytes";
    const NEW: &str = "new=a-new-secret-of-more-than-32-bytes!";
    let folder = tempfile::tempdir()?;
    let start = async |keys: String| {
        let keys = format!("auth.keys={keys}");
        let system = Embedded::start_in(folder.path().into(), &[&keys, "auth.access_token_life=1h"]).await?;
        let world = world_over(&system);
        anyhow::Ok((system, world))
    };
    let (mut system, world) = start(OLD.into()).await?;
    let alice = world.user("alice").await?;
    world.connect(&alice).await?;
    stop(&mut system).await?;

    // The new key is known everywhere before anything is signed with it.
    let (mut system, world) = start(format!("{OLD},{NEW}")).await?;
    world.connect(&alice).await.context("when the new key is known")?;
    stop(&mut system).await?;

    // It is in front: it signs, and the old one still verifies.
    let (mut system, world) = start(format!("{NEW},{OLD}")).await?;
    world.connect(&alice).await.context("with the token of the old key")?;
    let refreshed = world.refresh(&alice).await?;
    world.connect(&refreshed).await.context("with a token of the new key")?;
    stop(&mut system).await?;

    // A gateway that is one step behind.
    let (mut system, world) = start(format!("{OLD},{NEW}")).await?;
    world.connect(&refreshed).await.context("with a token of the new key, where the old one signs")?;
    stop(&mut system).await?;

    // Once the last token of the old key has expired, that key can go.
    let (mut system, world) = start(NEW.into()).await?;
    let refused = world.connect(&alice).await.err().context("the old key is still good")?;
    ensure!(refused.to_string().contains("unauthenticated"), "{refused:#}");
    world.connect(&refreshed).await.context("with the token of the new key")?;
    let again = world.refresh(&refreshed).await.context("refresh tokens need no key")?;
    world.connect(&again).await?;
    stop(&mut system).await
}

async fn stop(system: &mut Embedded) -> Result<()> {
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.code() == Some(0), "it ended with {status}: {}", system.process().output().join("\n"));
    Ok(())
}
