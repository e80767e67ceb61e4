//! A device that uses the SDK.

use super::{
    command::{Command, SendJob, SignalJob},
    device::{DeviceContext, Snapshots},
};
use crate::ledger::Observation;
use abi::v1::{Ack, GetChanges};
use client::{Client, Error, Event, Events, Options, State};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::BTreeMap, pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Interval at which the device saves and reports its state.
const REPORT: Duration = Duration::from_secs(1);
/// Longest wait for the answer to a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a change of settings or a signal.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the restart of a client that ended with a permanent error.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Sends without an outcome above which the device takes no more commands.
const MAX_UNSENT: usize = 200;

/// The end of an incarnation.
enum End {
    /// The run is over.
    Stopped,
    /// The program restarts with a state.
    Restarted(State),
}

/// Sends in flight: the index of each with its outcome.
type Acks = FuturesUnordered<BoxFuture<'static, (u32, Result<Ack, Error>)>>;

struct SdkDevice {
    context: DeviceContext,
    /// Jobs without an outcome, in their order.
    unsent: BTreeMap<u32, SendJob>,
    snapshots: Snapshots,
}

/// Runs the device until the end of the run.
pub(super) async fn run(context: DeviceContext) {
    let snapshots = Snapshots::new(context.seed);
    let mut device = SdkDevice { context, unsent: BTreeMap::new(), snapshots };
    let mut state = State::default();
    while let End::Restarted(next) = device.run_incarnation(state).await {
        state = next;
    }
    for send in device.unsent.into_keys() {
        device.context.recorder.abandoned(send);
    }
}

impl SdkDevice {
    async fn run_incarnation(&mut self, state: State) -> End {
        let options = Options {
            max_pause: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(10),
            queue: 256,
            ..Options::default()
        };
        let DeviceContext { id, recorder, server, tokens, .. } = &self.context;
        recorder.begin_incarnation(*id, &state);
        let (client, mut events) = Client::start(server.clone(), tokens.clone(), options, state);
        let mut acks = Acks::new();
        // Resume the sends of earlier incarnations, in their order.
        for job in self.unsent.values() {
            match enqueue(&client, job).await {
                Ok(sending) => acks.push(outcome(job.send, sending)),
                Err(_) => break,
            }
        }
        let end = self.serve(&client, &mut events, &mut acks).await;
        client.close().await;
        // Record the acknowledgements that arrived before the close.
        while let Some((send, outcome)) = acks.next().await {
            self.record(send, outcome);
        }
        end
    }

