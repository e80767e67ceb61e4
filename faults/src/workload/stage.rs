//! Everybody at their places: accounts, tokens, lines, running devices, groups.

use super::{
    NOT_TAKEN, Options, Order,
    book::{Book, Job},
    cast::{Cast, Group},
    device::{Seat, Tokens},
    line::Line,
    raw, sdk,
};
use crate::ledger::{Conversation, DeviceId, Kind, User};
use anyhow::{Context as _, Result, anyhow, bail};
use client::{
    Error, Recovery, Server,
    http::Api,
    tokens::{SessionTokens, TokenSource as _},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{http, world::PASSWORD};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Orders that may wait for a device.
const ORDERS: usize = 64;
/// Accounts and groups that are made at a time.
const AT_A_TIME: usize = 8;
/// Attempts to make one.
const ATTEMPTS: usize = 20;

/// A running device as others see it.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) id: DeviceId,
    pub(super) user: User,
    pub(super) kind: Kind,
    pub(super) tokens: Tokens,
    line: Line,
    orders: mpsc::Sender<Order>,
    online: AtomicBool,
    excused: AtomicBool,
}

impl Hand {
    /// Whether it is meant to be online.
    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// Whether what it begins now may have to wait for it: it is away, or on its way back.
    pub(super) fn is_excused(&self) -> bool {
        self.excused.load(Ordering::Relaxed)
    }

    /// From now on, or not any more.
    pub(super) fn set_excused(&self, excused: bool) {
        self.excused.store(excused, Ordering::Relaxed);
    }

    /// Cuts it off, or lets it connect again.
    pub(super) fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
        self.line.set(online);
    }

    /// Gives it something to do; `false` if it has enough.
    pub(super) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }
}

/// Everybody, with what they share.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) cast: Cast,
    pub(super) book: Arc<Book>,
    /// In the order of the ledger's devices.
    pub(super) hands: Vec<Hand>,
    /// Who is out of which group for now.
    pub(super) out: Mutex<HashSet<(Conversation, User)>>,
    /// Leads to all gateways, and is never cut.
    pub(super) office: Line,
    pub(super) gateways: Arc<[String]>,
    /// The lines'.
    tasks: TaskTracker,
    devices: JoinSet<()>,
    /// Ends the devices.
    stop: CancellationToken,
}

impl Stage {
    /// Makes accounts, starts all devices and makes the groups.
    pub(super) async fn set(seed: u64, gateways: Vec<String>, options: &Options) -> Result<Self> {
        let cast = Cast::new(seed, gateways.len(), options);
        let book = Arc::new(Book::new(cast.ledger.clone()));
        let gateways: Arc<[String]> = gateways.into();
        let tasks = TaskTracker::new();
        let office = Line::open(Arc::clone(&gateways), seed, &tasks).await?;
        let stop = CancellationToken::new();
        let mut devices = JoinSet::new();
        let mut hands = Vec::new();
        let mut seats = Vec::new();
        let accounts = stream::iter(0..cast.ledger.users.len() as User)
            .map(|user| accounts(&cast, user, &gateways, seed, &tasks))
            .buffered(AT_A_TIME);
        let accounts: Vec<_> = accounts.try_collect().await?;
        for (device, line, tokens) in accounts.into_iter().flatten() {
            let (orders, out) = mpsc::channel(ORDERS);
            let entry = &cast.ledger.devices[device as usize];
            let server = Server::parse(line.address())?;
            let probes = cast.probes.iter().any(|(probe, _)| *probe == device);
            let seat = Seat {
                id: device,
                seed: seed ^ u64::from(device),
                book: Arc::clone(&book),
                server,
                tokens: tokens.clone(),
                orders: out,
                sibling: None,
                probes,
                stop: stop.clone(),
            };
            seats.push(seat);
            hands.push(Hand {
                id: device,
                user: entry.user,
                kind: entry.kind,
                tokens,
                line,
                orders,
                online: AtomicBool::new(true),
                excused: AtomicBool::new(false),
            });
        }
        hands.sort_by_key(|hand| hand.id);
        for mut seat in seats {
            let own = &hands[seat.id as usize];
            let sibling = hands
                .iter()
                .find(|hand| hand.user == own.user && hand.kind == Kind::Raw && hand.id != own.id);
            seat.sibling = sibling.map(|hand| hand.orders.clone());
            match own.kind {
                Kind::Sdk => devices.spawn(sdk::run(seat)),
                Kind::Raw => devices.spawn(raw::run(seat)),
            };
        }
        let stage = Self { cast, book, hands, out: Mutex::default(), office, gateways, tasks, devices, stop };
        stream::iter(&stage.cast.groups)
            .map(Ok)
            .try_for_each_concurrent(AT_A_TIME, |group| stage.make(group))
            .await?;
        Ok(stage)
    }

