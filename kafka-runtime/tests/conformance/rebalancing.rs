//! Two members share six partitions under load, with each assignment strategy. Guards P1, P3 and P9.
//!
//! With `GODWIT_TEST_REBALANCES=10` the second member joins and leaves ten times. The printed figures compare
//! the strategies.

use crate::backend::{Backend, Kafka};
use crate::support::{Running, config, enqueue, eventually, expected, payload, without_repeats};
use kafka_runtime::{Consumer, Error, Message, Observer, ProducerRecord, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PARTITIONS: u32 = 6;
const KEYS: usize = 24;
/// The interval at which each key gets a record.
const EVERY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
enum Event {
    Assigned(i32),
    /// Revoked or lost.
    Revoked(i32),
    Handled(i32, String),
    Committed(i32),
    NotCommitted,
}

/// The member, the time and the event.
type Entry = (&'static str, Instant, Event);

/// The events of both members, in order.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<Entry>>>);

impl Journal {
    fn add(&self, member: &'static str, events: impl IntoIterator<Item = Event>) {
        let mut journal = self.0.lock().unwrap();
        journal.extend(events.into_iter().map(|event| (member, Instant::now(), event)));
    }

    fn events(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }

    fn owned(&self, member: &str) -> usize {
        let mut owned = BTreeSet::new();
        for (_, _, event) in self.events().iter().filter(|(name, _, _)| *name == member) {
            let _ = match event {
                Event::Assigned(partition) => owned.insert(*partition),
                Event::Revoked(partition) => owned.remove(partition),
                _ => false,
            };
        }
        owned.len()
    }

    fn payloads(&self) -> Vec<String> {
        let handled = |event| if let Event::Handled(_, payload) = event { Some(payload) } else { None };
        self.events().into_iter().filter_map(|(_, _, event)| handled(event)).collect()
    }
}

struct Member(&'static str, Journal);

impl Observer for Member {
    fn assigned(&self, _: &str, partitions: &[TopicPartition]) {
        self.1.add(self.0, partitions.iter().map(|at| Event::Assigned(at.partition)));
    }

    fn revoked(&self, _: &str, partitions: &[TopicPartition]) {
        self.1.add(self.0, partitions.iter().map(|at| Event::Revoked(at.partition)));
    }

    fn lost(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.revoked(consumer, partitions);
    }

    fn committed(&self, _: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        match result {
            Ok(()) => self.1.add(self.0, offsets.iter().map(|(at, _)| Event::Committed(at.partition))),
            Err(_) => self.1.add(self.0, [Event::NotCommitted]),
        }
    }
}

fn start(backend: &Kafka, name: &'static str, journal: &Journal) -> Running {
    let adds = journal.clone();
    let handler = tower::service_fn(move |Message { record, .. }: Message| {
        let adds = adds.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            adds.add(name, [Event::Handled(record.partition, payload(&record))]);
            Ok(())
        }
    });
    let observer = Arc::new(Member(name, journal.clone()));
    Running::spawn(Consumer::records(backend.source(), handler).config(config()).observe(observer))
}

/// Sends to all keys until `stop` is set. Returns the number of records per key.
fn producing(backend: &Kafka, stop: &Arc<AtomicBool>) -> JoinSet<usize> {
    let (producer, topic, stop) = (backend.producer(), backend.topic(), Arc::clone(stop));
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut n = 0;
        while !stop.load(Ordering::SeqCst) {
            let send = |key| {
                let record =
                    ProducerRecord::new(Arc::clone(&topic), format!("k{key}"), format!("k{key}:{n}"));
                enqueue(producer.as_ref(), record)
            };
            for answer in (0..KEYS).map(send).collect::<Vec<_>>() {
                answer.await.unwrap().unwrap();
            }
            n += 1;
            tokio::time::sleep(EVERY).await;
        }
        n
    });
    task
}

