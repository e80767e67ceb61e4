//! PostgreSQL as three databases: two for conversations and one for users. A statement or a transaction that names data of two keys
//! fails here.

use crate::{
    error::Result,
    item::Item,
    position::{Batch, LogPartition},
    postgres::PostgresStore,
    sessions::{Rotation, SessionKey},
    store::{Conversations, Directory, EncodedHead, Listed, Page, PageLimit, Users, View},
};
use abi::{
    slot::slot,
    v1::{
        Block, ConversationSettings, EntriesPage, MarkedRead, Members, Profile, ReadMark, Readers,
        SaveResult, Session, SetSettings, SigningKey,
    },
};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};

/// Number of databases for conversations.
pub(super) const SHARDS: usize = 2;

/// Finds the database of each call.
pub(super) struct Sharded {
    pub(super) shards: [PostgresStore; SHARDS],
    pub(super) users: PostgresStore,
}

fn shard(app: &str, conversation: &str) -> usize {
    slot(app, conversation) as usize % SHARDS
}

impl Sharded {
    fn of(&self, view: &View) -> &PostgresStore {
        &self.shards[shard(&view.app, &view.conversation)]
    }
}

/// Splits a batch by shard. Returns the parts, in order, and the shard of each element.
fn split<T>(batch: Vec<T>, shard_of: impl Fn(&T) -> usize) -> ([Vec<T>; SHARDS], Vec<usize>) {
    let (mut parts, mut order) = ([const { Vec::new() }; SHARDS], Vec::with_capacity(batch.len()));
    for element in batch {
        let shard = shard_of(&element);
        order.push(shard);
        parts[shard].push(element);
    }
    (parts, order)
}

/// Puts the results of the parts into the order of the batch.
fn join<T>(parts: Vec<Vec<T>>, order: &[usize]) -> Vec<T> {
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    order.iter().map(|shard| parts[*shard].next().expect("one result per element")).collect()
}

#[async_trait]
impl Conversations for Sharded {
    fn health(&self) -> std::result::Result<(), String> {
        self.shards.iter().try_for_each(Conversations::health)
    }

    async fn save(&self, batch: Batch) -> Result<Vec<SaveResult>> {
        let Batch { partition, range, items, offsets } = batch;
        let entries = items.into_iter().zip(offsets).collect();
        let (parts, order) = split(entries, |(item, _): &(Item, i64)| shard(item.app(), item.conversation()));
        let mut results = Vec::new();
        for (shard, entries) in self.shards.iter().zip(parts) {
            let (items, offsets) = entries.into_iter().unzip();
            let batch = Batch { partition: partition.clone(), range: range.clone(), items, offsets };
            results.push(shard.save(batch).await?);
        }
        Ok(join(results, &order))
    }

    async fn position(&self, partition: LogPartition) -> Result<Option<i64>> {
        let mut positions = Vec::new();
        for shard in &self.shards {
            positions.push(shard.position(partition.clone()).await?);
        }
        Ok(positions.into_iter().min().flatten())
    }

    async fn forget_position(&self, partition: LogPartition) -> Result<()> {
        for shard in &self.shards {
            shard.forget_position(partition.clone()).await?;
        }
        Ok(())
    }

    async fn sync(&self) -> Result<()> {
        for shard in &self.shards {
            shard.sync().await?;
        }
        Ok(())
    }

    async fn check_change(&self, item: Item, accounts: HashSet<String>) -> Result<Option<SaveResult>> {
        self.shards[shard(item.app(), item.conversation())].check_change(item, accounts).await
    }

    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<EntriesPage>> {
        self.of(&view).history(view, page, limit).await
    }

    async fn heads_of(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<Vec<EncodedHead>> {
        let (parts, _) = split(conversations.clone(), |conversation| shard(&app, conversation));
        let mut heads = HashMap::new();
        for (shard, conversations) in self.shards.iter().zip(parts) {
            let found = shard.heads_of(app.clone(), user.clone(), conversations).await?;
            heads.extend(found.into_iter().map(|head| (head.conversation.clone(), head)));
        }
        Ok(conversations.iter().filter_map(|conversation| heads.remove(conversation)).collect())
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        self.shards[shard(&app, &conversation)].members(app, conversation).await
    }

    async fn readers(&self, view: View, seq: i64, after: String, limit: usize) -> Result<Option<Readers>> {
        self.of(&view).readers(view, seq, after, limit).await
    }

    async fn mark_read(&self, app: String, marks: Vec<ReadMark>) -> Result<Vec<MarkedRead>> {
        let (parts, order) = split(marks, |mark| shard(&app, &mark.conversation));
        let mut results = Vec::new();
        for (shard, marks) in self.shards.iter().zip(parts) {
            results.push(if marks.is_empty() {
                Vec::new()
            } else {
                shard.mark_read(app.clone(), marks).await?
            });
        }
        Ok(join(results, &order))
    }
}

#[async_trait]
impl Users for Sharded {
    async fn inbox(
        &self,
        app: String,
        user: String,
        after: Option<Listed>,
        limit: usize,
    ) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for shard in &self.shards {
            listed.extend(shard.inbox(app.clone(), user.clone(), after.clone(), limit).await?);
        }
        listed.sort_by(|a, b| {
            let newest = b.last_sent_at_ms.cmp(&a.last_sent_at_ms);
            newest.then_with(|| a.conversation.cmp(&b.conversation))
        });
        listed.truncate(limit);
        Ok(listed)
    }

    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool> {
        self.users.create_user(app, user, password_hash).await
    }

    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>> {
        self.users.password_hash(app, user).await
    }

    async fn existing(&self, app: String, users: Vec<String>) -> Result<HashSet<String>> {
        self.users.existing(app, users).await
    }

    async fn profiles(&self, app: String, users: Vec<String>) -> Result<Vec<Profile>> {
        self.users.profiles(app, users).await
    }

    async fn replace_profile(&self, app: String, profile: Profile) -> Result<bool> {
        self.users.replace_profile(app, profile).await
    }

    async fn settings(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<HashMap<String, ConversationSettings>> {
        self.users.settings(app, user, conversations).await
    }

    async fn change_settings(
        &self,
        app: String,
        user: String,
        change: SetSettings,
    ) -> Result<ConversationSettings> {
        self.users.change_settings(app, user, change).await
    }

    async fn change_block(&self, app: String, user: String, block: Block) -> Result<()> {
        self.users.change_block(app, user, block).await
    }

    async fn blocks(&self, app: String, user: String, after: String, limit: usize) -> Result<Vec<String>> {
        self.users.blocks(app, user, after, limit).await
    }

    async fn blockers(&self, app: String, blocked: String, by: Vec<String>) -> Result<Vec<String>> {
        self.users.blockers(app, blocked, by).await
    }

    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>> {
        self.users.create_session(session, refresh_hash).await
    }

    async fn rotate_session(&self, key: SessionKey, rotation: Rotation) -> Result<Option<Session>> {
        self.users.rotate_session(key, rotation).await
    }

    async fn session(&self, key: SessionKey) -> Result<Option<Session>> {
        self.users.session(key).await
    }

    async fn revoke_session(&self, key: SessionKey) -> Result<()> {
        self.users.revoke_session(key).await
    }
}

#[async_trait]
impl Directory for Sharded {
    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>> {
        self.users.signing_keys(candidate).await
    }

    async fn generation(&self) -> Result<(u32, u32)> {
        self.users.generation().await
    }
}
