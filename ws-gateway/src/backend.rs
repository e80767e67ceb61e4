//! The parts behind HTTP and sockets, built from one configuration.

use crate::{
    authentication::Authentication, blocks::Blocks, connections::Connections, dependencies::Dependencies,
    entry_changes::EntryChanges, entry_log::EntryLog, fences::Fences, group_acks::GroupAcks, limits::Limits,
    outcomes::Outcomes, permissions::Permissions, protocol::Settings, rate_limits::RateLimits,
    reading::Reading, recent_acks::RecentAcks, request_tasks::RequestTasks, signals::Signals, token::Tokens,
    user_state::UserState,
};
use abi::{ApiError, config::Config, v1::Signal};
use std::sync::Arc;

/// All parts of a gateway behind its sockets.
#[derive(Debug)]
pub struct Backend {
    app: String,
    limits: Limits,
    settings: Arc<Settings>,
    rate_limits: RateLimits,
    authentication: Arc<Authentication>,
    permissions: Arc<Permissions>,
    blocks: Arc<Blocks>,
    reading: Reading,
    user_state: UserState,
    signals: Arc<Signals>,
    entry_log: Arc<EntryLog>,
    recent_acks: Arc<RecentAcks>,
    entry_changes: EntryChanges,
    group_acks: Arc<GroupAcks>,
    outcomes: Outcomes,
    connections: Arc<Connections>,
}

impl Backend {
    /// Builds all parts. `address` is the `host:port` under which pushers and other gateways reach this one.
    ///
    /// # Errors
    /// The costs of Argon2id are out of its bounds.
    pub fn new(
        config: &Config,
        tokens: Tokens,
        address: String,
        dependencies: Dependencies,
    ) -> Result<Self, argon2::Error> {
        let (app, limits, db) = (&config.app, Limits::new(config), dependencies.db_client());
        let settings = Arc::new(Settings::new(config));
        let authentication = Arc::new(Authentication::new(app, &config.auth, tokens, db.clone())?);
        let blocks = Arc::new(Blocks::new(app, db.clone()));
        let permissions = Arc::new(Permissions::new(app, &dependencies, blocks.clone()));
        let entry_log = Arc::new(EntryLog::new(app, &config.kafka.topic, dependencies.producer.clone()));
        let produce_timeout = config.kafka.produce_timeout;
        let fences = Arc::new(Fences::new(app, &dependencies, permissions.clone(), produce_timeout));
        let outcomes = Outcomes::default();
        let entry_changes = EntryChanges::new(
            app,
            &address,
            db.clone(),
            entry_log.clone(),
            permissions.clone(),
            fences.clone(),
            outcomes.clone(),
        );
        let audience = config.limits.signal_audience as usize;
        let signals =
            Arc::new(Signals::new(app, &dependencies, permissions.clone(), blocks.clone(), audience));
        let connections = Arc::new(Connections::new(
            app,
            address,
            limits,
            settings.clone(),
            authentication.clone(),
            signals.clone(),
            &dependencies,
        ));
        let tasks = connections.request_tasks().clone();
        Ok(Self {
            app: app.clone(),
            limits,
            settings,
            rate_limits: RateLimits::new(&config.limits),
            reading: Reading::new(app, &dependencies),
            user_state: UserState::new(app, &dependencies, blocks.clone()),
            group_acks: Arc::new(GroupAcks::new(app, db, fences, tasks)),
            authentication,
            permissions,
            blocks,
            signals,
            entry_log,
            recent_acks: Arc::default(),
            entry_changes,
            outcomes,
            connections,
        })
    }

    /// The application that this gateway serves.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Limits on sizes and counts.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Timeouts and limits of a connection.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Rate limits across connections.
    pub fn rate_limits(&self) -> &RateLimits {
        &self.rate_limits
    }

    /// Accounts, sessions and identities.
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// Who may send to which conversation.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// The log.
    pub fn entry_log(&self) -> &EntryLog {
        &self.entry_log
    }

    /// The messages that were acknowledged recently.
    pub fn recent_acks(&self) -> &Arc<RecentAcks> {
        &self.recent_acks
    }

    /// Entries that the store decides.
    pub fn entry_changes(&self) -> &EntryChanges {
        &self.entry_changes
    }

    /// Who has blocked whom.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Acknowledgements of messages to groups.
    pub fn group_acks(&self) -> &Arc<GroupAcks> {
        &self.group_acks
    }

    /// Outcomes that requests wait for.
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Reads of users.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The own state of users.
    pub fn user_state(&self) -> &UserState {
        &self.user_state
    }

    /// Signals and presence.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The life of connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Work of requests that outlives its connection.
    pub fn request_tasks(&self) -> &RequestTasks {
        self.connections.request_tasks()
    }

    /// Sends a signal of a user.
    ///
    /// # Errors
    /// `RATE_LIMITED`; those of [`Signals::send`].
    pub async fn send_signal(&self, user: &str, signal: Signal) -> Result<(), ApiError> {
        self.rate_limits.signal(user)?;
        self.signals.send(user, signal).await
    }
}
