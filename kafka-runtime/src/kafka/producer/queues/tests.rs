use super::*;

const LINGER: Duration = Duration::from_millis(5);
/// A key of another partition than `abc`, of two.
const OTHER: &str = "foobar";

/// Records the client has been given, each with its queue.
#[derive(Default)]
struct Given {
    records: Mutex<Vec<(u32, Arc<PartitionQueue<u32>>)>>,
    is_full: std::cell::Cell<bool>,
}

impl Sink<u32> for Given {
    fn send(&self, record: u32, queue: &Arc<PartitionQueue<u32>>) -> SendOutcome<u32> {
        match record {
            _ if self.is_full.get() => SendOutcome::Retry(record),
            404 => SendOutcome::Rejected(record, ProduceError::TooLarge),
            _ => {
                self.records.lock().unwrap().push((record, Arc::clone(queue)));
                SendOutcome::Sent
            }
        }
    }
}

impl Given {
    fn all(&self) -> Vec<u32> {
        self.records.lock().unwrap().iter().map(|(record, _)| *record).collect()
    }

    /// Answers one record. Returns the records that were handed over after it.
    fn answer(&self, record: u32) -> Vec<u32> {
        let queue = {
            let records = self.records.lock().unwrap();
            Arc::clone(&records.iter().find(|(given, _)| *given == record).expect("it was given").1)
        };
        let before = self.all().len();
        assert!(PartitionQueues::answered(&queue, Some(self)).is_empty());
        self.all().split_off(before)
    }
}

struct Fixture {
    queues: PartitionQueues<u32>,
    given: Given,
    topic: Arc<str>,
    partitions: usize,
}

fn fixture(linger: Duration) -> Fixture {
    Fixture {
        queues: PartitionQueues::new(linger),
        given: Given::default(),
        topic: "t".into(),
        partitions: 2,
    }
}

impl Fixture {
    fn push_of(&self, key: &str, record: u32) -> (bool, Rejected<u32>) {
        let place = (&self.topic, key.as_bytes(), self.partitions);
        self.queues.push(place, record, &self.given)
    }

    fn push(&self, record: u32) -> bool {
        let (lingers, rejected) = self.push_of("abc", record);
        assert!(rejected.is_empty());
        lingers
    }

    fn linger(&self) -> Option<Instant> {
        self.queues.linger(Instant::now() + LINGER, &self.given).0
    }
}

#[test]
fn records_wait_until_the_previous_batch_is_answered_completely() {
    let fixture = fixture(Duration::ZERO);
    fixture.push(1);
    assert_eq!(fixture.given.all(), [1]);
    (2..6).for_each(|record| assert!(!fixture.push(record)));
    assert_eq!(fixture.given.all(), [1]);
    assert_eq!(fixture.given.answer(1), [2, 3, 4, 5]);
    fixture.push(6);
    for record in 2..5 {
        assert_eq!(fixture.given.answer(record), [0; 0]);
    }
    assert_eq!(fixture.given.answer(5), [6]);
    assert_eq!(fixture.given.answer(6), [0; 0]);
    fixture.push(7);
    assert_eq!(fixture.given.all().last(), Some(&7), "an idle queue hands over at once");
}

#[test]
fn a_partition_does_not_wait_for_another() {
    let fixture = fixture(Duration::ZERO);
    fixture.push(1);
    fixture.push(2);
    fixture.push_of(OTHER, 3);
    assert_eq!(fixture.given.all(), [1, 3]);
    assert_eq!(fixture.given.answer(3), [0; 0]);
    assert_eq!(fixture.given.answer(1), [2]);
}

