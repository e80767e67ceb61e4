//! A load of messages through the SDK, during disturbances of the system. At the end every message is counted.

use anyhow::{Context as _, Result, bail, ensure};
use client::{Client, Event, Events, Options, Server, State, http::Api, tokens::SessionTokens};
use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tests::{
    device::texts,
    eventually,
    system::unique,
    world::{PASSWORD, Session, World},
};
use tokio::{task::JoinSet, time::timeout};

/// Pairs of a sender and a receiver.
const PAIRS: usize = 4;
/// Messages that must be acknowledged between two disturbances.
const PROGRESS: usize = 300;

/// A running load.
pub(crate) struct Load {
    pairs: Vec<(Session, String)>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    /// Each returns the number of its pair, and its acknowledged messages in order.
    senders: JoinSet<Result<(usize, Vec<String>)>>,
    receivers: Vec<(Client, Events)>,
}

impl Load {
    /// Creates the users and starts sending, over all gateways.
    pub(crate) async fn start(world: &World) -> Result<Self> {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut load = Self { pairs: vec![], stop, acknowledged, senders: JoinSet::new(), receivers: vec![] };
        for pair in 0..PAIRS {
            let sender = world.user("sender").await?;
            let (receiver, client, events) = device(world, "receiver").await?;
            load.receivers.push((client, events));
            let conversation = abi::ids::direct(&sender.user, &receiver);
            load.pairs.push((sender.clone(), conversation.clone()));
            let (stop, acknowledged) = (Arc::clone(&load.stop), Arc::clone(&load.acknowledged));
            let (server, api) = server(world)?;
            let tokens = api.login(&sender.user, PASSWORD, "sdk").await?;
            load.senders.spawn(async move {
                let tokens = SessionTokens::new(api, tokens);
                // The sender ignores its events: only receivers check deliveries.
                let (client, _events) =
                    Client::connect(server, tokens, Options::default(), State::default()).await?;
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let text = format!("{pair}:{}", sent.len());
                    client
                        .send(&conversation, client::text(&text))
                        .await
                        .with_context(|| format!("send {text}"))?;
                    sent.push(text);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                client.close().await;
                Ok((pair, sent))
            });
        }
        load.progresses().await?;
        Ok(load)
    }

    /// Waits until more messages have been acknowledged.
    pub(crate) async fn progresses(&self) -> Result<()> {
        let before = self.acknowledged.load(Ordering::Relaxed);
        eventually("messages are acknowledged", async || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            ensure!(now >= before + PROGRESS, "only {} so far", now - before);
            Ok(())
        })
        .await
    }

    /// Stops sending, compares the acknowledged messages with the received and the stored ones, and returns their number.
    pub(crate) async fn finish(mut self, world: &World) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all_sent = vec![Vec::new(); PAIRS];
        while let Some(ended) = self.senders.join_next().await {
            let (pair, sent) = ended??;
            all_sent[pair] = sent;
        }
        for (pair, ((client, mut events), sent)) in self.receivers.into_iter().zip(&all_sent).enumerate() {
            let mut received = Vec::new();
            while received.len() < sent.len() {
                let event = timeout(3 * tests::PATIENCE, events.next())
                    .await
                    .with_context(|| format!("lost: {} of {} were received", received.len(), sent.len()))?;
                match event {
                    Some(Event::Entry(entry)) => {
                        ensure!(entry.conversation_seq == received.len() as u64 + 1, "a seq is missing");
                        received.push(tests::device::text(&entry).to_owned());
                    }
                    Some(Event::Ended(error)) => bail!("the receiver ended: {error}"),
                    Some(_) => {}
                    None => bail!("the receiver's events ended"),
                }
            }
            ensure!(
                received == *sent,
                "pair {pair}: the received messages or their order differ from the sent ones"
            );
            client.close().await;
        }
        for ((sender, conversation), sent) in self.pairs.iter().zip(&all_sent) {
            let stored = world.connect(sender).await?.whole_history(conversation).await?;
            ensure!(
                texts(&stored) == *sent,
                "{conversation}: {} stored, {} acknowledged",
                stored.len(),
                sent.len()
            );
        }
        Ok(all_sent.iter().map(Vec::len).sum())
    }
}

fn server(world: &World) -> Result<(Server, Api)> {
    let server = Server::parse(&format!("http://{}", world.gateway()))?;
    Ok((server.clone(), Api::new(server)))
}

/// A new user with one connected device.
async fn device(world: &World, name: &str) -> Result<(String, Client, Events)> {
    let (server, api) = server(world)?;
    let tokens = api.register(&format!("{name}-{}", unique()), PASSWORD, "sdk").await?;
    let user = tokens.user.clone();
    let tokens = SessionTokens::new(api, tokens);
    let (client, events) = Client::connect(server, tokens, Options::default(), State::default()).await?;
    Ok((user, client, events))
}

/// Prints the result of a finished load.
pub(crate) fn report(disturbance: &str, acknowledged: usize) {
    let line = format!("{disturbance}: {acknowledged} acknowledged; lost 0, duplicated 0, out of order 0");
    // A closed stderr must not fail the test.
    let _ = writeln!(std::io::stderr(), "{line}");
}
