use super::*;

const LINGER: Duration = Duration::from_millis(5);
/// One that lies in another partition than `abc`, of two.
const OTHER: &str = "foobar";

/// What a client was given, with the lane of each.
#[derive(Default)]
struct Given {
    records: Mutex<Vec<(u32, Arc<Lane<u32>>)>>,
    is_full: std::cell::Cell<bool>,
}

impl Sink<u32> for Given {
    fn take(&self, record: u32, lane: &Arc<Lane<u32>>) -> Taken<u32> {
        match record {
            _ if self.is_full.get() => Taken::Later(record),
            404 => Taken::Never(record, ProduceError::TooLarge),
            _ => {
                self.records.lock().unwrap().push((record, Arc::clone(lane)));
                Taken::Yes
            }
        }
    }
}

impl Given {
    fn all(&self) -> Vec<u32> {
        self.records.lock().unwrap().iter().map(|(record, _)| *record).collect()
    }

    /// Answers one record, and tells what was given after that.
    fn answer(&self, record: u32) -> Vec<u32> {
        let lane = {
            let records = self.records.lock().unwrap();
            Arc::clone(&records.iter().find(|(given, _)| *given == record).expect("it was given").1)
        };
        let before = self.all().len();
        assert!(Lanes::answered(&lane, Some(self)).is_empty());
        self.all().split_off(before)
    }
}

struct Fixture {
    lanes: Lanes<u32>,
    given: Given,
    topic: Arc<str>,
    partitions: usize,
}

fn fixture(linger: Duration) -> Fixture {
    Fixture { lanes: Lanes::new(linger), given: Given::default(), topic: "t".into(), partitions: 2 }
}

impl Fixture {
    fn push_of(&self, key: &str, record: u32) -> (bool, Refused<u32>) {
        let place = (&self.topic, key.as_bytes(), self.partitions);
        self.lanes.push(place, record, &self.given)
    }

    fn push(&self, record: u32) -> bool {
        let (lingers, refused) = self.push_of("abc", record);
        assert!(refused.is_empty());
        lingers
    }

    fn linger(&self) -> Option<Instant> {
        self.lanes.linger(Instant::now() + LINGER, &self.given).0
    }
}

#[test]
fn what_comes_while_a_batch_is_unanswered_waits_until_all_of_it_is_answered() {
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
    assert_eq!(fixture.given.all().last(), Some(&7), "nothing is left behind");
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
fn records_wait_for_others_to_share_their_batch() {
    let fixture = fixture(LINGER);
    assert!(fixture.push(1), "the first one is to be looked after");
    assert!(!fixture.push(2));
    assert!(!fixture.push_of(OTHER, 3).0, "and the others with it");
    let (next, _) = fixture.lanes.linger(Instant::now(), &fixture.given);
    assert!(next.is_some_and(|next| next <= Instant::now() + LINGER));
    assert_eq!(fixture.given.all(), [0; 0]);
    assert_eq!(fixture.linger(), None);
    assert_eq!(fixture.given.all(), [1, 2, 3]);
    assert!(fixture.push(4));
}

#[test]
fn what_lingers_when_the_batch_before_it_is_answered_goes_on_to_linger() {
    let fixture = fixture(LINGER);
    fixture.push(1);
    fixture.linger();
    assert!(fixture.push(2));
    assert_eq!(fixture.given.answer(1), [0; 0]);
    fixture.linger();
    assert_eq!(fixture.given.all(), [1, 2]);
    fixture.push(3);
    fixture.linger();
    assert_eq!(fixture.given.all(), [1, 2], "it has lingered, but may not go yet");
    assert_eq!(fixture.given.answer(2), [3]);
}

#[test]
fn a_crowd_is_not_held_back() {
    let fixture = fixture(LINGER);
    fixture.push(0);
    fixture.linger();
    let crowd = CROWD as u32;
    for record in 1..crowd {
        fixture.push(record);
    }
    assert_eq!(fixture.given.all(), [0]);
    fixture.push(crowd);
    assert_eq!(fixture.given.all(), Vec::from_iter(0..=crowd));
    fixture.push(crowd + 1);
    fixture.linger();
    assert_eq!(fixture.given.all().last(), Some(&crowd), "what comes then waits again");
    let after: Vec<_> = (0..=crowd).flat_map(|record| fixture.given.answer(record)).collect();
    assert_eq!(after, [crowd + 1]);
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
    assert_eq!(fixture.given.all(), [1, 2, 3], "what waits goes before what comes");
    fixture.linger();
    assert_eq!(fixture.given.all(), [1, 2, 3, 4]);
    assert_eq!(fixture.given.answer(1), [0; 0]);
}

#[test]
fn a_client_that_is_full_gets_everything_later_and_in_order() {
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
    assert!(fixture.lanes.retry(&fixture.given).is_empty());
    assert_eq!(fixture.given.all(), [1, 2, 3, 4], "nobody else comes, and it goes all the same");
}

#[test]
fn what_the_client_never_takes_is_told_and_holds_nobody_up() {
    let fixture = fixture(LINGER);
    for record in [1, 404, 2] {
        fixture.push(record);
    }
    let (_, refused) = fixture.lanes.linger(Instant::now() + LINGER, &fixture.given);
    assert_eq!(refused, [(404, ProduceError::TooLarge)]);
    assert_eq!(fixture.given.all(), [1, 2]);
}

#[test]
fn what_is_given_up_is_told_and_never_handed_over() {
    let fixture = fixture(Duration::ZERO);
    for record in 1..4 {
        fixture.push(record);
    }
    assert_eq!(fixture.lanes.give_up(), [2, 3]);
    assert_eq!(fixture.given.answer(1), [0; 0]);
    assert!(fixture.lanes.give_up().is_empty());
}
