//! One message is one trace, from the send to the last device's socket.

use anyhow::{Context as _, Result, ensure};
use std::{io::Write as _, sync::Arc};
use tests::{
    collector::{Collector, Trace},
    device::{Wire, new_id},
    eventually,
    system::{Distributed, Embedded, System},
    world::World,
};

/// The paths of a message's trace, to the store and to the sockets of the devices.
const MESSAGE_PATHS: [&str; 2] = [
    "ws-gateway send > ws-gateway log > consumer handle > consumer save > db-service save",
    "ws-gateway send > ws-gateway log > consumer handle > consumer push > pusher push > pusher deliver > ws-gateway deliver > ws-gateway write",
];
/// The paths of the trace of a group change. Its answer waits until it is stored.
const CHANGE_PATHS: [&str; 3] = [
    "ws-gateway change > ws-gateway log > consumer handle > consumer save > db-service save",
    "ws-gateway change > ws-gateway log > consumer handle > consumer push > pusher push > pusher deliver > ws-gateway deliver > ws-gateway write",
    "ws-gateway change > ws-gateway wait",
];

pub(crate) async fn embedded_a_message_is_one_trace_from_send_to_socket() -> Result<()> {
    let collector = Collector::start().await?;
    let endpoint = format!("trace.endpoint={}", collector.endpoint);
    let system = Embedded::start(&[&endpoint, "trace.sample=1"]).await?;
    check_traces(Arc::new(system), &collector).await
}

pub(crate) async fn distributed_a_message_is_one_trace_from_send_to_socket() -> Result<()> {
    let collector = Collector::start().await?;
    let endpoint = format!("trace.endpoint={}", collector.endpoint);
    let system = Distributed::start(&[&endpoint, "trace.sample=1"]).await?;
    check_traces(Arc::new(system), &collector).await
}

async fn check_traces(system: Arc<dyn System>, collector: &Collector) -> Result<()> {
    let mode = system.mode();
    let world = World::new(system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect_as(&alice, Wire::Json, None).await?.0;
    let mut bob_device = world.connect_as(&bob, Wire::Proto, None).await?.0;

    let ack = alice_device.send(&conversation, &new_id(), "a secret for bob").await?;
    alice_device.entries(1).await?;
    bob_device.entries(1).await?;
    let trace = complete_trace(collector, 1, &MESSAGE_PATHS).await?;
    // A closed stderr must not fail the test.
    let _ = writeln!(std::io::stderr(), "one message, {mode}:\n\n{}", trace.tree());
    assert_eq!(trace.root()?.attributes["godwit.message_id"], ack.message_id);
    assert_eq!(trace.root()?.attributes["godwit.conversation"], conversation);
    for span in &trace.0 {
        let process = if mode == "embedded" { "godwit" } else { &*span.service };
        assert_eq!(span.process, process, "{}", span.title());
        let attributes = format!("{:?}", span.attributes);
        ensure!(!attributes.contains("secret") && !attributes.contains(&alice.access_token), "{attributes}");
    }

    bob_device.send(&conversation, &new_id(), "an answer").await?;
    alice_device.entries(1).await?;
    bob_device.entries(1).await?;
    complete_trace(collector, 2, &MESSAGE_PATHS).await?;

    world.group(&alice, &[&bob], "all").await?;
    complete_trace(collector, 3, &CHANGE_PATHS).await?;
    Ok(())
}

/// Waits until the trace with this number (from 1) is complete, and returns it. It must have all parents and all `paths`
/// from its root to a leaf, and a write to the sockets of both devices or of none.
async fn complete_trace(collector: &Collector, number: usize, paths: &[&str]) -> Result<Trace> {
    let trace = async || {
        let traces = collector.traces();
        ensure!(traces.len() <= number, "{} traces", traces.len());
        let trace = traces.into_iter().nth(number - 1).context("the trace has not started")?;
        trace.root().with_context(|| trace.tree())?;
        let found = trace.paths();
        for path in paths {
            ensure!(found.iter().any(|found| found == path), "no path {path}:\n{}", trace.tree());
        }
        let writes = found.iter().filter(|path| path.ends_with(" write")).count();
        ensure!(matches!(writes, 0 | 2), "{writes} writes to 2 devices:\n{}", trace.tree());
        let invalid: Vec<_> = trace.0.iter().filter(|span| span.failed || span.ended < span.began).collect();
        ensure!(invalid.is_empty(), "{invalid:?}");
        Ok(trace)
    };
    eventually("the trace is complete", async || trace().await.map(drop)).await?;
    trace().await
}

pub(crate) async fn an_unreachable_collector_does_not_affect_delivery() -> Result<()> {
    let mut system = Embedded::start(&["trace.endpoint=http://127.0.0.1:1", "trace.sample=1"]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    for _ in 0..50 {
        alice_device.send(&alice.conversation_with(&bob), &new_id(), "hello").await?;
    }
    bob_device.entries(50).await?;
    eventually("the log names the unreachable collector", async || {
        let output = system.process().output();
        ensure!(output.iter().any(|line| line.contains("spans don't reach the collector")), "{output:?}");
        Ok(())
    })
    .await?;
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.code() == Some(0), "{status}: {}", system.process().output().join("\n"));
    Ok(())
}