async fn two_members_share(assignment: &str) {
    let rounds = std::env::var("GODWIT_TEST_REBALANCES").map_or(1, |text| text.parse().expect("a number"));
    let mut backend = Kafka::with_partitions(PARTITIONS).await;
    backend.source_config.assignment = assignment.into();
    let (journal, stop) = (Journal::default(), Arc::new(AtomicBool::new(false)));
    let mut producing = producing(&backend, &stop);
    let one = start(&backend, "one", &journal);
    eventually("the first member has all partitions", async || journal.owned("one") == 6).await;
    for _ in 0..rounds {
        let two = start(&backend, "two", &journal);
        let shares = || (journal.owned("one"), journal.owned("two"));
        eventually("3 and 3", async || shares() == (3, 3)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(shares(), (3, 3), "the assignment must be stable");
        two.stop().await;
        eventually("the first member has all partitions again", async || journal.owned("one") == 6).await;
    }
    stop.store(true, Ordering::SeqCst);
    let sent = producing.join_next().await.unwrap().unwrap();
    eventually("all records are handled", async || without_repeats(journal.payloads()).len() == KEYS * sent)
        .await;
    one.stop().await;

    check(&journal.events());
    let payloads = journal.payloads();
    for key in 0..KEYS {
        let prefix = format!("k{key}:");
        let of_key = payloads.iter().filter(|payload| payload.starts_with(&prefix)).cloned().collect();
        assert_eq!(without_repeats(of_key), expected(&format!("k{key}"), sent), "key {key}");
    }
    print(assignment, rounds, &journal.events(), payloads.len() - KEYS * sent);
}

/// Checks that only the owner of a partition handles and commits its records, and each owner in order.
fn check(events: &[Entry]) {
    let mut owners = BTreeMap::<i32, &str>::new();
    let mut last = BTreeMap::<(i32, String), usize>::new();
    for (member, _, event) in events {
        match event {
            Event::Assigned(partition) => {
                let before = owners.insert(*partition, member);
                assert_eq!(before, None, "{partition} must have been released");
                last.retain(|(of, _), _| of != partition);
            }
            Event::Revoked(partition) => assert_eq!(owners.remove(partition), Some(*member)),
            Event::Committed(partition) => {
                assert_eq!(owners.get(partition), Some(member), "{partition} must be committed by its owner");
            }
            Event::Handled(partition, payload) => {
                assert_eq!(
                    owners.get(partition),
                    Some(member),
                    "{payload} must be handled by the owner of {partition}"
                );
                let (key, n) = payload.split_once(':').unwrap();
                let n: usize = n.parse().unwrap();
                let before = last.insert((*partition, key.to_owned()), n);
                assert!(before.is_none_or(|before| before + 1 == n), "{payload} after {before:?}");
            }
            Event::NotCommitted => {}
        }
    }
}

#[expect(clippy::print_stdout, reason = "prints the figures")]
fn print(assignment: &str, rounds: usize, events: &[Entry], repeats: usize) {
    let mut last = BTreeMap::<i32, Instant>::new();
    let mut longest = BTreeMap::<i32, Duration>::new();
    let (mut moves, mut failed) = (0, 0);
    for (_, at, event) in events {
        match event {
            Event::Assigned(_) => moves += 1,
            Event::NotCommitted => failed += 1,
            Event::Handled(partition, _) => {
                let gap = last.insert(*partition, *at).map_or(Duration::ZERO, |last| at.duration_since(last));
                let longest = longest.entry(*partition).or_default();
                *longest = gap.max(*longest);
            }
            _ => {}
        }
    }
    let mut longest: Vec<u128> = longest.values().map(Duration::as_millis).collect();
    longest.sort_unstable();
    println!(
        "{assignment}: {rounds} times 6, 3 and 3, 6; partitions assigned {moves} times, {repeats} records handled twice, \
         {failed} commits failed; longest pause of each partition in ms: {longest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_partitions_3_and_3_with_range() {
    two_members_share("range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_partitions_3_and_3_with_roundrobin() {
    two_members_share("roundrobin").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_partitions_3_and_3_with_cooperative_sticky() {
    two_members_share("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_while_another_joins_does_not_block_the_group() {
    let backend = Kafka::with_partitions(PARTITIONS).await;
    let (journal, slow) = (Journal::default(), Arc::new(AtomicBool::new(false)));
    let is_slow = Arc::clone(&slow);
    let handler = tower::service_fn(move |_: Message| {
        is_slow.store(true, Ordering::SeqCst);
        // Longer than the group takes to notify its members of the other one.
        async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Ok(())
        }
    });
    let observer = Arc::new(Member("one", journal.clone()));
    let consumer = Consumer::records(backend.source(), handler).config(config()).observe(observer);
    let one = Running::spawn(consumer);
    eventually("the first member has all partitions", async || journal.owned("one") == 6).await;
    backend.producer().send(ProducerRecord::new(backend.topic(), "k", "k:0")).await.unwrap();
    eventually("the first member is busy", async || slow.load(Ordering::SeqCst)).await;
    let two = start(&backend, "two", &journal);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    one.stop().await;
    eventually("the second member has all partitions", async || journal.owned("two") == 6).await;
    assert!(begin.elapsed() < Duration::from_secs(9), "no member had partitions for {:?}", begin.elapsed());
    two.stop().await;
}
