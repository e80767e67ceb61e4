//! Signals: ephemeral events for connected devices, such as typing and presence.
//!
//! A signal is pushed and never stored. Devices may miss one, so nothing depends on its arrival. Only this module knows the kinds:
//! pushers and receiving gateways pass the encoded signal on.

mod recent;

use crate::{
    blocks::Blocks,
    dependencies::{DbClient, Dependencies},
    draft::{check_content, check_custom_kind},
    permissions::{Permissions, cache_away},
};
use abi::{
    ApiError, Caller, MAX_PAGE,
    error::ErrorCode,
    ids::{self, Conversation},
    v1::{
        CustomSignal, GetBlocks, GetBlocksRequest, GetProfilesRequest, Presence, PresencePrivacy, Presences,
        PushRequest, PushedSignal, Signal, WatchPresence, push_service_client::PushServiceClient,
        signal::Kind,
    },
};
use cache::{Cache, MAX_PRESENCE_TEXT};
use prost::Message as _;
use recent::Recent;
use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

/// Largest body of a signal, in bytes.
const MAX_BODY: usize = 4 << 10;
/// Most users whose presence a connection watches.
const MAX_WATCHED: usize = 200;

/// Checks signals and pushes them.
pub struct Signals {
    app: String,
    cache: Arc<dyn Cache>,
    db: DbClient,
    push: PushServiceClient<Caller>,
    permissions: Arc<Permissions>,
    blocks: Arc<Blocks>,
    /// Most users who receive a signal.
    max_audience: usize,
    /// What was sent just now, so that repetitions are dropped.
    recent: Recent,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("app", &self.app).finish_non_exhaustive()
    }
}

impl Signals {
    pub(crate) fn new(
        app: &str,
        dependencies: &Dependencies,
        permissions: Arc<Permissions>,
        blocks: Arc<Blocks>,
        max_audience: usize,
    ) -> Self {
        Self {
            app: app.into(),
            cache: dependencies.cache.clone(),
            db: dependencies.db_client(),
            push: PushServiceClient::new(Caller::new(dependencies.push.clone())),
            permissions,
            blocks,
            max_audience,
            recent: Recent::default(),
        }
    }

    /// Sends a signal of a user. A repetition of the same signal within a second is dropped.
    ///
    /// # Errors
    /// `INVALID_REQUEST`; `FORBIDDEN`: not a member, or blocked; `TOO_LARGE`: too many receivers, or too large a content.
    pub async fn send(&self, user: &str, signal: Signal) -> Result<(), ApiError> {
        let kind = signal.kind.ok_or_else(|| {
            ApiError::invalid(
                "the signal has no kind that this server knows: typing, presence, delivered or custom",
            )
        })?;
        if let Kind::Presence(presence) = kind {
            if !signal.conversation.is_empty() {
                return Err(ApiError::invalid("conversation must be absent in a signal of presence"));
            }
            return self.set_presence_text(user, &presence.text).await;
        }
        let conversation = Conversation::parse(&signal.conversation)?;
        check(&kind)?;
        let canonical = conversation.to_string();
        let signal = Signal { conversation: canonical, user: user.to_owned(), kind: Some(kind) };
        if self.recent.is_repetition(&signal) {
            return Ok(());
        }
        let mut audience = self.permissions.audience(user, conversation).await?;
        if let Some(Kind::Custom(CustomSignal { to, .. })) = &signal.kind
            && !to.is_empty()
        {
            let named: HashSet<&str> = to.iter().map(String::as_str).collect();
            audience.retain(|member| named.contains(member.as_str()));
        }
        if audience.len() > self.max_audience {
            let (count, max) = (audience.len(), self.max_audience);
            return Err(ApiError::new(
                ErrorCode::TooLarge,
                format!("the signal would have {count} receivers; at most {max} are allowed"),
            ));
        }
        self.recent.remember(&signal);
        self.push(signal, audience).await;
        Ok(())
    }

    async fn set_presence_text(&self, user: &str, text: &str) -> Result<(), ApiError> {
        if text.chars().count() > MAX_PRESENCE_TEXT || text.chars().any(char::is_control) {
            return Err(ApiError::invalid(format!(
                "presence.text must have at most {MAX_PRESENCE_TEXT} characters and no control characters"
            )));
        }
        self.cache.set_presence_text(&self.app, user, text).await.map_err(|_| cache_away())?;
        self.announce_presence(user).await;
        Ok(())
    }

    /// Makes a user watch others for `ttl`. Returns the watched users, and the current presence of those who let the user see it.
    /// The others are watched too: they may let the user see it later, and a user may be created later.
    ///
    /// # Errors
    /// Those of [`Self::presences`].
    pub async fn watch(
        &self,
        user: &str,
        request: WatchPresence,
        ttl: Duration,
    ) -> Result<(Vec<String>, Presences), ApiError> {
        let watched = request.users;
        check_named(&watched)?;
        // First, so that no change is missed in between.
        self.renew_watch(user, &watched, ttl).await?;
        let presences = self.current(user, watched.clone()).await?;
        Ok((watched, presences))
    }

    /// The current presence of users. Those who don't let the user see it are left out.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an id that is invalid; `TOO_LARGE` for too many; `UNAVAILABLE`; those of db-service.
    pub async fn presences(&self, user: &str, users: Vec<String>) -> Result<Presences, ApiError> {
        check_named(&users)?;
        self.current(user, users).await
    }

