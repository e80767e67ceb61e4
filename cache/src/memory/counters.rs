//! Receiver seqs and the index of changes.

use super::{MemoryCache, user::User};
use crate::{Changes, Counters, Increment, Result};
use abi::v1::ReceiverSeq;
use std::{collections::HashMap, sync::Arc};

#[async_trait::async_trait]
impl Counters for MemoryCache {
    async fn increment(&self, app: &str, increments: &[Increment<'_>]) -> Result<Vec<ReceiverSeq>> {
        // The members of a group share the name of the subject.
        let mut names: HashMap<&str, Arc<str>> = HashMap::new();
        Ok(self.with_app(app, |app| {
            let mut incremented = Vec::with_capacity(increments.len());
            for Increment { user, by, subjects } in increments {
                incremented.push(app.users.update(user, User::new, |user| {
                    let seq = user.increment(*by);
                    for &subject in subjects {
                        let name = || Arc::clone(names.entry(subject).or_insert_with(|| subject.into()));
                        user.changes.record(subject, seq, name);
                    }
                    if subjects.is_empty() && *by > 0 {
                        user.changes.forget(seq);
                    }
                    user.receiver_seq()
                }));
            }
            incremented
        }))
    }

    async fn changes(&self, app: &str, user: &str, since: ReceiverSeq) -> Result<Changes> {
        let changes = |user: &mut User| {
            let now = user.receiver_seq();
            let is_comparable = since.epoch == now.epoch && since.seq <= now.seq;
            Changes { now, subjects: is_comparable.then(|| user.changes.after(since.seq)).flatten() }
        };
        Ok(self.with_app(app, |app| app.users.update(user, User::new, changes)))
    }
}
