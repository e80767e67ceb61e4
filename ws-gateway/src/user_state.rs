//! A user's own state: read positions, settings of conversations, blocks, the profile.
//!
//! Each change is stored first, then the user's receiver seq is incremented, then the current state is read and pushed to the user's
//! devices. A device that is away finds it with `changes`. If the answer to a request gets lost, the device repeats the request; the
//! second time increments again, in case the first time was interrupted between store and increment.
//!
//! The state is read after the increment because another gateway may change it concurrently. If both pushed what they wrote, the
//! higher receiver seq could carry the older value, and the devices would end with it. The read behind the highest receiver seq finds
//! every change that was counted before.

mod read_marks;

use crate::{
    blocks::Blocks,
    dependencies::{DbClient, Dependencies},
    permissions::cache_away,
    reading::{BLOCKS, PROFILE},
};
use abi::{
    ApiError, Caller, MAX_USER_NAME,
    ids::{self, Conversation},
    names,
    v1::{
        Block, ChangeBlockRequest, ChangeSettingsRequest, GetProfilesRequest, Head, HeadsOfRequest, MarkRead,
        Profile, PushRequest, ReadPosition, Receiver, ReplaceProfileRequest, SetSettings, SettingsChanged,
        Update, push_service_client::PushServiceClient, update::Kind,
    },
};
use bytes::Bytes;
use cache::{Cache, Increment};
use prost::Message as _;
use read_marks::ReadMarks;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Changes the state of users.
pub struct UserState {
    app: String,
    db: DbClient,
    blocks: Arc<Blocks>,
    updates: Arc<Updates>,
    read_marks: ReadMarks,
}

impl fmt::Debug for UserState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserState").field("app", &self.app).finish_non_exhaustive()
    }
}

impl UserState {
    pub(crate) fn new(app: &str, dependencies: &Dependencies, blocks: Arc<Blocks>) -> Self {
        let (db, updates) = (dependencies.db_client(), Arc::new(Updates::new(app, dependencies)));
        let read_marks = ReadMarks::new(app, db.clone(), updates.clone());
        Self { app: app.into(), db, blocks, updates, read_marks }
    }

    /// Moves a read position forward. The authors of the entries in between get a receipt.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a conversation that is invalid; `UNAVAILABLE`; otherwise those of db-service.
    pub async fn mark_read(&self, user: &str, read: MarkRead) -> Result<ReadPosition, ApiError> {
        let conversation = Conversation::parse(&read.conversation)?.to_string();
        self.read_marks.mark(user, conversation, read.conversation_seq).await
    }

    /// Changes settings of a conversation.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a value that is invalid; `UNAVAILABLE`; otherwise those of db-service.
    pub async fn change_settings(&self, user: &str, mut change: SetSettings) -> Result<(), ApiError> {
        change.conversation = Conversation::parse(&change.conversation)?.to_string();
        let conversation = change.conversation.clone();
        let request =
            ChangeSettingsRequest { app: self.app.clone(), user: user.into(), change: Some(change) };
        self.db.clone().change_settings(request).await?;
        self.updates.one(user, &conversation, self.settings(user, &conversation)).await
    }

    async fn settings(&self, user: &str, conversation: &str) -> Result<Kind, ApiError> {
        let conversations = vec![conversation.to_owned()];
        let request = HeadsOfRequest { app: self.app.clone(), user: user.into(), conversations };
        let heads = self.db.clone().heads_of(request).await?.into_inner().heads;
        let head = heads.first().ok_or_else(|| missing("head"))?;
        let head = Head::decode(head.clone()).map_err(|_| missing("head that can be read"))?;
        let settings = Some(head.settings.unwrap_or_default());
        Ok(Kind::Settings(SettingsChanged { conversation: conversation.to_owned(), settings }))
    }

    /// Blocks or unblocks a user.
    ///
    /// # Errors
    /// `INVALID_REQUEST`; `NOT_FOUND`: there is no such user; `UNAVAILABLE`; otherwise those of db-service.
    pub async fn change_block(&self, user: &str, block: Block) -> Result<(), ApiError> {
        ids::check_id("user", &block.user)?;
        let request =
            ChangeBlockRequest { app: self.app.clone(), user: user.into(), block: Some(block.clone()) };
        self.db.clone().change_block(request).await?;
        self.blocks.remember(&block.user, user, block.blocked);
        self.updates.one(user, BLOCKS, self.block(user, block.user)).await
    }

    async fn block(&self, user: &str, other: String) -> Result<Kind, ApiError> {
        let blockers = self.blocks.blockers(&other, &[user.to_owned()]).await?;
        Ok(Kind::Block(Block { user: other, blocked: blockers.contains(user) }))
    }

