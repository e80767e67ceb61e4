//! The end of a run: all devices catch up, and users read the histories.

use super::environment::Environment;
use crate::ledger::{self, Conversation, FinalHead, History, Id, Millis, Settings, User};
use abi::{
    ApiError,
    v1::{GetHistory, Head},
};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tests::{
    device::{Device, Wire},
    world::PASSWORD,
};
use tokio::time::{Instant, sleep};

/// Time without progress after which the rest counts as unfinished.
const NO_PROGRESS: Duration = Duration::from_secs(60);
/// Attempts to read a page of a history.
const ATTEMPTS: usize = 20;

/// Watches whether the amount of open work decreases.
struct Progress {
    open: usize,
    since: Instant,
    deadline: Instant,
}

impl Progress {
    fn new(deadline: Instant) -> Self {
        Self { open: usize::MAX, since: Instant::now(), deadline }
    }

    /// Records the amount of open work. Returns whether to wait further, after a short pause.
    async fn wait(&mut self, open: usize) -> bool {
        if open < self.open {
            (self.open, self.since) = (open, Instant::now());
        }
        let wait = open > 0 && self.since.elapsed() < NO_PROGRESS && Instant::now() < self.deadline;
        if wait {
            sleep(Duration::from_millis(200)).await;
        }
        wait
    }
}

/// Waits until every send has its outcome, every acknowledged message was shown on a device, and every device has caught up.
pub(super) async fn wait_until_caught_up(environment: &Environment, limit: Duration) {
    let recorder = &environment.recorder;
    let deadline = Instant::now() + limit;
    recorder.start_final_phase();
    let mut progress = Progress::new(deadline);
    while progress.wait(recorder.pending_count() + recorder.unseen_count()).await {}
    for pending in recorder.describe_pending() {
        recorder.unfinished(pending);
    }
    // Even if messages are missing: a device that checks from now on finds everything that it can still find.
    let quiet: Millis = recorder.now();
    let mut progress = Progress::new(deadline.max(Instant::now() + NO_PROGRESS));
    while progress.wait(recorder.not_caught_up_since(quiet).len()).await {}
    for device in recorder.not_caught_up_since(quiet) {
        let device = &environment.population.ledger.devices[device as usize];
        let user = environment.population.name(device.user);
        recorder.unfinished(format!("{user}/{} ({:?}) has not caught up", device.name, device.kind));
    }
}

/// Reads the history of every conversation as a member, as each user whose membership changed, and as a user who was never a
/// member; and the heads of every user.
pub(super) async fn read_histories(environment: &Environment) -> Result<()> {
    let population = &environment.population;
    let mut readers: BTreeMap<User, Vec<Conversation>> = BTreeMap::new();
    for group in &population.groups {
        for user in std::iter::once(group.owner).chain(group.changing.iter().copied()) {
            readers.entry(user).or_default().push(group.conversation);
        }
    }
    for conversation in &population.conversations {
        let mut outsiders = 0..population.ledger.users.len() as User;
        if let Some(user) = outsiders.find(|user| !conversation.members.contains(user)) {
            readers.entry(user).or_default().push(conversation.id);
        }
    }
    for direct in population.conversations.iter().filter(|conversation| conversation.members.len() == 2) {
        readers.entry(direct.members[0]).or_default().push(direct.id);
    }
    for user in 0..population.ledger.users.len() as User {
        readers.entry(user).or_default();
    }
    for (user, conversations) in readers {
        let mut reader = Reader { environment, user, device: None };
        for conversation in conversations {
            let entries = reader.read(conversation).await?;
            environment.recorder.history_read(History { conversation, user, entries });
        }
        for head in reader.heads().await? {
            environment.recorder.head_read(final_head(environment, user, head));
        }
    }
    Ok(())
}

fn final_head(environment: &Environment, user: User, head: Head) -> FinalHead {
    let settings = head.settings.unwrap_or_default();
    FinalHead {
        user,
        conversation: environment.recorder.conversation(&head.conversation),
        conversation_seq: ledger::narrow(head.conversation_seq),
        read_seq: ledger::narrow(head.read_seq),
        unread: ledger::narrow(head.unread),
        settings: Settings { pinned: settings.pinned, archived: settings.archived, draft: settings.draft },
    }
}

/// See [`History::entries`].
type ReadEntry = (u32, Id, u64, u64);

/// A device that only reads histories.
struct Reader<'a> {
    environment: &'a Environment,
    user: User,
    device: Option<Device>,
}

impl Reader<'_> {
    /// Reads a whole history; empty if the user may not read it.
    async fn read(&mut self, conversation: Conversation) -> Result<Vec<ReadEntry>> {
        let id = &self.environment.population.ledger.conversations[conversation as usize];
        let mut found: Vec<ReadEntry> = Vec::new();
        let mut attempts = 0;
        loop {
            let after = found.last().map_or(0, |(seq, ..)| u64::from(*seq));
            let page =
                GetHistory { conversation: id.clone(), after, limit: abi::MAX_PAGE, ..GetHistory::default() };
            match self.page(page).await {
                Ok(page) => {
                    let entries = page.entries.iter();
                    found.extend(entries.map(|entry| {
                        let id = Id::parse(&entry.message_id).unwrap_or_default();
                        let digest = ledger::digest_of(entry);
                        let state = ledger::own_state_of(entry.state.as_ref());
                        (ledger::narrow(entry.conversation_seq), id, digest, state)
                    }));
                    if !page.more {
                        return Ok(found);
                    }
                }
                // The user is not a member, or the conversation has no entries.
                Err(error) if is_forbidden(&error) => return Ok(found),
                Err(error) if attempts == ATTEMPTS => {
                    return Err(error).with_context(|| format!("read {id}"));
                }
                Err(_) => {
                    attempts += 1;
                    self.device = None;
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Reads all heads of the user.
    async fn heads(&mut self) -> Result<Vec<Head>> {
        let mut attempts = 0;
        loop {
            let read = async { self.device().await?.heads().await }.await;
            match read {
                Err(_) if attempts < ATTEMPTS => {
                    attempts += 1;
                    self.device = None;
                    sleep(Duration::from_millis(500)).await;
                }
                read => return read.context("read heads"),
            }
        }
    }

    async fn page(&mut self, page: GetHistory) -> Result<abi::v1::HistoryPage> {
        self.device().await?.history(page).await
    }

    /// The connected device.
    async fn device(&mut self) -> Result<&mut Device> {
        if self.device.is_none() {
            let name = self.environment.population.name(self.user);
            let body = json!({ "user": name, "password": PASSWORD, "device": "reader" }).to_string();
            let address = self.environment.api_link.address();
            let tokens = tests::http::request(address, "POST", "/v1/sessions", None, Some(&body));
            let tokens = tokens.await?.json()?;
            let token = tokens["access_token"].as_str().context("no access token")?;
            let gateway = self.environment.gateways.first().context("no gateway")?;
            self.device = Some(Device::connect(gateway, Wire::Proto, token, None).await?.0);
        }
        self.device.as_mut().context("it is connected")
    }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ApiError>().is_some_and(|error| error.code.name() == "forbidden")
}
