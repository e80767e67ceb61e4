//! What stands behind every connection: the other services, the log, the cache, and who may do what.

mod connections;

use crate::{
    groups::not_a_member,
    hub::{Connection, Hub, Identity},
    limits::Limits,
    password::Passwords,
    session::{Request, Settings},
    token::Tokens,
    trace,
};
use abi::{
    ApiError, Caller, Channel, Gateways,
    config::{self, Config},
    error::ErrorCode,
    ids::Conversation,
    record,
    v1::{
        Entry, GetMembersRequest, GetUserRequest, HeadsRequest, HistoryRequest, MarkRead, MarkReadRequest,
        Members, Pong, PushRequest, ReadMarked, ReadReceipt, Receipt, db_service_client::DbServiceClient,
        entry::Content, push_service_client::PushServiceClient, server_frame::Frame,
    },
};
use cache::{Cache, MEMBERS_TTL};
use kafka_runtime::{Producer, ProducerRecord};
use std::{
    collections::HashSet,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};
use tokio_util::task::TaskTracker;
use utils::{clock::now_ms, trace::Spans};

/// Users that are known to exist; when so many are remembered it forgets all and asks again.
const MAX_KNOWN_USERS: usize = 100_000;
/// Largest gRPC answer: a page of history is about a MiB.
const MAX_ANSWER: usize = 16 << 20;

/// What the gateway is given to work with.
pub struct Dependencies {
    /// To db-service.
    pub db: Channel,
    /// To pusher.
    pub push: Channel,
    /// To other gateways.
    pub gateways: Gateways,
    /// Receivers' seq, routes, members.
    pub cache: Arc<dyn Cache>,
    /// The log.
    pub producer: Arc<dyn Producer>,
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").finish_non_exhaustive()
    }
}

/// See the module.
pub struct Backend {
    /// The application that is served.
    pub app: String,
    /// Accounts and tokens.
    pub auth: config::Auth,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Signs and verifies access tokens.
    pub tokens: Tokens,
    /// Limits that outlive a connection.
    pub limits: Limits,
    /// Connections here.
    pub hub: Arc<Hub>,
    /// Rules of a session.
    pub session: Arc<Settings>,
    /// Largest frame or HTTP body, in bytes.
    pub max_frame: usize,
    /// Largest body of a message, in bytes.
    pub max_body: usize,
    /// What may wait for a device, in bytes.
    pub max_outbox: usize,
    /// What requests have begun and must not leave half done, though their clients may be gone.
    pub tasks: TaskTracker,
    /// Address under which pushers reach this gateway; its name in the routes.
    address: String,
    topic: Arc<str>,
    services: Dependencies,
    known_users: Mutex<HashSet<String>>,
    run: String,
    next_connection: AtomicU64,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("app", &self.app)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Puts it together.
    ///
    /// # Errors
    /// If the costs of Argon2id are out of its bounds.
    pub fn new(
        config: &Config,
        tokens: Tokens,
        address: String,
        services: Dependencies,
    ) -> Result<Self, argon2::Error> {
        let (gateway, limits) = (&config.gateway, &config.limits);
        Ok(Self {
            app: config.app.clone(),
            auth: config.auth.clone(),
            passwords: Passwords::new(&config.auth)?,
            tokens,
            limits: Limits::new(limits),
            hub: Arc::new(Hub::new(limits.connections_per_user as usize, gateway.max_outbox.bytes() / 4)),
            session: Arc::new(Settings {
                hello_timeout: gateway.hello_timeout,
                heartbeat: gateway.heartbeat,
                recheck: config.auth.access_token_life,
                max_in_flight: gateway.max_in_flight,
                requests: (limits.requests_per_second, limits.request_burst),
            }),
            max_frame: gateway.max_frame.bytes(),
            max_body: gateway.max_body.bytes(),
            max_outbox: gateway.max_outbox.bytes(),
            tasks: TaskTracker::new(),
            address,
            topic: config.kafka.topic.as_str().into(),
            services,
            known_users: Mutex::default(),
            run: format!("{:08x}", rand::random::<u32>()),
            next_connection: AtomicU64::new(0),
        })
    }

