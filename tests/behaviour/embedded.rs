//! Tests of the one-process program alone: its data folder, its end, its keys.

use crate::load::{Load, report};
use abi::error::ErrorCode;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};
use tests::{
    device::{new_id, refusal, texts},
    eventually, http,
    process::Process,
    system::{Embedded, System},
    world::World,
};

pub(crate) async fn p1_sigkill_under_load_loses_nothing() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let load = Load::start(&world).await?;
    for _ in 0..3 {
        system.kill();
        system.start_again().await?;
        load.progresses().await?;
    }
    report("godwit killed three times", load.finish(&world).await?);
    Ok(())
}

pub(crate) async fn p9_a_graceful_shutdown_under_load_loses_nothing() -> Result<()> {
    let mut system = Embedded::start(&["gateway.drain=200ms"]).await?;
    let world = World::at_addresses_of(&system);
    let load = Load::start(&world).await?;
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.code() == Some(0), "it ended with {status}: {}", system.process().output().join("\n"));
    system.start_again().await?;
    load.progresses().await?;
    report("godwit stopped and started", load.finish(&world).await?);
    Ok(())
}

pub(crate) async fn p9_the_load_generator_reports_the_longest_pause() -> Result<()> {
    const AWAY: Duration = Duration::from_secs(1);
    let mut system = Embedded::start(&[]).await?;
    let url = format!("http://{}", system.gateways()[0]);
    // The first URL has no server. The load generator must continue with the next one.
    let load = "load pair --pairs 4 --rate 200 --seconds 4 --json --url http://127.0.0.1:1";
    let mut load = Process::start("godwit-cli", load.split(' ').chain(["--url", &url]))?;
    eventually("messages are acknowledged", async || {
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
    let report: Value = serde_json::from_str(load.output().last().context("it printed nothing")?)?;
    assert_eq!((&report["acked"], &report["failed"], &report["lost"]), (&json!(800), &json!(0), &json!(0)));
    let (pause, longest) = (report["longest_pause_ms"].as_f64(), report["ack_ms"]["max"].as_f64());
    let (pause, longest) = (pause.context("no longest_pause_ms")?, longest.context("no ack_ms.max")?);
    let (least, most) = (AWAY.as_secs_f64() * 1_000.0, 30_000.0);
    ensure!((least..most).contains(&pause) && longest >= least, "pause {pause} ms, longest {longest} ms");
    Ok(())
}

pub(crate) async fn p1_a_full_disk_refuses_messages_and_loses_none() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    device.send(&conversation, &new_id(), "before").await?;
    // No file of the process can grow any more.
    limit_files(&process_id(&mut system), "0")?;
    let id = new_id();
    let error = refusal(device.send(&conversation, &id, "while full").await);
    assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
    assert!(error.code.is_retryable());
    let admin = system.admin().to_owned();
    let readiness = async |status: u16, part: &str| {
        let answer = http::request(&admin, "GET", "/readyz", None, None).await?;
        ensure!(answer.status == status && answer.body.contains(part), "{answer:?}");
        Ok(())
    };
    eventually("it is not ready", async || readiness(503, "\"log\":\"log: cannot").await).await?;
    limit_files(&process_id(&mut system), "unlimited")?;
    let mut device = world.connect(&alice).await?;
    eventually("the repeated message is accepted", async || {
        device.send(&conversation, &id, "while full").await
    })
    .await?;
    device.send(&conversation, &new_id(), "after").await?;
    let expected = ["before", "while full", "after"];
    eventually("every message is stored once", async || {
        let stored = device.whole_history(&conversation).await?;
        ensure!(texts(&stored) == expected, "{:?}", texts(&stored));
        Ok(())
    })
    .await?;
    eventually("it is ready again", async || readiness(200, "\"store\":\"ready\"").await).await
}

fn process_id(system: &mut Embedded) -> String {
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
    let output = second.output().join("\n");
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains(&*first.data().to_string_lossy()), "it does not name the folder: {output}");
    // The first process continues. After its end another one can use the data.
    World::at_addresses_of(&first).user("alice").await?;
    first.kill();
    first.start_again().await?;
    World::at_addresses_of(&first).user("bob").await?;
    Ok(())
}

pub(crate) async fn p1_the_one_process_program_ignores_the_configured_topic() -> Result<()> {
    let system = Embedded::start(&["kafka.topic=chat"]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let (mut from, mut to) = (world.connect(&alice).await?, world.connect(&bob).await?);
    from.send(&alice.conversation_with(&bob), &new_id(), "hello").await?;
    assert_eq!(texts(&to.entries(1).await?), ["hello"]);
    Ok(())
}

pub(crate) async fn every_config_error_is_reported_at_once() -> Result<()> {
    crate::check_config_errors("godwit").await
}

pub(crate) async fn p9_key_rotation_logs_no_user_out() -> Result<()> {
    const OLD: &str = "old=an-old-secret-of-more-than-32-bytes";
    const NEW: &str = "new=a-new-secret-of-more-than-32-bytes!";
    let folder = tempfile::tempdir()?;
    let start = async |keys: String| {
        let keys = format!("auth.keys={keys}");
        let system = Embedded::start_in(folder.path().into(), &[&keys, "auth.access_token_life=1h"]).await?;
        let world = World::at_addresses_of(&system);
        anyhow::Ok((system, world))
    };
    let (mut system, world) = start(OLD.into()).await?;
    let alice = world.user("alice").await?;
    world.connect(&alice).await?;
    stop(&mut system).await?;

    // Step 1: all gateways accept the new key. The old one still signs.
    let (mut system, world) = start(format!("{OLD},{NEW}")).await?;
    world.connect(&alice).await.context("when the new key is accepted")?;
    stop(&mut system).await?;

    // Step 2: the first key signs. The old one is still accepted.
    let (mut system, world) = start(format!("{NEW},{OLD}")).await?;
    world.connect(&alice).await.context("with the token of the old key")?;
    let refreshed = world.refresh(&alice).await?;
    world.connect(&refreshed).await.context("with a token of the new key")?;
    stop(&mut system).await?;

    // A gateway that is still at step 1.
    let (mut system, world) = start(format!("{OLD},{NEW}")).await?;
    world
        .connect(&refreshed)
        .await
        .context("with a token of the new key, at a gateway that signs with the old one")?;
    stop(&mut system).await?;

    // Step 3: the old key is removed, after its last token has expired.
    let (mut system, world) = start(NEW.into()).await?;
    let refused = world.connect(&alice).await.err().context("the old key is still accepted")?;
    ensure!(refused.to_string().contains("token_expired"), "{refused:#}");
    world.connect(&refreshed).await.context("with the token of the new key")?;
    let again = world.refresh(&refreshed).await.context("refresh tokens do not depend on keys")?;
    world.connect(&again).await?;
    stop(&mut system).await
}

async fn stop(system: &mut Embedded) -> Result<()> {
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.code() == Some(0), "it ended with {status}: {}", system.process().output().join("\n"));
    Ok(())
}
