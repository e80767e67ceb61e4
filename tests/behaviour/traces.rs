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

/// Where the trace of a message ends: in the store, and at the sockets of the devices.
const MESSAGE: [&str; 2] = [
    "ws-gateway send > ws-gateway log > consumer handle > consumer save > db-service save",
    "ws-gateway send > ws-gateway log > consumer handle > consumer push > pusher push > pusher deliver > ws-gateway deliver > ws-gateway write",
];
/// A change of a group goes the same way, and its answer waits until it is stored.
const CHANGE: [&str; 3] = [
    "ws-gateway change > ws-gateway log > consumer handle > consumer save > db-service save",
    "ws-gateway change > ws-gateway log > consumer handle > consumer push > pusher push > pusher deliver > ws-gateway deliver > ws-gateway write",
    "ws-gateway change > ws-gateway wait",
];

pub(crate) async fn embedded_a_message_is_one_trace_from_send_to_socket() -> Result<()> {
    let collector = Collector::start().await?;
    let endpoint = format!("trace.endpoint={}", collector.endpoint);
    let system = Embedded::start(&[&endpoint, "trace.sample=1"]).await?;
    messages_are_traces(Arc::new(system), &collector).await
}

pub(crate) async fn distributed_a_message_is_one_trace_from_send_to_socket() -> Result<()> {
    let collector = Collector::start().await?;
    let endpoint = format!("trace.endpoint={}", collector.endpoint);
    let system = Distributed::start(&[&endpoint, "trace.sample=1"]).await?;
    messages_are_traces(Arc::new(system), &collector).await
}

async fn messages_are_traces(system: Arc<dyn System>, collector: &Collector) -> Result<()> {
    let mode = system.mode();
    let world = World::new(system);
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut alices = world.connect_as(&alice, Wire::Json, None).await?.0;
    let mut bobs = world.connect_as(&bob, Wire::Proto, None).await?.0;

    let ack = alices.send(&talk, &new_id(), "a secret for bob").await?;
    alices.entries(1).await?;
    bobs.entries(1).await?;
    let trace = whole(collector, 1, &MESSAGE).await?;
    // Whoever closed the output does not want to know.
    let _ = writeln!(std::io::stderr(), "one message, {mode}:\n\n{}", trace.tree());
    assert_eq!(trace.root()?.attributes["godwit.message_id"], ack.message_id);
    assert_eq!(trace.root()?.attributes["godwit.conversation"], talk);
    for span in &trace.0 {
        let process = if mode == "embedded" { "godwit" } else { &*span.service };
        assert_eq!(span.process, process, "{}", span.title());
        let said = format!("{:?}", span.attributes);
        ensure!(!said.contains("secret") && !said.contains(&alice.access_token), "{said}");
    }

    bobs.send(&talk, &new_id(), "an answer").await?;
    alices.entries(1).await?;
    bobs.entries(1).await?;
    whole(collector, 2, &MESSAGE).await?;

    world.group(&alice, &[&bob], "all").await?;
    whole(collector, 3, &CHANGE).await?;
    Ok(())
}

/// The `number`th trace, once it is whole: every parent is there, and these are the ways from its root to its ends. What goes to
/// the sockets goes to both devices.
async fn whole(collector: &Collector, number: usize, ways: &[&str]) -> Result<Trace> {
    let trace = async || {
        let traces = collector.traces();
        ensure!(traces.len() <= number, "{} traces", traces.len());
        let trace = traces.into_iter().nth(number - 1).context("the trace has not begun")?;
        trace.root().with_context(|| trace.tree())?;
        let found = trace.paths();
        for way in ways {
            ensure!(found.iter().any(|found| found == way), "not {way}:\n{}", trace.tree());
        }
        let writes = found.iter().filter(|way| way.ends_with(" write")).count();
        ensure!(matches!(writes, 0 | 2), "{writes} writes to 2 devices:\n{}", trace.tree());
        let faults: Vec<_> = trace.0.iter().filter(|span| span.failed || span.ended < span.began).collect();
        ensure!(faults.is_empty(), "{faults:?}");
        Ok(trace)
    };
    eventually("the trace is whole", async || trace().await.map(drop)).await?;
    trace().await
}

pub(crate) async fn a_collector_that_is_away_disturbs_nobody() -> Result<()> {
    let mut system = Embedded::start(&["trace.endpoint=http://127.0.0.1:1", "trace.sample=1"]).await?;
    let world = crate::embedded::world_over(&system);
    let (alice, bob) = world.two_users().await?;
    let (mut alices, mut bobs) = (world.connect(&alice).await?, world.connect(&bob).await?);
    for _ in 0..50 {
        alices.send(&alice.with(&bob), &new_id(), "hello").await?;
    }
    bobs.entries(50).await?;
    eventually("it is said that the collector is away", async || {
        let said = system.process().output();
        ensure!(said.iter().any(|line| line.contains("spans don't reach the collector")), "{said:?}");
        Ok(())
    })
    .await?;
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.code() == Some(0), "{status}: {}", system.process().output().join("\n"));
    Ok(())
}
