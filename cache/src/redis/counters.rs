//! Receiver seqs and the index of changes.
//!
//! A counter and its index are one hash, changed by one script per batch of users: both change together, are lost together, and
//! need one round trip, also when a counter is new. A counter is one integer, epoch times 2^22 plus `seq`, because numbers in a
//! script have 53 bits. After 4,194,304 changes the `seq` overflows into the epoch: the user's devices then make a full list.

use super::{RedisCache, USER_TTL, connections::Request, millis, run::Run};
use crate::{Changes, Counters, Increment, MAX_SUBJECTS, Result, new_epoch};
use abi::v1::ReceiverSeq;
use deadpool_redis::redis::{Pipeline, Script};
use std::{collections::HashMap, sync::LazyLock};

static INCREMENT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("increment.lua")));

/// Most users and subjects of one script, because Redis does nothing else while a script runs: about 3 ms.
const MAX_CHANGES: usize = 2_048;
/// The value of one epoch in a counter.
const EPOCH: u64 = 1 << 22;
/// Fields of the hash that are not subjects.
const COUNTER: &str = ".counter";
const COMPLETE_AFTER: &str = ".complete_after";

pub(super) fn receiver_seq(counter: u64) -> ReceiverSeq {
    ReceiverSeq { epoch: u32::try_from(counter / EPOCH).unwrap_or(u32::MAX), seq: counter % EPOCH }
}

/// A new epoch, as a part of a counter.
pub(super) fn new_epoch_value() -> u64 {
    u64::from(new_epoch()) * EPOCH
}

/// Splits increments into batches of at most [`MAX_CHANGES`], or of a single larger increment.
fn batches<'a, 'b>(increments: &'a [Increment<'b>]) -> impl Iterator<Item = &'a [Increment<'b>]> {
    let mut rest = increments;
    std::iter::from_fn(move || {
        let mut changes = 0;
        let fits = |increment: &&Increment<'_>| {
            changes += 1 + increment.subjects.len();
            changes <= MAX_CHANGES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (batch, later) = rest.split_at_checked(count)?;
        rest = later;
        Some(batch)
    })
}

/// The subjects in an index that changed after `since`, last change first. `None` if the index does not reach back to it.
fn subjects_after(
    mut index: HashMap<String, u64>,
    now: ReceiverSeq,
    since: ReceiverSeq,
) -> Option<Vec<String>> {
    let since_counter = u64::from(since.epoch) * EPOCH + since.seq.min(EPOCH);
    let complete_after = index.remove(COMPLETE_AFTER).unwrap_or_default();
    if since.epoch != now.epoch || since.seq > now.seq || since_counter < complete_after {
        return None;
    }
    let mut changed: Vec<_> = index.into_iter().filter(|(_, last)| *last > since_counter).collect();
    changed.sort_unstable_by_key(|(_, last)| std::cmp::Reverse(*last));
    Some(changed.into_iter().map(|(subject, _)| subject).collect())
}

#[async_trait::async_trait]
impl Counters for RedisCache {
    async fn increment(&self, app: &str, increments: &[Increment<'_>]) -> Result<Vec<ReceiverSeq>> {
        let mut incremented = Vec::with_capacity(increments.len());
        for increments in batches(increments) {
            let mut script = INCREMENT.prepare_invoke();
            script.arg(new_epoch_value()).arg(millis(USER_TTL)).arg(MAX_SUBJECTS);
            for Increment { user, by, subjects } in increments {
                script.key(self.key(app, "s", user));
                script.arg(by).arg(subjects.len());
                for subject in subjects {
                    script.arg(subject);
                }
            }
            let counters: Vec<u64> = self.call("increment", Request::Script(script)).await?;
            incremented.extend(counters.into_iter().map(receiver_seq));
        }
        Ok(incremented)
    }

    async fn changes(&self, app: &str, user: &str, since: ReceiverSeq) -> Result<Changes> {
        let commands = |run: &Run| {
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("HGETALL").arg([&self.key(app, "s", user), ":", &run.id].concat());
            commands
        };
        let [mut index]: [HashMap<String, u64>; 1] =
            self.call("changes", Request::Commands(&commands)).await?;
        match index.remove(COUNTER) {
            Some(counter) => {
                let now = receiver_seq(counter);
                Ok(Changes { now, subjects: subjects_after(index, now, since) })
            }
            None => {
                let begin = Increment { user, by: 0, subjects: Vec::new() };
                let now = self.increment(app, &[begin]).await?.first().copied().unwrap_or_default();
                Ok(Changes { now, subjects: None })
            }
        }
    }
}
