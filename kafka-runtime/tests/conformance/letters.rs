//! Dead letters as people handle them. Guards P2, P3, P6 and P7.

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

/// Waits until so many letters are open.
async fn arrived(letters: &Letters, count: usize) -> Vec<Letter> {
    eventually(&format!("{count} letters"), async || list(letters).await.len() == count).await;
    list(letters).await
}

/// A consumer that rejects what begins with `bad` for as long as it is not mended.
struct Ward {
    handled: Handled,
    mended: Arc<AtomicBool>,
    running: Running,
}

impl Ward {
    fn start(backend: &impl Backend) -> Self {
        let (handled, mended) = (Handled::default(), Arc::new(AtomicBool::new(false)));
        let (take, is_mended) = (handled.clone(), Arc::clone(&mended));
        let handler = tower::service_fn(move |mut batch: kafka_runtime::Batch| {
            let (take, is_mended) = (take.clone(), is_mended.load(Ordering::SeqCst));
            async move {
                let bad = |record: &kafka_runtime::Record| !is_mended && payload(record).starts_with("bad");
                let indexes = (0..batch.records.len()).filter(|index| bad(&batch.records[*index]));
                let reject =
                    |index| Rejected { index, reason: format!("ill: {}", payload(&batch.records[index])) };
                // The last one first: letters are in the order of their records all the same.
                let rejected: Vec<_> = indexes.rev().map(reject).collect();
                batch.records = batch.records.into_iter().filter(|record| !bad(record)).collect();
                take.add(&batch);
                Ok::<_, kafka_runtime::HandlerError>(Outcome { rejected })
            }
        });
        let running = Running::start(backend, handler);
        Self { handled, mended, running }
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }
}

pub(crate) async fn a_letter_is_listed_replayed_through_the_handler_and_gone(backend: impl Backend) {
    let ward = Ward::start(&backend);
    let letters = letters(&backend);
    let mut record = ProducerRecord::new(backend.topic(), "bad", "bad:0");
    record.headers.push(("trace".into(), "1".into()));
    let position = backend.producer().send(record).await.unwrap();
    produce(&backend, &["bad2", "good"], 1).await;
    let open = arrived(&letters, 2).await;
    let letter = open.iter().find(|letter| payload(&letter.record) == "bad:0").expect("it is listed");
    let origin = letter.origin.clone().expect("it has an origin");
    assert_eq!((origin.topic, origin.partition), (backend.topic(), position.partition));
    assert_eq!((letter.offset, letter.attempts), (Some(position.offset), 1));
    assert_eq!((letter.reason.as_str(), &letter.record.key[..]), ("ill: bad:0", &b"bad"[..]));
    assert_eq!(letter.record.headers, [("trace".to_owned(), "1".into())]);
    assert_eq!(letters.get(letter.id).await.unwrap(), *letter);

    ward.mend();
    letters.replay(letter.id).await.unwrap();
    ward.handled.reach(2).await;
    let replayed = ward.handled.records().into_iter().find(|record| payload(record) == "bad:0").unwrap();
    let headers =
        [("trace".to_owned(), "1".into()), (REPLAYED_FROM.to_owned(), letter.id.to_string().into())];
    assert_eq!((&replayed.key[..], replayed.headers), (&b"bad"[..], headers.to_vec()));
    assert_eq!(payloads(&list(&letters).await), ["bad2:0"]);
    for ended in [letters.replay(letter.id).await.map(drop), letters.discard(letter.id).await] {
        assert!(matches!(ended, Err(Error::NoLetter { id }) if id == letter.id), "{ended:?}");
    }

    let other = open.iter().find(|other| other.id != letter.id).expect("there are two");
    letters.discard(other.id).await.unwrap();
    assert!(list(&letters).await.is_empty());
    assert!(matches!(letters.get(other.id).await, Err(Error::NoLetter { .. })));
    assert!(matches!(letters.get("7-1".parse().unwrap()).await, Err(Error::NoLetter { .. })));
    ward.running.stop().await;
    assert_eq!(ward.handled.len(), 2, "what was dropped is not handled");
}

pub(crate) async fn a_letter_that_fails_again_is_a_new_letter_and_a_replay_of_all_ends(
    backend: impl Backend,
) {
    let ward = Ward::start(&backend);
    let letters = letters(&backend);
    produce(&backend, &["bad"], 5).await;
    let before = arrived(&letters, 5).await;
    // Nothing is mended: all come back at once, and are not replayed again and again.
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
    ward.running.stop().await;
}

