//! Random histories of conversations, compared with a plain model: outcomes, numbers, states, unread counts, the view of each user, and
//! the readers of entries.

mod generator;
mod plain;

use super::world::{Client, World, marks, save_request_at};
use crate::{
    position::{LogPartition, unused_partition},
    rules::tests::LIMITS,
};
use abi::{
    envelope::{GROUP, is_change_of_entry},
    error::ErrorCode,
    v1::{Entry, EntryState, Head, Role, SaveOutcome, SaveResult},
};
use generator::{Generator, Step};
use plain::{Plain, is_shown};

/// Histories in a run over SQLite.
const ON_SQLITE: u64 = 10_000;
/// Histories in a run over PostgreSQL, which take about a minute. `GODWIT_TEST_HISTORIES` sets another number for all stores.
const ON_POSTGRES: u64 = 500;
/// Histories in a run over several databases, which run the same statements.
const ON_SHARDS: u64 = 100;

pub(super) async fn histories_are_those_of_the_plain_model(world: &World) {
    let default = match world.schemas() {
        0 => ON_SQLITE,
        1 => ON_POSTGRES,
        _ => ON_SHARDS,
    };
    let histories = std::env::var("GODWIT_TEST_HISTORIES").map_or(default, |number| number.parse().unwrap());
    // Another seed for each run: the seed of a failure is in its message.
    let random = |_| u64::from(rand::random::<u32>());
    let first = std::env::var("GODWIT_TEST_SEED").map_or_else(random, |seed| seed.parse().unwrap());
    let runner = async |runner: u64| {
        for seed in (first + runner..first + histories).step_by(4) {
            run(world, seed).await;
        }
    };
    // Each history has a conversation of its own.
    tokio::join!(runner(0), runner(1), runner(2), runner(3));
}

/// Runs and compares one history.
async fn run(world: &World, seed: u64) {
    let mut generator = Generator::new(seed);
    let history = History { seed, world, client: world.client(), partition: unused_partition() };
    let mut records = Vec::new();
    let mut model = Plain::new(&generator.conversation);
    while let Some(step) = generator.next(&model) {
        match step {
            Step::Save { redelivered, entries } => {
                let decided = records.len();
                records.extend(entries);
                let first = decided.saturating_sub(redelivered);
                history.save(&mut model, first, &records[first..], decided - first).await;
            }
            Step::MarkRead(user, seq) => history.mark_read(&mut model, &user, seq).await,
        }
    }
    history.compare(&model, &generator.users).await;
}

struct History<'a> {
    seed: u64,
    world: &'a World,
    client: Client,
    /// The partition of the log in which the history lies.
    partition: LogPartition,
}