    /// A client of db-service.
    pub fn db(&self) -> DbServiceClient<Caller> {
        DbServiceClient::new(Caller::new(self.services.db.clone())).max_decoding_message_size(MAX_ANSWER)
    }

    /// An entry as the log takes it: numbered later, dated now.
    pub fn entry(
        &self,
        sender: &Identity,
        conversation: String,
        client_msg_id: String,
        content: Content,
    ) -> Entry {
        let id = match content {
            Content::Message(_) => abi::ids::message,
            Content::GroupChange(_) => abi::ids::change,
        };
        let message_id = id(&self.app, &conversation, &sender.user, &client_msg_id);
        #[cfg(feature = "defects")]
        let message_id = crate::defects::message_id(message_id);
        Entry {
            app: self.app.clone(),
            message_id,
            conversation,
            sender: sender.user.clone(),
            sender_device: sender.device.clone(),
            client_msg_id,
            sent_at_ms: now_ms(),
            content: Some(content),
            ..Entry::default()
        }
    }

    /// The record of an entry, which is written within these spans.
    pub fn record(&self, entry: &Entry, logging: &Spans) -> ProducerRecord {
        ProducerRecord {
            topic: self.topic.clone(),
            key: record::key(&self.app, &entry.conversation),
            payload: record::encode(entry),
            headers: logging.headers(),
        }
    }

    /// The log.
    pub fn producer(&self) -> &dyn Producer {
        &*self.services.producer
    }

    /// Writes an entry to the log and returns when it is durable.
    ///
    /// # Errors
    /// `UNAVAILABLE`: it may be in the log or not.
    pub async fn log(&self, entry: &Entry, logging: Spans) -> Result<(), ApiError> {
        let record = self.record(entry, &logging);
        let position = self.services.producer.send(record).await.map_err(|error| not_logged(&error))?;
        trace::logged(logging, position);
        Ok(())
    }

    /// Whether a user may send to a conversation.
    ///
    /// # Errors
    /// `FORBIDDEN`; `NOT_FOUND` if the other user does not exist.
    pub async fn may_send(&self, user: &str, conversation: Conversation<'_>) -> Result<(), ApiError> {
        match conversation {
            Conversation::Direct(a, b) => {
                if conversation.has_direct_member(user) != Some(true) {
                    return Err(not_a_member());
                }
                self.exists(if a == user { b } else { a }).await
            }
            Conversation::Group(_) => {
                let conversation = conversation.to_string();
                let members = self.members(&conversation).await?;
                match members.members.iter().any(|member| member.user == user) {
                    true => Ok(()),
                    false => Err(not_a_member()),
                }
            }
        }
    }

    async fn exists(&self, user: &str) -> Result<(), ApiError> {
        let known = || self.known_users.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(user) {
            return Ok(());
        }
        let request = GetUserRequest { app: self.app.clone(), user: user.into() };
        match self.db().get_user(request).await.map_err(ApiError::from) {
            Ok(_) => {
                let mut known = known();
                if known.len() >= MAX_KNOWN_USERS {
                    known.clear();
                }
                known.insert(user.into());
                Ok(())
            }
            Err(fault) if fault.code == ErrorCode::NotFound => {
                Err(ApiError::not_found(format!("there is no user {user}")))
            }
            Err(fault) => Err(fault),
        }
    }

    async fn members(&self, conversation: &str) -> Result<Arc<Members>, ApiError> {
        let cached = self.services.cache.members(&self.app, conversation).await;
        match cached.map_err(|_| ApiError::unavailable("the cache is away; try again"))? {
            Some(members) => Ok(members),
            None => {
                let members = self.stored_members(conversation).await?;
                if let Err(error) = self.put_members(conversation, &members).await {
                    tracing::warn!(%error, "the members of a group were not cached");
                }
                Ok(Arc::new(members))
            }
        }
    }

    /// The members of a group, as stored.
    ///
    /// # Errors
    /// `FORBIDDEN` if there is no such group: who is not in it is not told.
    pub async fn stored_members(&self, conversation: &str) -> Result<Members, ApiError> {
        let request = GetMembersRequest { app: self.app.clone(), conversation: conversation.into() };
        match self.db().get_members(request).await.map_err(ApiError::from) {
            Ok(members) => Ok(members.into_inner()),
            Err(fault) if fault.code == ErrorCode::NotFound => Err(not_a_member()),
            Err(fault) => Err(fault),
        }
    }

