//! The index of changes against a plain list of everything that ever changed.
//!
//! Any interleaving of increments, losses and queries gives exactly the subjects that changed, or no answer. There is an answer
//! unless data were lost or more subjects changed than the index keeps.

use crate::support::TestRedis;
use abi::v1::ReceiverSeq;
use cache::{Cache, Changes, Counters as _, Increment, MAX_SUBJECTS, MemoryCache};
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestCaseResult};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Clone, Debug)]
enum Step {
    /// Increments of some users, each with subjects. The increment may count each subject several times.
    Increment(Vec<(usize, Vec<u8>, u32)>),
    /// Asks for the changes of a user since an earlier position, usually a late one.
    Query(usize, Index, bool),
    /// The cache loses a user.
    Lose(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few or many distinct subjects.
    let subjects = prop_oneof![vec(0..4_u8, 1..3), vec(any::<u8>(), 1..40)];
    let increment = (0..USERS.len(), subjects, 1..4_u32);
    vec(
        prop_oneof![
            6 => vec(increment, 1..4).prop_map(Step::Increment),
            4 => (0..USERS.len(), any::<Index>(), any::<bool>())
                .prop_map(|(user, since, late)| Step::Query(user, since, late)),
            1 => (0..USERS.len()).prop_map(Step::Lose),
        ],
        1..60,
    )
}

/// Everything that happened to a user.
#[derive(Default)]
struct History {
    /// Every position that the cache returned, oldest first.
    positions: Vec<ReceiverSeq>,
    /// Every change of a subject, with the position after it.
    changes: Vec<(ReceiverSeq, String)>,
}

impl History {
    /// The distinct subjects that changed after a position, sorted.
    fn after(&self, since: ReceiverSeq) -> Vec<String> {
        let is_later = |at: &ReceiverSeq| at.epoch == since.epoch && at.seq > since.seq;
        let later = self.changes.iter().filter(|(at, _)| is_later(at));
        let mut subjects: Vec<String> = later.map(|(_, subject)| subject.clone()).collect();
        subjects.sort();
        subjects.dedup();
        subjects
    }

    fn check(&self, since: ReceiverSeq, Changes { now, subjects }: Changes) -> TestCaseResult {
        let changed = self.after(since);
        let Some(mut subjects) = subjects else {
            prop_assert!(since.epoch != now.epoch || changed.len() > MAX_SUBJECTS, "{changed:?} changed");
            return Ok(());
        };
        prop_assert_eq!(since.epoch, now.epoch);
        prop_assert_eq!(Some(&now), self.positions.last());
        // Last change first.
        let last = |subject: &String| {
            self.changes.iter().rev().find(|(_, changed)| changed == subject).map(|(at, _)| at.seq)
        };
        prop_assert!(subjects.is_sorted_by(|a, b| last(a) >= last(b)), "{subjects:?}");
        subjects.sort();
        prop_assert_eq!(subjects, changed);
        Ok(())
    }
}

async fn run(cache: &dyn Cache, lose: impl AsyncFn(&str), steps: Vec<Step>) -> TestCaseResult {
    let mut histories: [History; 3] = Default::default();
    for step in steps {
        match step {
            Step::Increment(increments) => increment(cache, &mut histories, increments).await?,
            Step::Query(user, since, is_late) => {
                let history = &mut histories[user];
                let positions = &history.positions;
                let first = if is_late { positions.len().saturating_sub(4) } else { 0 };
                let since = match &positions[first..] {
                    [] => ReceiverSeq::default(),
                    positions => *since.get(positions),
                };
                let changes = cache.changes("app", USERS[user], since).await.unwrap();
                history.positions.push(changes.now);
                history.check(since, changes)?;
            }
            Step::Lose(user) => lose(USERS[user]).await,
        }
    }
    Ok(())
}

async fn increment(
    cache: &dyn Cache,
    histories: &mut [History],
    increments: Vec<(usize, Vec<u8>, u32)>,
) -> TestCaseResult {
    let name = |subject: &u8| format!("g:{subject}");
    let named: Vec<(usize, u32, Vec<String>)> = increments
        .iter()
        .map(|(user, subjects, times)| {
            let names: Vec<String> = subjects.iter().map(name).collect();
            (*user, times * u32::try_from(names.len()).unwrap(), names)
        })
        .collect();
    let increments: Vec<_> = named
        .iter()
        .map(|(user, by, subjects)| Increment {
            user: USERS[*user],
            by: *by,
            subjects: subjects.iter().map(String::as_str).collect(),
        })
        .collect();
    let seqs = cache.increment("app", &increments).await.unwrap();
    for ((user, by, subjects), now) in named.iter().zip(seqs) {
        let history = &mut histories[*user];
        if let Some(last) = history.positions.last().filter(|last| last.epoch == now.epoch) {
            prop_assert_eq!(last.seq + u64::from(*by), now.seq);
        }
        history.positions.push(now);
        history.changes.extend(subjects.iter().map(|subject| (now, subject.clone())));
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn p5_changes_in_memory_are_exact_or_unknown(steps in steps()) {
        // A small cache, so that other users evict.
        let cache = MemoryCache::with_limits(4 * MAX_SUBJECTS, 1);
        let lose = async |_: &str| {
            let users: Vec<String> = (0..8 * MAX_SUBJECTS).map(|number| format!("user{number}")).collect();
            let increment = |user| Increment { user, by: 1, subjects: vec!["g:1"] };
            let increments: Vec<_> = users.iter().map(|user| increment(user)).collect();
            cache.increment("app", &increments).await.unwrap();
        };
        runtime().block_on(run(&cache, lose, steps))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn p5_changes_in_redis_are_exact_or_unknown(steps in steps()) {
        runtime().block_on(async {
            let server = TestRedis::new();
            let lose = async |user: &str| server.clear_matching(&format!("app:s:{user}:*")).await;
            let result = run(&server.cache, lose, steps).await;
            server.clear().await;
            result
        })?;
    }
}
