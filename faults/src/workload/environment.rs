//! Everything that the tasks of the workload share: population, recorder, running devices and their links.

mod accounts;

use super::{
    command::{Command, Intent, SendJob},
    device::{DeviceContext, SharedTokens},
    device_link::DeviceLink,
    options::Options,
    population::{Group, Population},
    raw,
    recorder::Recorder,
    sdk,
};
use crate::ledger::{Conversation, DeviceId, DeviceKind, NOT_TAKEN, User};
use accounts::{ATTEMPTS, Account, RETRY_PAUSE};
use anyhow::{Context as _, Result, anyhow, bail};
use client::{Server, tokens::TokenSource as _};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tests::http;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Capacity of a device's command queue.
const COMMANDS: usize = 64;
/// Accounts or groups that are created concurrently.
const CONCURRENCY: usize = 8;

/// A running device as the rest of the workload sees it.
#[derive(Debug)]
pub(super) struct DeviceHandle {
    pub(super) id: DeviceId,
    pub(super) user: User,
    pub(super) kind: DeviceKind,
    tokens: SharedTokens,
    link: DeviceLink,
    commands: mpsc::Sender<Command>,
    online: AtomicBool,
    excused: AtomicBool,
}

impl DeviceHandle {
    /// Whether its link is up.
    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// Whether the wait of its sends does not count as a pause of the system, because the device is offline or reconnecting.
    pub(super) fn is_excused(&self) -> bool {
        self.excused.load(Ordering::Relaxed)
    }

    pub(super) fn set_excused(&self, excused: bool) {
        self.excused.store(excused, Ordering::Relaxed);
    }

    /// Takes its link up or down.
    pub(super) fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
        self.link.set(online);
    }

    /// Queues a command. Returns `false` if the queue is full.
    pub(super) fn command(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }
}

/// The shared environment of the workload's tasks.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) population: Population,
    pub(super) recorder: Arc<Recorder>,
    /// Indexed by [`DeviceId`].
    pub(super) devices: Vec<DeviceHandle>,
    /// Users who are removed from a group at present.
    removed: Mutex<HashSet<(Conversation, User)>>,
    /// A link for requests of the suite itself, which is never down.
    pub(super) api_link: DeviceLink,
    pub(super) gateways: Arc<[String]>,
    /// Tasks of the links.
    link_tasks: TaskTracker,
    device_tasks: JoinSet<()>,
    /// Stops the devices.
    stop: CancellationToken,
}

