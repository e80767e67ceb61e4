use super::*;

fn state(committed: Option<i64>, available: Range<i64>) -> LogState {
    let partition = LogPartition { topic: "t".into(), number: 0 };
    LogState { partition, committed, available }
}

#[test]
fn p1_reading_begins_at_the_smaller_of_the_committed_offset_and_the_position() {
    let log = state(Some(50), 10..100);
    assert_eq!(log.start(None), Start::At(10), "the store has nothing of the partition");
    assert_eq!(state(Some(10), 10..100).start(None), Start::Committed);
    assert_eq!(
        state(Some(5), 10..100).start(None),
        Start::Committed,
        "the client moves it to the first record"
    );
    assert_eq!(log.start(Some(50)), Start::Committed);
    assert_eq!(log.start(Some(70)), Start::Committed, "saved but not committed");
    assert_eq!(log.start(Some(49)), Start::At(49), "the store is older");
    assert_eq!(log.start(Some(10)), Start::At(10));
    assert_eq!(log.start(Some(9)), Start::AtFirst(10), "the log no longer has all records");
    assert_eq!(
        state(Some(5), 10..100).start(Some(5)),
        Start::AtFirst(10),
        "the log lacks what nobody has read"
    );
    assert_eq!(state(Some(5), 10..100).start(Some(10)), Start::Committed);
}

#[test]
fn p1_the_position_of_a_replaced_log_is_forgotten() {
    assert_eq!(state(Some(5), 0..10).start(Some(11)), Start::Forget, "the log is shorter");
    assert_eq!(state(Some(5), 0..10).start(Some(10)), Start::Committed, "everything is stored");
    assert_eq!(state(None, 0..100).start(Some(11)), Start::Forget, "the group has not read this log");
    assert_eq!(state(None, 0..0).start(Some(1)), Start::Forget);
    assert_eq!(state(None, 0..100).start(None), Start::Committed);
    assert_eq!(state(None, 20..100).start(Some(20)), Start::Committed, "nothing of the log is decided");
}

#[test]
fn offsets_of_entries_are_relative_and_may_be_omitted_without_gaps() {
    assert_eq!(absolute(&(7..9), vec![], 2).unwrap(), [7, 8]);
    assert_eq!(absolute(&(7..12), vec![1, 4], 2).unwrap(), [8, 11]);
    assert_eq!(absolute(&(7..12), vec![], 0).unwrap(), [0_i64; 0]);
    assert_eq!(absolute(&(7..7), vec![], 0).unwrap(), [0_i64; 0]);
    for (range, relative, entries) in [
        (-1..1, vec![], 2),
        (Range { start: 9, end: 7 }, vec![], 2),
        (7..12, vec![], 2),
        (7..12, vec![1], 2),
        (7..12, vec![1, 2, 3], 2),
        (7..12, vec![2, 2], 2),
        (7..12, vec![1, 5], 2),
        (0..i64::MAX, vec![0, u64::MAX], 2),
    ] {
        assert!(absolute(&range, relative.clone(), entries).is_err(), "{range:?} {relative:?}");
    }
}

#[test]
fn p1_a_batch_after_lost_records_is_refused() {
    let partition = LogPartition { topic: "t".into(), number: 3 };
    let batch = Batch { partition, range: 10..12, items: Vec::new(), offsets: Vec::new() };
    assert_eq!(batch.decided(None).unwrap(), 10..10, "a new partition may begin anywhere");
    assert_eq!(batch.decided(Some(0..10)).unwrap(), 0..10);
    assert_eq!(batch.decided(Some(4..11)).unwrap(), 4..11);
    let error = batch.decided(Some(0..9)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("t/3 from 9 up to 10"), "{error}");
}

#[test]
fn entries_of_decided_offsets_are_known() {
    let partition = LogPartition { topic: "t".into(), number: 0 };
    let batch = Batch { partition, range: 0..100, items: Vec::new(), offsets: vec![10, 20, 30] };
    for (decided, known) in [(0..0, 0..0), (0..11, 0..1), (11..30, 1..2), (5..50, 0..3), (40..50, 3..3)] {
        assert_eq!(batch.known(&decided), known, "{decided:?}");
    }
}

#[test]
fn invalid_partitions_are_refused() {
    assert!(LogPartition::new(String::new(), 0).is_err());
    assert!(LogPartition::new("t".repeat(MAX_TOPIC + 1), 0).is_err());
    assert!(LogPartition::new("t\0".into(), 0).is_err());
    assert!(LogPartition::new("t".into(), -1).is_err());
    LogPartition::new("t".repeat(MAX_TOPIC), 0).unwrap();
}