    /// Replaces the profile of a user. Its name is normalised.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a value that is invalid; `UNAVAILABLE`; otherwise those of db-service.
    pub async fn replace_profile(&self, user: &str, mut profile: Profile) -> Result<(), ApiError> {
        user.clone_into(&mut profile.user);
        if !profile.name.is_empty() {
            profile.name = names::check("name", &profile.name, MAX_USER_NAME)?;
        }
        let request = ReplaceProfileRequest { app: self.app.clone(), profile: Some(profile) };
        self.db.clone().replace_profile(request).await?;
        self.updates.one(user, PROFILE, self.profile(user)).await
    }

    async fn profile(&self, user: &str) -> Result<Kind, ApiError> {
        let request = GetProfilesRequest { app: self.app.clone(), users: vec![user.into()] };
        let found = self.db.clone().get_profiles(request).await?.into_inner().profiles.pop();
        found.map(Kind::Profile).ok_or_else(|| missing("profile"))
    }
}

/// The error about a store that lacks the state that it has just stored.
fn missing(what: &str) -> ApiError {
    ApiError::unavailable(format!("the store returned no {what}"))
}

/// An update for one user.
#[derive(Debug)]
struct UserUpdate {
    user: String,
    /// What changed: a conversation, or another name. See [`Increment::subjects`].
    subject: String,
    kind: Kind,
}

/// The updates of one user in a call.
#[derive(Default)]
struct UpdatesOfUser {
    subjects: Vec<String>,
    encoded: Vec<Bytes>,
}

/// Counts updates and pushes them.
struct Updates {
    app: String,
    cache: Arc<dyn Cache>,
    push: PushServiceClient<Caller>,
}

impl Updates {
    fn new(app: &str, dependencies: &Dependencies) -> Self {
        Self {
            app: app.into(),
            cache: dependencies.cache.clone(),
            push: PushServiceClient::new(Caller::new(dependencies.push.clone())),
        }
    }

    /// Increments the receiver seq of a user, and then reads what changed and pushes it.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the receiver seq may not be incremented.
    async fn one(
        &self,
        user: &str,
        subject: &str,
        current: impl Future<Output = Result<Kind, ApiError>>,
    ) -> Result<(), ApiError> {
        let increment = Increment { user, by: 1, subjects: vec![subject] };
        let seqs = self.cache.increment(&self.app, &[increment]).await.map_err(|_| cache_away())?;
        let updates = match current.await {
            Ok(kind) => vec![encode(kind)],
            // A push without the update is a notification: the devices ask for changes.
            Err(error) => {
                tracing::debug!(%error, "cannot read what has changed");
                Vec::new()
            }
        };
        let receiver_seq = seqs.first().copied();
        let receiver =
            Receiver { user: user.into(), receiver_seq, raised: 1, updates, ..Receiver::default() };
        self.push(vec![receiver]).await;
        Ok(())
    }

    /// Increments the receiver seqs of the users and pushes the updates to their devices, in one call each.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the receiver seqs may not be incremented.
    async fn many(&self, updates: Vec<UserUpdate>) -> Result<(), ApiError> {
        let mut by_user: BTreeMap<String, UpdatesOfUser> = BTreeMap::new();
        for UserUpdate { user, subject, kind } in updates {
            let of_user = by_user.entry(user).or_default();
            of_user.encoded.push(encode(kind));
            of_user.subjects.push(subject);
        }
        let mut increments = Vec::with_capacity(by_user.len());
        for (user, UpdatesOfUser { subjects, encoded }) in &by_user {
            let subjects = subjects.iter().map(String::as_str).collect();
            increments.push(Increment { user, by: count(encoded), subjects });
        }
        let seqs = self.cache.increment(&self.app, &increments).await.map_err(|_| cache_away())?;
        let receiver = |((user, of_user), seq): ((String, UpdatesOfUser), _)| Receiver {
            user,
            receiver_seq: Some(seq),
            raised: count(&of_user.encoded),
            entries: Vec::new(),
            updates: of_user.encoded,
        };
        self.push(by_user.into_iter().zip(seqs).map(receiver).collect()).await;
        Ok(())
    }

    /// The receiver seqs tell devices that miss the push.
    async fn push(&self, receivers: Vec<Receiver>) {
        let push = PushRequest { app: self.app.clone(), receivers, ..PushRequest::default() };
        if let Err(error) = self.push.clone().push(push).await {
            tracing::debug!(%error, "cannot push an update");
        }
    }
}

fn encode(kind: Kind) -> Bytes {
    Update { kind: Some(kind) }.encode_to_vec().into()
}

fn count(updates: &[Bytes]) -> u32 {
    u32::try_from(updates.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
