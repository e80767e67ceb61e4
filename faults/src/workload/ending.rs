//! The end of a run: everybody catches up, and members read the histories.

use super::stage::Stage;
use crate::ledger::{self, Conversation, History, Id, Millis, User};
use abi::{ApiError, v1::GetHistory};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tests::{
    device::{Device, Wire},
    world::PASSWORD,
};
use tokio::time::{Instant, sleep};

/// How long nothing may come nearer to its end before it is taken for lost.
const NO_PROGRESS: Duration = Duration::from_secs(60);
/// Attempts to read a history.
const ATTEMPTS: usize = 20;

/// Whether something comes nearer to its end.
struct Progress {
    open: usize,
    since: Instant,
    deadline: Instant,
}

impl Progress {
    fn new(deadline: Instant) -> Self {
        Self { open: usize::MAX, since: Instant::now(), deadline }
    }

    /// Takes note of how much is open; gives whether to wait on.
    async fn waits(&mut self, open: usize) -> bool {
        if open < self.open {
            (self.open, self.since) = (open, Instant::now());
        }
        let waits = open > 0 && self.since.elapsed() < NO_PROGRESS && Instant::now() < self.deadline;
        if waits {
            sleep(Duration::from_millis(200)).await;
        }
        waits
    }
}

/// Waits until all sends have their outcome, all acknowledged messages were seen, and all devices have everything.
pub(super) async fn settle(stage: &Stage, patience: Duration) {
    let book = &stage.book;
    let deadline = Instant::now() + patience;
    book.closing();
    let mut progress = Progress::new(deadline);
    while progress.waits(book.pending() + book.unseen()).await {}
    for pending in book.describe_pending() {
        book.unfinished(pending);
    }
    // Even when something is missing: whoever looks again now finds all that can still be found.
    let quiet: Millis = book.now();
    let mut progress = Progress::new(deadline.max(Instant::now() + NO_PROGRESS));
    while progress.waits(book.unsettled(quiet).len()).await {}
    for device in book.unsettled(quiet) {
        let entry = &stage.cast.ledger.devices[device as usize];
        let user = stage.cast.name(entry.user);
        book.unfinished(format!("{user}/{} ({:?}) has not caught up", entry.name, entry.kind));
    }
}

/// Reads the history of every conversation as a member sees it, as those see it who were removed and added, and as somebody
/// tries who was never in it.
pub(super) async fn read(stage: &Stage) -> Result<()> {
    let mut readers: BTreeMap<User, Vec<Conversation>> = BTreeMap::new();
    for group in &stage.cast.groups {
        for user in std::iter::once(group.owner).chain(group.comers.iter().copied()) {
            readers.entry(user).or_default().push(group.conversation);
        }
    }
    for talk in &stage.cast.talks {
        let mut outsiders = 0..stage.cast.ledger.users.len() as User;
        if let Some(user) = outsiders.find(|user| !talk.members.contains(user)) {
            readers.entry(user).or_default().push(talk.conversation);
        }
    }
    for talk in stage.cast.talks.iter().filter(|talk| talk.members.len() == 2) {
        readers.entry(talk.members[0]).or_default().push(talk.conversation);
    }
    for (user, conversations) in readers {
        let mut reader = Reader { stage, user, device: None };
        for conversation in conversations {
            let entries = reader.whole(conversation).await?;
            stage.book.read(History { conversation, user, entries });
        }
    }
    Ok(())
}

/// A device that only reads.
struct Reader<'a> {
    stage: &'a Stage,
    user: User,
    device: Option<Device>,
}

impl Reader<'_> {
    async fn whole(&mut self, conversation: Conversation) -> Result<Vec<(u32, Id, u64)>> {
        let id = &self.stage.cast.ledger.conversations[conversation as usize];
        let mut found: Vec<(u32, Id, u64)> = Vec::new();
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
                        let digest =
                            ledger::digest(&entry.sender, &entry.client_msg_id, entry.content.as_ref());
                        (super::book::number(entry.conversation_seq), id, digest)
                    }));
                    if !page.more {
                        return Ok(found);
                    }
                }
                // The reader is not in it, or nothing was ever said in it.
                Err(error)
                    if error
                        .downcast_ref::<ApiError>()
                        .is_some_and(|fault| fault.code.name() == "forbidden") =>
                {
                    return Ok(found);
                }
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

    async fn page(&mut self, page: GetHistory) -> Result<abi::v1::HistoryPage> {
        if self.device.is_none() {
            let name = self.stage.cast.name(self.user);
            let body = json!({ "user": name, "password": PASSWORD, "device": "reader" }).to_string();
            let tokens =
                tests::http::request(self.stage.office.address(), "POST", "/v1/sessions", None, Some(&body));
            let tokens = tokens.await?.json()?;
            let token = tokens["access_token"].as_str().context("no access token")?;
            let gateway = self.stage.gateways.first().context("no gateway")?;
            self.device = Some(Device::connect(gateway, Wire::Proto, token, None).await?.0);
        }
        self.device.as_mut().context("it is connected")?.history(page).await
    }
}