pub(crate) async fn a_replay_keeps_the_order_of_each_key(backend: impl Backend) {
    let ward = Ward::start(&backend);
    let letters = letters(&backend);
    let keys = ["bad1", "bad2", "bad3"];
    produce(&backend, &keys, 20).await;
    arrived(&letters, 60).await;
    ward.mend();
    let done = letters.replay_all(&Selection::default(), None, None, 1_000).await.unwrap();
    assert_eq!((done.replayed.len(), done.skipped.len(), done.next), (60, 0, None));
    ward.handled.reach(60).await;
    ward.running.stop().await;
    let handled = ward.handled.by_key();
    for key in keys {
        assert_eq!(without_repeats(handled[key].clone()), expected(key, 20));
    }
}

pub(crate) async fn letters_come_in_pages_and_can_be_selected(backend: impl Backend) {
    let ward = Ward::start(&backend);
    let letters = letters(&backend);
    produce(&backend, &["bad1", "bad2"], 120).await;
    let all = arrived(&letters, 240).await;
    ward.running.stop().await;
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
    let by_reason = Selection { reason: Some("ill: bad1:7".into()), ..Selection::default() };
    let page = letters.list(&by_reason, None, 1_000).await.unwrap();
    assert_eq!(page.letters.len(), 11, "7 and 70 to 79");
}

/// A producer that can't write to one topic.
struct Lame {
    inner: Arc<dyn Producer>,
    topic: Arc<str>,
}

#[async_trait]
impl Producer for Lame {
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

pub(crate) async fn a_replay_that_is_cut_off_leaves_the_letter(backend: impl Backend) {
    let ward = Ward::start(&backend);
    let letters = letters(&backend);
    produce(&backend, &["bad"], 1).await;
    let id = arrived(&letters, 1).await[0].id;
    ward.mend();
    for (topic, written) in [(backend.topic(), "record"), (backend.dead_topic(), "ending")] {
        let lame = Arc::new(Lame { inner: backend.producer(), topic });
        let outcome = Letters::new(backend.archive(), lame).replay(id).await;
        assert!(matches!(outcome, Err(Error::NotWritten { what, .. }) if what == written), "{outcome:?}");
        assert_eq!(list(&letters).await[0].id, id);
    }
    ward.handled.reach(1).await;
    letters.replay(id).await.unwrap();
    ward.handled.reach(2).await;
    assert_eq!(ward.handled.payloads(), ["bad:0", "bad:0"]);
    assert!(list(&letters).await.is_empty());
    ward.running.stop().await;
}

pub(crate) async fn what_is_closed_at_the_beginning_is_removed(backend: impl Backend) {
    let ward = Ward::start(&backend);
    let letters = letters(&backend);
    let archive = backend.archive();
    produce(&backend, &["bad"], 4).await;
    let open = arrived(&letters, 4).await;
    letters.discard(open[1].id).await.unwrap();
    assert_eq!(archive.bounds().await.unwrap()[0].start, 0, "the first letter is open");
    letters.discard(open[0].id).await.unwrap();
    let starts_at = async |offset| archive.bounds().await.unwrap()[0].start == offset;
    eventually("the first two are removed", async || starts_at(2).await).await;
    assert_eq!(list(&letters).await, open[2..]);
    // A process that begins now sees the same.
    assert_eq!(list(&self::letters(&backend)).await, open[2..]);
    for letter in &open[2..] {
        letters.discard(letter.id).await.unwrap();
    }
    let end = archive.bounds().await.unwrap()[0].end;
    eventually("what is left is few", async || archive.bounds().await.unwrap()[0].start >= end - 2).await;
    assert!(list(&self::letters(&backend)).await.is_empty());
    produce(&backend, &["bad"], 1).await;
    assert_eq!(arrived(&letters, 1).await[0].id.0.offset, end, "offsets go on");
    ward.running.stop().await;
}

pub(crate) async fn processes_see_what_others_have_done(backend: impl Backend) {
    let ward = Ward::start(&backend);
    let (one, other) = (letters(&backend), letters(&backend));
    produce(&backend, &["bad"], 3).await;
    let open = arrived(&one, 3).await;
    assert_eq!(list(&other).await, open);
    other.discard(open[0].id).await.unwrap();
    assert_eq!(list(&one).await, open[1..]);
    ward.mend();
    one.replay(open[2].id).await.unwrap();
    assert!(matches!(other.replay(open[2].id).await, Err(Error::NoLetter { .. })));
    assert_eq!(list(&other).await, open[1..2]);
    ward.running.stop().await;
}

pub(crate) async fn what_is_no_letter_is_shown_and_can_be_dropped(backend: impl Backend) {
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