impl Environment {
    /// Creates accounts, starts all devices and creates the groups.
    pub(super) async fn build(seed: u64, gateways: Vec<String>, options: &Options) -> Result<Self> {
        let population = Population::new(seed, gateways.len(), options);
        let recorder = Arc::new(Recorder::new(population.ledger.clone()));
        let gateways: Arc<[String]> = gateways.into();
        let link_tasks = TaskTracker::new();
        let api_link = DeviceLink::open(Arc::clone(&gateways), seed, &link_tasks).await?;
        let accounts = stream::iter(0..population.ledger.users.len() as User)
            .map(|user| accounts::create(&population, user, &gateways, seed, &link_tasks))
            .buffered(CONCURRENCY);
        let accounts: Vec<_> = accounts.try_collect().await?;
        let mut environment = Self {
            population,
            recorder,
            devices: Vec::new(),
            removed: Mutex::default(),
            api_link,
            gateways,
            link_tasks,
            device_tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        environment.start_devices(seed, accounts.into_iter().flatten())?;
        stream::iter(&environment.population.groups)
            .map(Ok)
            .try_for_each_concurrent(CONCURRENCY, |group| environment.create_group(group))
            .await?;
        Ok(environment)
    }

    fn start_devices(&mut self, seed: u64, accounts: impl Iterator<Item = Account>) -> Result<()> {
        let mut contexts = Vec::new();
        for Account { device: id, link, tokens } in accounts {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let device = &self.population.ledger.devices[id as usize];
            contexts.push(DeviceContext {
                id,
                seed: seed ^ u64::from(id),
                recorder: Arc::clone(&self.recorder),
                server: Server::parse(link.address())?,
                tokens: tokens.clone(),
                commands,
                sibling: None,
                is_probe: self.population.probes.iter().any(|(probe, _)| *probe == id),
                stop: self.stop.clone(),
            });
            self.devices.push(DeviceHandle {
                id,
                user: device.user,
                kind: device.kind,
                tokens,
                link,
                commands: sender,
                online: AtomicBool::new(true),
                excused: AtomicBool::new(false),
            });
        }
        self.devices.sort_by_key(|device| device.id);
        for mut context in contexts {
            let own = &self.devices[context.id as usize];
            let sibling = self.devices.iter().find(|device| {
                device.user == own.user && device.kind == DeviceKind::Raw && device.id != own.id
            });
            context.sibling = sibling.map(|device| (device.id, device.commands.clone()));
            match own.kind {
                DeviceKind::Sdk => self.device_tasks.spawn(sdk::run(context)),
                DeviceKind::Raw => self.device_tasks.spawn(raw::run(context)),
            };
        }
        Ok(())
    }

    async fn create_group(&self, group: &Group) -> Result<()> {
        let members: Vec<_> = group.members.iter().map(|&user| self.population.name(user)).collect();
        let history = if group.sees_all { "all" } else { "from_join" };
        let body = json!({
            "name": "friends", "members": members, "history": history, "request_id": group.request,
        });
        let created = self.request(group.owner, "POST", "/v1/groups", Some(body), ATTEMPTS).await?;
        let id = &self.population.ledger.conversations[group.conversation as usize];
        if created["conversation"] != id.as_str() {
            bail!("the group {id} was created as {}", created["conversation"]);
        }
        Ok(())
    }

    /// Sends an API request of a user, with retries.
    pub(super) async fn request(
        &self,
        user: User,
        method: &str,
        path: &str,
        body: Option<Value>,
        attempts: usize,
    ) -> Result<Value> {
        let body = body.map(|body| body.to_string());
        let tokens = &self.first_device(user).tokens;
        let mut expired: Option<String> = None;
        let mut last = anyhow!("no attempt was made");
        for attempt in 0..attempts {
            if attempt > 0 {
                sleep(RETRY_PAUSE).await;
            }
            let token = match tokens.token(expired.as_deref()).await {
                Ok(token) => token,
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            let address = self.api_link.address();
            match http::request(address, method, path, Some(&token), body.as_deref()).await {
                Ok(answer) if (200..300).contains(&answer.status) => return answer.json(),
                Ok(answer) if answer.status == 401 && expired.is_none() => expired = Some(token),
                Ok(answer) => {
                    last = anyhow!("{method} {path} was answered with {} {}", answer.status, answer.body);
                    if answer.status < 500 && answer.status != 429 {
                        break;
                    }
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The first device of a user.
    pub(super) fn first_device(&self, user: User) -> &DeviceHandle {
        self.devices.iter().find(|device| device.user == user).expect("every user has a device")
    }

    /// Whether a user is removed from a group at present, or a change of that is in flight.
    pub(super) fn is_removed(&self, conversation: Conversation, user: User) -> bool {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).contains(&(conversation, user))
    }

    pub(super) fn set_removed(&self, conversation: Conversation, user: User, removed: bool) {
        let mut all = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if removed {
            all.insert((conversation, user));
        } else {
            all.remove(&(conversation, user));
        }
    }

    /// Lets a device send an entry. If its command queue is full, the send is recorded as not taken.
    pub(super) fn send(
        &self,
        device: &DeviceHandle,
        conversation: Conversation,
        intent: &Intent,
        forbidden: bool,
    ) {
        let excused = device.is_excused();
        let job: SendJob = self.recorder.begin_send(device.id, conversation, intent, forbidden, excused);
        let send = job.send;
        if !device.command(Command::Send(job)) {
            self.recorder.refused(send, NOT_TAKEN, true);
        }
    }

    /// Stops all devices and links.
    ///
    /// # Errors
    /// If the task of a device has panicked: its missing observations would look like violations.
    pub(super) async fn shut_down(self) -> Result<Arc<Recorder>> {
        self.stop.cancel();
        let Self { devices, api_link, link_tasks, mut device_tasks, recorder, .. } = self;
        while let Some(ended) = device_tasks.join_next().await {
            ended.context("the task of a device has panicked")?;
        }
        drop((devices, api_link));
        link_tasks.close();
        link_tasks.wait().await;
        Ok(recorder)
    }
}
