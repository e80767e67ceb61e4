//! Panics beside the handler's work.

use super::*;
use std::sync::atomic::AtomicBool;

/// Panics whenever it is told something.
struct Clumsy;

impl Observer for Clumsy {
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

fn telling(done: mpsc::Sender<i64>) -> impl RecordHandler {
    tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move { done.send(message.record.offset).await.map_err(HandlerError::retry) }
    })
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_disturbs_nobody() {
    let (done, handled) = mpsc::channel(16);
    let consumer =
        |source| Consumer::records(source, telling(done)).config(eager()).observe(Arc::new(Clumsy));
    let mut script = start(handled, consumer).await;
    for offset in 1..3 {
        script.feed(offset);
        assert_eq!(script.handled.recv().await, Some(offset));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(script.stop().await, [vec![(partition(), 2)], vec![(partition(), 3)]]);
}

#[tokio::test]
async fn a_record_that_was_written_is_answered_so_though_the_observer_panics() {
    let graveyard = Arc::new(Graveyard::default());
    graveyard.limit.store(100, SeqCst);
    let producer = crate::observed(graveyard, Arc::new(Clumsy));
    let position = Position { partition: 0, offset: 0 };
    assert_eq!(producer.send(ProducerRecord::new("t".into(), "k", "v")).await, Ok(position));
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_is_a_failed_commit() {
    let (done, handled) = mpsc::channel(16);
    let panics = Arc::new(AtomicBool::new(true));
    let is_panicking = Arc::clone(&panics);
    let hook = move || {
        assert!(!is_panicking.load(SeqCst), "the store is away");
        async { Ok::<_, Error>(()) }
    };
    let consumer = |source| Consumer::records(source, telling(done)).config(eager()).before_commit(hook);
    let mut script = start(handled, consumer).await;
    script.feed(1);
    assert_eq!(script.handled.recv().await, Some(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(script.commits.lock().unwrap().is_empty());
    panics.store(false, SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.stop().await, [vec![(partition(), 2)]]);
}

/// Succeeds up to offset 1, panics at offset 2, and when it is cloned after that.
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
async fn a_worker_that_panics_ends_its_consumer_with_an_error_after_what_is_done_was_committed() {
    let (_, handled) = mpsc::channel(1);
    let handler = Unclonable(Arc::default());
    let mut script = start(handled, |source| Consumer::records(source, handler).config(config())).await;
    script.feed(1);
    script.feed(2);
    let ended = tokio::time::timeout(Duration::from_secs(60), script.running.join_next()).await;
    let outcome = ended.expect("it does not go on without the partition").unwrap().unwrap();
    assert!(matches!(outcome, Err(Error::Panicked)), "{outcome:?}");
    assert_eq!(*script.commits.lock().unwrap(), [vec![(partition(), 2)]]);
}
