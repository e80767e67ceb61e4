//! Listing, replaying and discarding dead letters. Guards P2, P3, P6 and P7.

use crate::backend::Backend;
use crate::support::{Handled, Running, eventually, expected, payload, produce, without_repeats};
use async_trait::async_trait;
use kafka_runtime::dead_letters::header;
use kafka_runtime::dead_letters::{Page, Selection, header::REPLAYED_FROM};
use kafka_runtime::{
    Error, Health, Letter, LetterId, Letters, OnDelivery, Outcome, ProduceError, Producer, ProducerRecord,
    Rejected,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn letters(backend: &impl Backend) -> Letters {
    Letters::new(backend.archive(), backend.producer())
}

async fn list(letters: &Letters) -> Vec<Letter> {
    let Page { letters, next, open } = letters.list(&Selection::default(), None, 1_000).await.unwrap();
    assert_eq!((letters.len() as u64, next), (open, None));
    letters
}

fn payloads(letters: &[Letter]) -> Vec<String> {
    letters.iter().map(|letter| payload(&letter.record)).collect()
}

/// Waits until `count` letters are open, and returns them.
async fn arrived(letters: &Letters, count: usize) -> Vec<Letter> {
    eventually(&format!("{count} letters"), async || list(letters).await.len() == count).await;
    list(letters).await
}

/// A consumer that rejects payloads starting with `bad` until it is repaired.
struct RejectingConsumer {
    handled: Handled,
    repaired: Arc<AtomicBool>,
    running: Running,
}

impl RejectingConsumer {
    fn start(backend: &impl Backend) -> Self {
        let (handled, repaired) = (Handled::default(), Arc::new(AtomicBool::new(false)));
        let (take, is_repaired) = (handled.clone(), Arc::clone(&repaired));
        let handler = tower::service_fn(move |mut batch: kafka_runtime::Batch| {
            let (take, is_repaired) = (take.clone(), is_repaired.load(Ordering::SeqCst));
            async move {
                let bad = |record: &kafka_runtime::Record| !is_repaired && payload(record).starts_with("bad");
                let indexes = (0..batch.records.len()).filter(|index| bad(&batch.records[*index]));
                let reject = |index| Rejected {
                    index,
                    reason: format!("bad payload: {}", payload(&batch.records[index])),
                };
                // Reversed: letters must be in the order of their records anyway.
                let rejected: Vec<_> = indexes.rev().map(reject).collect();
                batch.records = batch.records.into_iter().filter(|record| !bad(record)).collect();
                take.add(&batch);
                Ok::<_, kafka_runtime::HandlerError>(Outcome { rejected })
            }
        });
        let running = Running::start(backend, handler);
        Self { handled, repaired, running }
    }

    fn repair(&self) {
        self.repaired.store(true, Ordering::SeqCst);
    }
}

pub(crate) async fn a_letter_is_listed_then_replayed_through_the_handler_and_closed(backend: impl Backend) {
    let consumer = RejectingConsumer::start(&backend);
    let letters = letters(&backend);
    let mut record = ProducerRecord::new(backend.topic(), "bad", "bad:0");
    record.headers.push(("trace".into(), "1".into()));
    let position = backend.producer().send(record).await.unwrap();
    produce(&backend, &["bad2", "good"], 1).await;
    let open = arrived(&letters, 2).await;
    let letter =
        open.iter().find(|letter| payload(&letter.record) == "bad:0").expect("the letter must be listed");
    let origin = letter.origin.clone().expect("the letter must have an origin");
    assert_eq!((origin.topic, origin.partition), (backend.topic(), position.partition));
    assert_eq!((letter.offset, letter.attempts), (Some(position.offset), 1));
    assert_eq!((letter.reason.as_str(), &letter.record.key[..]), ("bad payload: bad:0", &b"bad"[..]));
    assert_eq!(letter.record.headers, [("trace".to_owned(), "1".into())]);
    assert_eq!(letters.get(letter.id).await.unwrap(), *letter);

    consumer.repair();
    letters.replay(letter.id).await.unwrap();
    consumer.handled.wait_for(2).await;
    let replayed = consumer.handled.records().into_iter().find(|record| payload(record) == "bad:0").unwrap();
    let headers =
        [("trace".to_owned(), "1".into()), (REPLAYED_FROM.to_owned(), letter.id.to_string().into())];
    assert_eq!((&replayed.key[..], replayed.headers), (&b"bad"[..], headers.to_vec()));
    assert_eq!(payloads(&list(&letters).await), ["bad2:0"]);
    for ended in [letters.replay(letter.id).await.map(drop), letters.discard(letter.id).await] {
        assert!(matches!(ended, Err(Error::NoLetter { id }) if id == letter.id), "{ended:?}");
    }

    let other = open.iter().find(|other| other.id != letter.id).expect("there must be two letters");
    letters.discard(other.id).await.unwrap();
    assert!(list(&letters).await.is_empty());
    assert!(matches!(letters.get(other.id).await, Err(Error::NoLetter { .. })));
    assert!(matches!(letters.get("7-1".parse().unwrap()).await, Err(Error::NoLetter { .. })));
    consumer.running.stop().await;
    assert_eq!(consumer.handled.len(), 2, "a discarded letter must not be handled");
}

pub(crate) async fn a_replayed_letter_that_fails_is_a_new_letter_and_replaying_all_terminates(
    backend: impl Backend,
) {
    let consumer = RejectingConsumer::start(&backend);
    let letters = letters(&backend);
    produce(&backend, &["bad"], 5).await;
    let before = arrived(&letters, 5).await;
    // The handler is not repaired: each record becomes a new letter, but each letter is replayed only once.
    let (mut after, mut until, mut count) = (None, None, 0);
    loop {
        let done = letters.replay_all(&Selection::default(), after, until, 2).await.unwrap();
        count += done.replayed.len();
        (after, until) = (done.next, Some(done.until.to_string().parse().unwrap()));
        if after.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count, 5);
    let all_new = async || list(&letters).await.iter().all(|letter| letter.replayed_from.is_some());
    eventually("all are new letters", async || list(&letters).await.len() == 5 && all_new().await).await;
    let came_back = list(&letters).await;
    assert_eq!(payloads(&came_back), expected("bad", 5));
    let from: Vec<LetterId> = came_back.iter().filter_map(|letter| letter.replayed_from).collect();
    assert_eq!(from, before.iter().map(|letter| letter.id).collect::<Vec<_>>());
    consumer.running.stop().await;
}

pub(crate) async fn a_replay_keeps_the_order_of_each_key(backend: impl Backend) {
    let consumer = RejectingConsumer::start(&backend);
    let letters = letters(&backend);
    let keys = ["bad1", "bad2", "bad3"];
    produce(&backend, &keys, 20).await;
    arrived(&letters, 60).await;
    consumer.repair();
    let done = letters.replay_all(&Selection::default(), None, None, 1_000).await.unwrap();
    assert_eq!((done.replayed.len(), done.skipped.len(), done.next), (60, 0, None));
    consumer.handled.wait_for(60).await;
    consumer.running.stop().await;
    let handled = consumer.handled.by_key();
    for key in keys {
        assert_eq!(without_repeats(handled[key].clone()), expected(key, 20));
    }
}

pub(crate) async fn letters_are_paged_and_filtered(backend: impl Backend) {
    let consumer = RejectingConsumer::start(&backend);
    let letters = letters(&backend);
    produce(&backend, &["bad1", "bad2"], 120).await;
    let all = arrived(&letters, 240).await;
    consumer.running.stop().await;
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = letters.list(&Selection::default(), after, 70).await.unwrap();
        assert!(page.letters.len() <= 70 && page.open == 240);
        paged.extend(page.letters);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    let by_key = Selection { key: Some("bad2".into()), ..Selection::default() };
    let page = letters.list(&by_key, None, 1_000).await.unwrap();
    assert_eq!(payloads(&page.letters), expected("bad2", 120));
    let by_reason = Selection { reason: Some("bad payload: bad1:7".into()), ..Selection::default() };
    let page = letters.list(&by_reason, None, 1_000).await.unwrap();
    assert_eq!(page.letters.len(), 11, "7 and 70 to 79");
}

/// A producer that cannot write to one topic.
struct FailingProducer {
    inner: Arc<dyn Producer>,
    topic: Arc<str>,
}

#[async_trait]
impl Producer for FailingProducer {
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        if record.topic == self.topic {
            return Err(ProduceError::TimedOut);
        }
        self.inner.enqueue(record, on_delivery)
    }

    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError> {
        self.inner.flush(deadline).await
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}

pub(crate) async fn an_interrupted_replay_keeps_the_letter(backend: impl Backend) {
    let consumer = RejectingConsumer::start(&backend);
    let letters = letters(&backend);
    produce(&backend, &["bad"], 1).await;
    let id = arrived(&letters, 1).await[0].id;
    consumer.repair();
    for (topic, written) in [(backend.topic(), "record"), (backend.dead_topic(), "ending")] {
        let failing = Arc::new(FailingProducer { inner: backend.producer(), topic });
        let outcome = Letters::new(backend.archive(), failing).replay(id).await;
        assert!(matches!(outcome, Err(Error::NotWritten { what, .. }) if what == written), "{outcome:?}");
        assert_eq!(list(&letters).await[0].id, id);
    }
    consumer.handled.wait_for(1).await;
    letters.replay(id).await.unwrap();
    consumer.handled.wait_for(2).await;
    assert_eq!(consumer.handled.payloads(), ["bad:0", "bad:0"]);
    assert!(list(&letters).await.is_empty());
    consumer.running.stop().await;
}

pub(crate) async fn closed_letters_at_the_start_of_the_topic_are_removed(backend: impl Backend) {
    let consumer = RejectingConsumer::start(&backend);
    let letters = letters(&backend);
    let archive = backend.archive();
    produce(&backend, &["bad"], 4).await;
    let open = arrived(&letters, 4).await;
    letters.discard(open[1].id).await.unwrap();
    assert_eq!(archive.bounds().await.unwrap()[0].start, 0, "the first letter is still open");
    letters.discard(open[0].id).await.unwrap();
    let starts_at = async |offset| archive.bounds().await.unwrap()[0].start == offset;
    eventually("the first two are removed", async || starts_at(2).await).await;
    assert_eq!(list(&letters).await, open[2..]);
    // A process that starts now must see the same letters.
    assert_eq!(list(&self::letters(&backend)).await, open[2..]);
    for letter in &open[2..] {
        letters.discard(letter.id).await.unwrap();
    }
    let end = archive.bounds().await.unwrap()[0].end;
    eventually("few records are left", async || archive.bounds().await.unwrap()[0].start >= end - 2).await;
    assert!(list(&self::letters(&backend)).await.is_empty());
    produce(&backend, &["bad"], 1).await;
    assert_eq!(arrived(&letters, 1).await[0].id.0.offset, end, "offsets must not be reused");
    consumer.running.stop().await;
}

pub(crate) async fn processes_see_changes_made_by_others(backend: impl Backend) {
    let consumer = RejectingConsumer::start(&backend);
    let (one, other) = (letters(&backend), letters(&backend));
    produce(&backend, &["bad"], 3).await;
    let open = arrived(&one, 3).await;
    assert_eq!(list(&other).await, open);
    other.discard(open[0].id).await.unwrap();
    assert_eq!(list(&one).await, open[1..]);
    consumer.repair();
    one.replay(open[2].id).await.unwrap();
    assert!(matches!(other.replay(open[2].id).await, Err(Error::NoLetter { .. })));
    assert_eq!(list(&other).await, open[1..2]);
    consumer.running.stop().await;
}

pub(crate) async fn foreign_records_are_listed_and_can_be_discarded(backend: impl Backend) {
    let letters = letters(&backend);
    let mut omitted = ProducerRecord::new(backend.dead_topic(), "k", "");
    for (name, value) in [(header::TOPIC, "t"), (header::PARTITION, "0"), (header::OMITTED, "2000000")] {
        omitted.headers.push((name.to_owned(), value.into()));
    }
    for record in [ProducerRecord::new(backend.dead_topic(), "k", "foreign"), omitted] {
        backend.producer().send(record).await.unwrap();
    }
    let open = list(&letters).await;
    assert_eq!(
        (payloads(&open), open[1].omitted_bytes),
        (vec!["foreign".into(), String::new()], Some(2_000_000))
    );
    let done = letters.replay_all(&Selection::default(), None, None, 10).await.unwrap();
    assert_eq!((done.replayed.len(), done.skipped.len()), (0, 2));
    for letter in open {
        assert!(matches!(letters.replay(letter.id).await, Err(Error::NotReplayable { .. })));
        letters.discard(letter.id).await.unwrap();
    }
    assert!(list(&letters).await.is_empty());
}