    async fn make(&self, group: &Group) -> Result<()> {
        let members: Vec<_> = group.members.iter().map(|&user| self.cast.name(user)).collect();
        let history = if group.sees_all { "all" } else { "from_join" };
        let body = json!({
            "name": "friends", "members": members, "history": history, "request_id": group.request,
        });
        let made = self.ask(group.owner, "POST", "/v1/groups", Some(body), ATTEMPTS).await?;
        let id = &self.cast.ledger.conversations[group.conversation as usize];
        if made["conversation"] != id.as_str() {
            bail!("the group {id} was made as {}", made["conversation"]);
        }
        Ok(())
    }

    /// A request of a user, repeated while it may help.
    pub(super) async fn ask(
        &self,
        user: User,
        method: &str,
        path: &str,
        body: Option<Value>,
        attempts: usize,
    ) -> Result<Value> {
        let body = body.map(|body| body.to_string());
        let tokens = &self.first_hand(user).tokens;
        let mut expired: Option<String> = None;
        let mut last = anyhow!("never asked");
        for attempt in 0..attempts {
            if attempt > 0 {
                sleep(Duration::from_millis(200)).await;
            }
            let token = match tokens.token(expired.as_deref()).await {
                Ok(token) => token,
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            match http::request(self.office.address(), method, path, Some(&token), body.as_deref()).await {
                Ok(answer) if (200..300).contains(&answer.status) => return answer.json(),
                Ok(answer) if answer.status == 401 && expired.is_none() => expired = Some(token),
                Ok(answer) => {
                    last = anyhow!("{method} {path} was answered {} {}", answer.status, answer.body);
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
    pub(super) fn first_hand(&self, user: User) -> &Hand {
        self.hands.iter().find(|hand| hand.user == user).expect("every user has a device")
    }

    /// Whether a user is out of a group for now.
    pub(super) fn is_out(&self, conversation: Conversation, user: User) -> bool {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).contains(&(conversation, user))
    }

    /// Notes who is out.
    pub(super) fn set_out(&self, conversation: Conversation, user: User, out: bool) {
        let mut all = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out {
            all.insert((conversation, user));
        } else {
            all.remove(&(conversation, user));
        }
    }

    /// Begins a message at a device; `false` if the device has enough to do.
    pub(super) fn send(
        &self,
        hand: &Hand,
        conversation: Conversation,
        size: usize,
        forbidden: bool,
    ) -> Option<Job> {
        let job = self.book.begin(hand.id, conversation, size, forbidden, hand.is_excused());
        if hand.order(Order::Send(job.clone())) {
            return Some(job);
        }
        self.book.refused(job.send, NOT_TAKEN, true);
        None
    }

    /// Ends all devices and lines.
    ///
    /// # Errors
    /// If a device has panicked: what it did not see or send then is no fault of the system.
    pub(super) async fn strike(self) -> Result<Arc<Book>> {
        self.stop.cancel();
        let Self { hands, office, tasks, mut devices, book, .. } = self;
        while let Some(ended) = devices.join_next().await {
            ended.context("a device has panicked")?;
        }
        drop((hands, office));
        tasks.close();
        tasks.wait().await;
        Ok(book)
    }
}

/// The devices of a user: registered, logged in, each with its line.
async fn accounts(
    cast: &Cast,
    user: User,
    gateways: &Arc<[String]>,
    seed: u64,
    tasks: &TaskTracker,
) -> Result<Vec<(DeviceId, Line, Tokens)>> {
    let mut devices = Vec::new();
    let name = cast.name(user);
    for (device, entry) in cast.ledger.devices.iter().enumerate().filter(|(_, device)| device.user == user) {
        let device = device as DeviceId;
        let probe = cast.probes.iter().find(|(probe, _)| *probe == device);
        let own = probe.map_or_else(|| Arc::clone(gateways), |(_, at)| Arc::from([gateways[*at].clone()]));
        let line = Line::open(own, seed ^ u64::from(device) << 32, tasks).await?;
        let api = Api::new(Server::parse(line.address())?);
        let mut attempt = 0;
        let tokens = loop {
            let given = match devices.is_empty() {
                true => api.register(name, PASSWORD, &entry.name).await,
                false => api.login(name, PASSWORD, &entry.name).await,
            };
            match given {
                Ok(tokens) => break tokens,
                Err(error) if attempt < ATTEMPTS && matches!(error.recovery(), Recovery::Retry(_)) => {
                    attempt += 1;
                    sleep(Duration::from_millis(200)).await;
                }
                // An earlier attempt has made the account, and its answer was lost.
                Err(Error::Server(fault)) if attempt > 0 && fault.code.name() == "already_exists" => {
                    break api.login(name, PASSWORD, &entry.name).await?;
                }
                Err(error) => return Err(error).with_context(|| format!("logging {name} in")),
            }
        };
        devices.push((device, line, Tokens(Arc::new(SessionTokens::new(api, tokens)))));
    }
    Ok(devices)
}