#[test]
fn records_linger_to_share_a_batch() {
    let fixture = fixture(LINGER);
    assert!(fixture.push(1), "the first one must arrange a call");
    assert!(!fixture.push(2));
    assert!(!fixture.push_of(OTHER, 3).0, "one call serves all queues");
    let (next, _) = fixture.queues.linger(Instant::now(), &fixture.given);
    assert!(next.is_some_and(|next| next <= Instant::now() + LINGER));
    assert_eq!(fixture.given.all(), [0; 0]);
    assert_eq!(fixture.linger(), None);
    assert_eq!(fixture.given.all(), [1, 2, 3]);
    assert!(fixture.push(4));
}

#[test]
fn records_keep_lingering_when_the_previous_batch_is_answered() {
    let fixture = fixture(LINGER);
    fixture.push(1);
    fixture.linger();
    assert!(fixture.push(2));
    assert_eq!(fixture.given.answer(1), [0; 0]);
    fixture.linger();
    assert_eq!(fixture.given.all(), [1, 2]);
    fixture.push(3);
    fixture.linger();
    assert_eq!(fixture.given.all(), [1, 2], "the linger time is over, but 2 is unanswered");
    assert_eq!(fixture.given.answer(2), [3]);
}

#[test]
fn a_long_queue_is_handed_over_at_once() {
    let fixture = fixture(LINGER);
    fixture.push(0);
    fixture.linger();
    let threshold = HAND_OVER_AT as u32;
    for record in 1..threshold {
        fixture.push(record);
    }
    assert_eq!(fixture.given.all(), [0]);
    fixture.push(threshold);
    assert_eq!(fixture.given.all(), Vec::from_iter(0..=threshold));
    fixture.push(threshold + 1);
    fixture.linger();
    assert_eq!(fixture.given.all().last(), Some(&threshold), "the next record waits again");
    let after: Vec<_> = (0..=threshold).flat_map(|record| fixture.given.answer(record)).collect();
    assert_eq!(after, [threshold + 1]);
}

#[test]
fn a_key_that_changes_its_partition_keeps_its_order() {
    let mut fixture = fixture(LINGER);
    fixture.partitions = 1;
    fixture.push(1);
    fixture.linger();
    fixture.push(2);
    fixture.push_of(OTHER, 3);
    fixture.partitions = 2;
    fixture.push(4);
    assert_eq!(fixture.given.all(), [1, 2, 3], "queued records go first");
    fixture.linger();
    assert_eq!(fixture.given.all(), [1, 2, 3, 4]);
    assert_eq!(fixture.given.answer(1), [0; 0]);
}

#[test]
fn a_full_client_gets_all_records_later_in_order() {
    let mut fixture = fixture(Duration::ZERO);
    fixture.given.is_full.set(true);
    fixture.push(1);
    fixture.partitions = 3;
    fixture.push(2);
    assert_eq!(fixture.given.all(), [0; 0]);
    fixture.given.is_full.set(false);
    fixture.push(3);
    assert_eq!(fixture.given.all(), [1, 2, 3]);
    fixture.given.is_full.set(true);
    fixture.push(4);
    for record in 1..4 {
        fixture.given.answer(record);
    }
    fixture.given.is_full.set(false);
    assert!(fixture.queues.retry(&fixture.given).is_empty());
    assert_eq!(fixture.given.all(), [1, 2, 3, 4], "no later record is needed");
}

#[test]
fn a_rejected_record_is_returned_and_blocks_no_other() {
    let fixture = fixture(LINGER);
    for record in [1, 404, 2] {
        fixture.push(record);
    }
    let (_, rejected) = fixture.queues.linger(Instant::now() + LINGER, &fixture.given);
    assert_eq!(rejected, [(404, ProduceError::TooLarge)]);
    assert_eq!(fixture.given.all(), [1, 2]);
}

#[test]
fn failed_records_are_returned_and_never_handed_over() {
    let fixture = fixture(Duration::ZERO);
    for record in 1..4 {
        fixture.push(record);
    }
    assert_eq!(fixture.queues.drain(), [2, 3]);
    assert_eq!(fixture.given.answer(1), [0; 0]);
    assert!(fixture.queues.drain().is_empty());
}