    async fn serve(&mut self, client: &Client, events: &mut Events, acks: &mut Acks) -> End {
        let stop = self.context.stop.clone();
        let mut tick = interval(REPORT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let end = tokio::select! {
                event = events.next() => self.handle(client, event).await,
                Some((send, outcome)) = acks.next(), if !acks.is_empty() => {
                    self.record(send, outcome);
                    None
                }
                () = stop.cancelled() => Some(End::Stopped),
                Some(command) = self.context.commands.recv(), if self.unsent.len() < MAX_UNSENT => {
                    self.apply(client, acks, command).await
                }
                _ = tick.tick() => {
                    self.snapshots.save(client.state());
                    self.report_complete(client);
                    if self.context.recorder.in_final_phase() {
                        self.check_caught_up(client, events).await;
                    }
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn handle(&self, client: &Client, event: Option<Event>) -> Option<End> {
        let DeviceContext { id, recorder, .. } = &self.context;
        match event {
            // The SDK does not report whether an entry was pushed or fetched, so none counts as live.
            Some(Event::Entry(entry)) => recorder.shown(*id, &entry, false),
            Some(Event::CaughtUp) => self.report_complete(client),
            Some(Event::Signal(signal)) => recorder.signalled(*id, &signal),
            Some(Event::Ended(error)) => {
                recorder.ended(*id, error.to_string());
                sleep(RESTART_PAUSE).await;
                return Some(End::Restarted(client.state()));
            }
            Some(_) => {}
            None => return Some(End::Restarted(client.state())),
        }
        None
    }

    async fn apply(&mut self, client: &Client, acks: &mut Acks, command: Command) -> Option<End> {
        match command {
            Command::Send(job) => {
                if let Ok(sending) = enqueue(client, &job).await {
                    acks.push(outcome(job.send, sending));
                }
                self.unsent.insert(job.send, job);
            }
            Command::Restart => return Some(End::Restarted(self.snapshots.load(client.state()))),
            Command::Sleep(pause) => {
                sleep(pause).await;
                // Commands that arrived in this time waited for the device, not for the system.
                self.context.recorder.excuse_pending(self.context.id);
            }
            Command::Settings(job) => {
                let changing = timeout(ANSWER_TIMEOUT, client.change_settings(job.request()));
                if let Ok(Ok(())) = changing.await {
                    self.context.recorder.settings_changed(job.number);
                }
                // The device handled no answers meanwhile.
                self.context.recorder.excuse_pending(self.context.id);
            }
            Command::Signal(SignalJob { conversation, kind }) => {
                let _ = timeout(ANSWER_TIMEOUT, client.signal(&conversation, kind)).await;
                self.context.recorder.excuse_pending(self.context.id);
            }
        }
        None
    }

    fn record(&mut self, send: u32, outcome: Result<Ack, Error>) {
        match outcome {
            Ok(ack) => self.context.recorder.acked(send, &ack),
            Err(Error::Server(error)) => self.context.recorder.refused(send, error.code.name(), false),
            // The client has ended. The next one tries again.
            Err(_) => return,
        }
        self.unsent.remove(&send);
    }

    /// Records the receiver seq up to which the device claims to have everything.
    fn report_complete(&self, client: &Client) {
        let DeviceContext { id, recorder, .. } = &self.context;
        if let Some(have) = client.state().have {
            let complete = Observation::Complete { epoch: have.epoch, seq: have.seq, at: recorder.now() };
            recorder.observed(*id, complete);
        }
    }

    /// Records whether the device has every entry up to the server's heads. Handles events while it waits for the heads.
    async fn check_caught_up(&self, client: &Client, events: &mut Events) {
        let DeviceContext { id, recorder, .. } = &self.context;
        let asked = recorder.now();
        let mut heads = pin!(timeout(QUERY_TIMEOUT, heads(client)));
        let heads = loop {
            tokio::select! {
                heads = &mut heads => break heads,
                event = events.next() => match event {
                    Some(Event::Entry(entry)) => recorder.shown(*id, &entry, false),
                    Some(_) => {}
                    None => return,
                },
            }
        };
        let Ok(Ok(heads)) = heads else { return };
        let positions = client.state().positions;
        let has =
            |(conversation, head): &(String, u64)| positions.get(conversation).copied().unwrap_or(0) >= *head;
        if heads.iter().all(has) {
            recorder.caught_up(*id, asked);
        }
    }
}

async fn enqueue(client: &Client, job: &SendJob) -> Result<client::Sending, Error> {
    client.enqueue(&job.conversation, job.draft.clone(), Some(job.client_msg_id.clone())).await
}

fn outcome(send: u32, sending: client::Sending) -> BoxFuture<'static, (u32, Result<Ack, Error>)> {
    async move { (send, sending.await) }.boxed()
}

/// All heads of the user: conversation and `conversation_seq`.
async fn heads(client: &Client) -> Result<Vec<(String, u64)>, Error> {
    let mut heads = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = GetChanges { have: None, cursor, limit: abi::MAX_PAGE };
        let page = client.changes(request).await?;
        heads.extend(page.heads.into_iter().map(|head| (head.conversation, head.conversation_seq)));
        cursor = page.next;
        if cursor.is_empty() {
            return Ok(heads);
        }
    }
}
