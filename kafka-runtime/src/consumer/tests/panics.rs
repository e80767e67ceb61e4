//! Panics of observers, hooks and workers.

use super::*;
use std::sync::atomic::AtomicBool;

/// Panics in every callback.
struct PanickingObserver;

impl Observer for PanickingObserver {
    fn assigned(&self, _: &str, _: &[TopicPartition]) {
        panic!("assigned");
    }

    fn revoked(&self, _: &str, _: &[TopicPartition]) {
        panic!("revoked");
    }

    fn committed(&self, _: &str, _: &[(TopicPartition, i64)], _: Result<(), &Error>) {
        panic!("committed");
    }

    fn delivered(&self, _: &str, _: &[u8], _: &Result<Position, ProduceError>) {
        panic!("delivered");
    }
}

fn reporting_handler(done: mpsc::Sender<i64>) -> impl RecordHandler {
    tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move { done.send(message.record.offset).await.map_err(HandlerError::retry) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_panicking_observer_does_not_affect_the_consumer() {
    let (done, handled) = mpsc::channel(16);
    let consumer = |source| {
        Consumer::records(source, reporting_handler(done))
            .config(eager())
            .observe(Arc::new(PanickingObserver))
    };
    let mut consumer = start(handled, consumer).await;
    for offset in 1..3 {
        consumer.feed(offset);
        assert_eq!(consumer.handled.recv().await, Some(offset));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(consumer.stop().await, [vec![(partition(), 2)], vec![(partition(), 3)]]);
}

#[tokio::test]
async fn a_panicking_observer_does_not_affect_delivery_results() {
    let sink = Arc::new(DeadLetterSink::default());
    sink.limit.store(100, SeqCst);
    let producer = crate::observed(sink, Arc::new(PanickingObserver));
    let position = Position { partition: 0, offset: 0 };
    assert_eq!(producer.send(ProducerRecord::new("t".into(), "k", "v")).await, Ok(position));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_hook_fails_the_commit() {
    let (done, handled) = mpsc::channel(16);
    let panics = Arc::new(AtomicBool::new(true));
    let is_panicking = Arc::clone(&panics);
    let hook = move || {
        assert!(!is_panicking.load(SeqCst), "the store is down");
        async { Ok::<_, Error>(()) }
    };
    let consumer =
        |source| Consumer::records(source, reporting_handler(done)).config(eager()).before_commit(hook);
    let mut consumer = start(handled, consumer).await;
    consumer.feed(1);
    assert_eq!(consumer.handled.recv().await, Some(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(consumer.commits.lock().unwrap().is_empty());
    panics.store(false, SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(consumer.stop().await, [vec![(partition(), 2)]]);
}

/// Succeeds up to offset 1, panics at offset 2, and panics when it is cloned after that.
struct Unclonable(Arc<AtomicBool>);

impl Clone for Unclonable {
    fn clone(&self) -> Self {
        assert!(!self.0.load(SeqCst), "no clone");
        Self(Arc::clone(&self.0))
    }
}

impl tower::Service<Message> for Unclonable {
    type Response = ();
    type Error = HandlerError;
    type Future = std::future::Ready<Result<(), HandlerError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), HandlerError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Message) -> Self::Future {
        self.0.store(message.record.offset > 1, SeqCst);
        assert!(message.record.offset <= 1, "no second one");
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_worker_ends_its_consumer_after_a_last_commit() {
    let (_, handled) = mpsc::channel(1);
    let handler = Unclonable(Arc::default());
    let mut consumer = start(handled, |source| Consumer::records(source, handler).config(config())).await;
    consumer.feed(1);
    consumer.feed(2);
    let ended = tokio::time::timeout(Duration::from_secs(60), consumer.running.join_next()).await;
    let outcome = ended.expect("the consumer ends").unwrap().unwrap();
    assert!(matches!(outcome, Err(Error::Panicked)), "{outcome:?}");
    assert_eq!(*consumer.commits.lock().unwrap(), [vec![(partition(), 2)]]);
}