impl History<'_> {
    /// The history so far, for the message of a failure.
    fn context(&self, model: &Plain) -> String {
        format!("seed {}:{}", self.seed, model.brief())
    }

    /// Saves a batch that begins at the offset `first`, and compares the results. The first entries of it are `decided` by earlier
    /// saves: those that were rejected then are rejected now.
    async fn save(&self, model: &mut Plain, first: usize, batch: &[Entry], decided: usize) {
        let request = save_request_at(&self.partition, first as i64, batch);
        let results = self.client.clone().save(request).await.unwrap().into_inner().results;
        assert_eq!(results.len(), batch.len());
        let mut members = Vec::new();
        let mut stored = Vec::new();
        for (index, entry) in batch.iter().enumerate() {
            let outcome = match model.find(&entry.message_id) {
                Some(_) => SaveOutcome::Duplicate,
                None => match model.decide(entry, LIMITS.max_group_members) {
                    Ok(()) if index < decided => {
                        stored.push(Err(ErrorCode::Forbidden));
                        members.push(Vec::new());
                        continue;
                    }
                    Ok(()) => {
                        model.log.push(entry.clone());
                        SaveOutcome::Stored
                    }
                    Err(code) => {
                        stored.push(Err(code));
                        members.push(Vec::new());
                        continue;
                    }
                },
            };
            let seq = model.find(&entry.message_id).unwrap();
            let target = model.read_entry(seq, "").refers_to_seq as usize;
            let is_change = is_change_of_entry(&entry.kind);
            let state = if is_change { model.state(target, "") } else { None };
            stored.push(Ok((outcome, seq, model.countable(seq), target, state)));
            members.push(if entry.kind == GROUP { model.members() } else { Vec::new() });
        }
        for (index, result) in results.iter().enumerate() {
            let entry = &batch[index];
            assert_eq!(outcome(result), stored[index], "{} in {}", plain::brief(entry), self.context(model));
            let members: Vec<_> = members[index].clone();
            assert_eq!(members_of(result), members, "{}", self.context(model));
            let is_redelivered = index < decided && result.outcome() == SaveOutcome::Duplicate;
            assert_eq!(result.is_redelivered, is_redelivered, "{}", self.context(model));
        }
    }

    /// Moves a read position, and compares the result.
    async fn mark_read(&self, model: &mut Plain, user: &str, seq: usize) {
        let request = marks(&[(user, &model.id, seq as u64)]);
        let response = self.client.clone().mark_read(request).await.unwrap().into_inner();
        let marked = &response.marked[0];
        if model.visible(user).is_empty() {
            assert_eq!(
                marked.error.as_ref().map(abi::v1::Error::code),
                Some(ErrorCode::Forbidden),
                "{}",
                self.context(model)
            );
            return;
        }
        assert_eq!(marked.previous_seq, model.read_position(user) as u64, "{}", self.context(model));
        let authors = model.mark_read(user, seq, LIMITS.max_receipt_members);
        let position = marked.position.as_ref().unwrap();
        assert_eq!(position.read_seq, model.read_position(user) as u64, "{}", self.context(model));
        assert_eq!(position.unread, model.unread(user).len() as u64, "{}", self.context(model));
        let mut told = marked.authors.clone();
        told.sort();
        assert_eq!(told, authors, "{}", self.context(model));
    }

    /// Compares the reads of each user.
    async fn compare(&self, model: &Plain, users: &[String]) {
        for user in users {
            let visible = model.visible(user);
            if visible.is_empty() {
                assert!(self.world.heads_of(user, &[&model.id]).await.is_empty(), "{}", self.context(model));
                continue;
            }
            let expected: Vec<_> = visible.iter().map(|seq| model.read_entry(*seq, user)).collect();
            assert_eq!(self.world.entries(user, &model.id).await, expected, "{}", self.context(model));
            let head = self.world.head(user, &model.id).await;
            assert_eq!(head, expected_head(model, user), "{}", self.context(model));
            self.compare_readers(model, user, &visible).await;
        }
    }

    /// Compares the readers of the last entry that a user sees.
    async fn compare_readers(&self, model: &Plain, user: &str, visible: &[usize]) {
        let Some(seq) = visible.last().copied() else { return };
        let readers = self.world.readers(user, &model.id, seq as u64).await;
        if !model.members().iter().any(|(member, _)| member == user) {
            assert_eq!(readers.unwrap_err().code, ErrorCode::Forbidden, "{}", self.context(model));
            return;
        }
        let readers = readers.unwrap();
        let readers: Vec<_> =
            readers.readers.into_iter().map(|reader| (reader.user, reader.has_read)).collect();
        let sender = &model.log[seq - 1].sender;
        let mut expected: Vec<_> = model
            .members()
            .into_iter()
            .filter(|(member, _)| member != sender && model.visible(member).contains(&seq))
            .map(|(member, _)| (model.read_position(&member) >= seq, member))
            .map(|(has_read, member)| (member, has_read))
            .collect();
        expected.sort();
        assert_eq!(readers, expected, "readers of {seq} for {user}, {}", self.context(model));
    }
}

/// The compared parts of a result: the outcome, the numbers of the entry and of its target, and the state of the target.
type Compared = Result<(SaveOutcome, usize, usize, usize, Option<EntryState>), ErrorCode>;

fn outcome(result: &SaveResult) -> Compared {
    match &result.error {
        Some(error) => Err(error.code()),
        None => Ok((
            result.outcome(),
            result.conversation_seq as usize,
            result.countable_seq as usize,
            result.refers_to_seq as usize,
            result.target_state.clone(),
        )),
    }
}

fn members_of(result: &SaveResult) -> Vec<(String, Role)> {
    let members = result.members.clone().unwrap_or_default().members;
    members.into_iter().map(|member| (member.user.clone(), member.role())).collect()
}

fn expected_head(model: &Plain, user: &str) -> Head {
    let visible = model.visible(user);
    let (first, last) = (visible[0], visible[visible.len() - 1]);
    let shown = visible.iter().rev().find(|seq| is_shown(&model.log[**seq - 1])).copied().unwrap();
    let members = model.members();
    let others: Vec<_> = members
        .iter()
        .filter(|(member, _)| member != user)
        .map(|(member, _)| model.read_position(member) as u64)
        .collect();
    let has_receipts = members.len() <= LIMITS.max_receipt_members && model.role(user).is_some();
    let read_by = |by: Option<&u64>| by.copied().filter(|_| has_receipts).unwrap_or(0);
    Head {
        conversation: model.id.clone(),
        conversation_seq: last as u64,
        countable_seq: model.countable(last) as u64,
        read_seq: model.read_position(user) as u64,
        unread: model.unread(user).len() as u64,
        visible_from: first as u64,
        visible_until: model.left_at(user).unwrap_or(0) as u64,
        name: model.name().to_owned(),
        role: model.role(user).unwrap_or(Role::Unspecified).into(),
        last_sent_at_ms: model.log[shown - 1].sent_at_ms,
        kept_seq: 0,
        last: Some(model.read_entry(shown, user)),
        settings: None,
        read_by_any_seq: read_by(others.iter().max()),
        read_by_all_seq: read_by(others.iter().min()),
    }
}