    /// Lets the cache know the members of a group; an older version never replaces a newer.
    ///
    /// # Errors
    /// If the cache is away: until it is told, others may believe in the members of before.
    pub async fn put_members(&self, conversation: &str, members: &Members) -> cache::Result<()> {
        self.services.cache.put_members(&self.app, conversation, members, MEMBERS_TTL).await
    }

    /// Answers a request of a session.
    ///
    /// # Errors
    /// What the device is told.
    pub async fn answer(&self, connection: &Connection, request: Request) -> Result<Frame, ApiError> {
        let (app, user) = (self.app.clone(), connection.identity.user.clone());
        match request {
            Request::Ping => Ok(Frame::Pong(Pong { receiver_seq: self.renew(connection).await.ok() })),
            Request::Heads(mut page) => {
                page.limit = limit(page.limit)?;
                let request = HeadsRequest { app, user, page: Some(page) };
                Ok(Frame::Heads(self.db().heads(request).await?.into_inner()))
            }
            Request::History(mut page) => {
                page.limit = limit(page.limit)?;
                page.conversation = Conversation::parse(&page.conversation)?.to_string();
                let ways = [page.after > 0, page.before > 0, page.newest];
                if ways.into_iter().filter(|way| *way).count() > 1 {
                    return Err(ApiError::invalid("give only one of after, before and newest"));
                }
                let request = HistoryRequest { app, user, page: Some(page) };
                Ok(Frame::History(self.db().history(request).await?.into_inner()))
            }
            Request::Read(mut read) => {
                read.conversation = Conversation::parse(&read.conversation)?.to_string();
                let request = MarkReadRequest { app, user, read: Some(read.clone()) };
                let marked = self.db().mark_read(request).await?.into_inner();
                if marked.moved {
                    self.tell_read(connection, read, marked.read_seq).await;
                }
                Ok(Frame::Read(ReadMarked { read_seq: marked.read_seq }))
            }
        }
    }

    /// Tells the others in a conversation how far somebody has read. They may miss it: nothing depends on it.
    async fn tell_read(&self, connection: &Connection, read: MarkRead, conversation_seq: u64) {
        let users = match Conversation::parse(&read.conversation) {
            Ok(direct @ Conversation::Direct(..)) => direct.direct_members().map(Into::into).collect(),
            _ => match self.members(&read.conversation).await {
                Ok(members) => members.members.iter().map(|member| member.user.clone()).collect(),
                Err(_) => return,
            },
        };
        let user = connection.identity.user.clone();
        let receipt = ReadReceipt { conversation: read.conversation, user, conversation_seq };
        let request = PushRequest {
            app: self.app.clone(),
            receipts: vec![Receipt { receipt: Some(receipt), users }],
            ..PushRequest::default()
        };
        if let Err(error) =
            PushServiceClient::new(Caller::new(self.services.push.clone())).push(request).await
        {
            tracing::debug!(%error, "a read receipt was not pushed");
        }
    }

    /// Whether an address may open another connection.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn may_connect(&self, address: IpAddr) -> Result<(), ApiError> {
        self.limits.connect(address)
    }
}

/// The reason to close the connections of a session that was ended.
pub fn revoked() -> ApiError {
    ApiError::new(ErrorCode::Revoked, "this device was logged out")
}

/// What a device is told when the log did not take its message in time.
pub fn not_logged(error: &kafka_runtime::ProduceError) -> ApiError {
    match error {
        kafka_runtime::ProduceError::TooLarge => {
            ApiError::new(ErrorCode::TooLarge, "the message is larger than the log takes")
        }
        _ => ApiError::unavailable(
            "the message could not be logged in time; send it again with the same client_msg_id",
        ),
    }
}

fn limit(limit: i32) -> Result<i32, ApiError> {
    match limit {
        0 => Ok(abi::DEFAULT_PAGE),
        1..=abi::MAX_PAGE => Ok(limit),
        _ => Err(ApiError::invalid(format!(
            "limit must be 1 to {}; leave it out for {}",
            abi::MAX_PAGE,
            abi::DEFAULT_PAGE
        ))),
    }
}
