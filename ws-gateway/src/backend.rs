//! The parts behind HTTP and sockets, built from one configuration.

use crate::{
    authentication::Authentication,
    connections::Connections,
    dependencies::Dependencies,
    entry_log::EntryLog,
    group_changes::GroupChanges,
    hub::Connection,
    limits::Limits,
    permissions::Permissions,
    protocol::{Request, Settings},
    rate_limits::RateLimits,
    reading::Reading,
    request_tasks::RequestTasks,
    signals::Signals,
    token::Tokens,
};
use abi::{
    ApiError,
    config::Config,
    v1::{GetHistory, HistoryPage, Pong, server_frame::Frame},
};
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
    reading: Reading,
    signals: Signals,
    entry_log: Arc<EntryLog>,
    group_changes: GroupChanges,
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
        let permissions = Arc::new(Permissions::new(app, &dependencies));
        let entry_log = Arc::new(EntryLog::new(app, &config.kafka.topic, dependencies.producer.clone()));
        Ok(Self {
            app: app.clone(),
            limits,
            settings: settings.clone(),
            rate_limits: RateLimits::new(&config.limits),
            reading: Reading::new(app, db.clone()),
            signals: Signals::new(app, &dependencies, permissions.clone()),
            group_changes: GroupChanges::new(db, entry_log.clone(), permissions.clone()),
            connections: Arc::new(Connections::new(
                app,
                address,
                limits,
                settings,
                authentication.clone(),
                &dependencies,
            )),
            authentication,
            permissions,
            entry_log,
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

    /// Changes of groups.
    pub fn group_changes(&self) -> &GroupChanges {
        &self.group_changes
    }

    /// The life of connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Work of requests that outlives its connection.
    pub fn request_tasks(&self) -> &RequestTasks {
        self.connections.request_tasks()
    }

    /// A page of history of about `max_bytes`, at least one entry.
    ///
    /// # Errors
    /// The error for the device.
    pub async fn history(
        &self,
        connection: &Connection,
        page: GetHistory,
        max_bytes: usize,
    ) -> Result<HistoryPage, ApiError> {
        self.reading.history(&connection.identity.user, page, max_bytes).await
    }

    /// Answers a request of a connection. [`answers`](crate::answers) splits the answer into frames.
    ///
    /// # Errors
    /// The error for the device.
    pub async fn answer(&self, connection: &Connection, request: Request) -> Result<Frame, ApiError> {
        let user = &connection.identity.user;
        Ok(match request {
            Request::Ping => {
                Frame::Pong(Pong { receiver_seq: self.connections.renew(connection).await.ok() })
            }
            Request::Heads(page) => Frame::Heads(self.reading.heads(user, page).await?),
            Request::History(page) => Frame::History(self.reading.history(user, page, 0).await?),
            Request::Read(read) => Frame::Read(self.signals.mark_read(user, read).await?),
        })
    }
}