    async fn current(&self, user: &str, users: Vec<String>) -> Result<Presences, ApiError> {
        let visible = self.visible(user, users).await?;
        let users: Vec<&str> = visible.iter().map(String::as_str).collect();
        let found = self.cache.presence(&self.app, &users).await.map_err(|_| cache_away())?;
        let presences = users.iter().zip(found).map(|(user, found)| presence(user, found)).collect();
        Ok(Presences { presences })
    }

    /// Makes a user go on watching others.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the cache does not answer.
    pub async fn renew_watch(&self, user: &str, users: &[String], ttl: Duration) -> Result<(), ApiError> {
        if users.is_empty() {
            return Ok(());
        }
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        self.cache.watch(&self.app, user, &users, ttl).await.map_err(|_| cache_away())
    }

    /// Those of `users` whose presence a user may see.
    async fn visible(&self, user: &str, users: Vec<String>) -> Result<Vec<String>, ApiError> {
        if users.is_empty() {
            return Ok(users);
        }
        let blockers = self.blocks.blockers(user, &users).await?;
        let mut named = users;
        named.push(user.to_owned());
        let open = self.open(&named).await?;
        if !open.contains(user) {
            return Ok(Vec::new());
        }
        named.pop();
        named.retain(|other| open.contains(other) && !blockers.contains(other));
        Ok(named)
    }

    /// Those of `users` who take part in presence: who show theirs and see that of others.
    async fn open(&self, users: &[String]) -> Result<HashSet<String>, ApiError> {
        let request = GetProfilesRequest { app: self.app.clone(), users: users.to_vec() };
        let profiles = self.db.clone().get_profiles(request).await?.into_inner().profiles;
        let open = profiles.into_iter().filter(|profile| profile.privacy() != PresencePrivacy::Nobody);
        Ok(open.map(|profile| profile.user).collect())
    }

    /// Those of the watchers of a user who may see the user's presence now. Blocks and privacy may have changed since they began
    /// to watch.
    async fn permitted(&self, user: &str, mut watchers: Vec<String>) -> Result<Vec<String>, ApiError> {
        if watchers.is_empty() || !self.open(&[user.to_owned()]).await?.contains(user) {
            return Ok(Vec::new());
        }
        let open = self.open(&watchers).await?;
        watchers.retain(|watcher| open.contains(watcher));
        let mut after = String::new();
        while !watchers.is_empty() {
            let page = Some(GetBlocks { after, limit: MAX_PAGE });
            let request = GetBlocksRequest { app: self.app.clone(), user: user.to_owned(), page };
            let mut blocks = self.db.clone().get_blocks(request).await?.into_inner();
            watchers.retain(|watcher| !blocks.users.contains(watcher));
            match blocks.users.pop() {
                Some(last) if blocks.more => after = last,
                _ => break,
            }
        }
        Ok(watchers)
    }

    /// Tells the watchers of a user that the presence of the user has changed.
    pub async fn announce_presence(&self, user: &str) {
        if let Err(error) = self.try_announce(user).await {
            tracing::debug!(%error, "cannot announce a presence");
        }
    }

    async fn try_announce(&self, user: &str) -> Result<(), ApiError> {
        let watchers = self.cache.watchers(&self.app, user).await.map_err(|_| cache_away())?;
        let watchers = self.permitted(user, watchers).await?;
        if watchers.is_empty() {
            return Ok(());
        }
        let found = self.cache.presence(&self.app, &[user]).await.map_err(|_| cache_away())?;
        for found in found {
            let kind = Some(Kind::Presence(presence(user, found)));
            let signal = Signal { conversation: String::new(), user: user.to_owned(), kind };
            self.push(signal, watchers.clone()).await;
        }
        Ok(())
    }

    async fn push(&self, signal: Signal, users: Vec<String>) {
        if users.is_empty() {
            return;
        }
        let signals = vec![PushedSignal { signal: signal.encode_to_vec().into(), users }];
        let request = PushRequest { app: self.app.clone(), signals, ..PushRequest::default() };
        if let Err(error) = self.push.clone().push(request).await {
            tracing::debug!(%error, "cannot push a signal");
        }
    }
}

fn check_named(users: &[String]) -> Result<(), ApiError> {
    let count = users.len();
    if count > MAX_WATCHED {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("users names {count}; at most {MAX_WATCHED} are allowed"),
        ));
    }
    users.iter().try_for_each(|id| ids::check_id("user", id))
}

fn presence(user: &str, found: cache::Presence) -> Presence {
    Presence {
        user: user.to_owned(),
        online: found.online,
        last_seen_ms: found.last_seen_ms.unwrap_or(0),
        text: found.text,
    }
}

fn check(kind: &Kind) -> Result<(), ApiError> {
    match kind {
        Kind::Typing(_) | Kind::Presence(_) => Ok(()),
        Kind::Delivered(delivered) if delivered.conversation_seq == 0 => {
            Err(ApiError::invalid("delivered.conversation_seq must be that of an entry; it is 0"))
        }
        Kind::Delivered(_) => Ok(()),
        Kind::Custom(custom) => {
            check_custom_kind(&custom.kind)?;
            custom.content.as_ref().map_or(Ok(()), |content| check_content(content, MAX_BODY))
        }
    }
}
