//! The position in the log, and entries that the log delivers again.

use super::world::{World, added, change, code, created, edit, message, owner_changed, save_request_at};
use crate::position::{LogPartition, unused_partition};
use abi::{
    error::ErrorCode,
    v1::{Entry, FindStartOffsetRequest, HistoryVisibility, SaveOutcome, SaveRequest, SaveResult},
};

const GROUP: &str = "g:1";

use SaveOutcome::{Duplicate, Rejected, Stored};

/// Saves the entries from an offset on.
async fn save_at(world: &World, partition: &LogPartition, first: i64, entries: &[Entry]) -> Vec<SaveResult> {
    let request = save_request_at(partition, first, entries);
    world.client().save(request).await.unwrap().into_inner().results
}

fn outcomes(results: &[SaveResult]) -> Vec<SaveOutcome> {
    results.iter().map(SaveResult::outcome).collect()
}

fn request(
    partition: &LogPartition,
    committed: Option<i64>,
    available: (i64, i64),
) -> FindStartOffsetRequest {
    FindStartOffsetRequest {
        topic: partition.topic.clone(),
        partition: partition.number,
        committed_offset: committed,
        first_offset: available.0,
        end_offset: available.1,
    }
}

/// Where a consumer begins whose group has committed `committed`. `None`: there.
async fn start(world: &World, partition: &LogPartition, committed: i64) -> Option<i64> {
    let request = request(partition, Some(committed), (0, 1_000));
    world.client().find_start_offset(request).await.unwrap().into_inner().offset
}

/// A group of `a`, with a message of `b` before `b` is a member, and changes that are allowed only later.
fn log_with_rejections() -> Vec<Entry> {
    let first = message(GROUP, "a", "1");
    vec![
        change(GROUP, "a", "0", created(&["c"], HistoryVisibility::All)),
        first.clone(),
        message(GROUP, "b", "2"),
        edit(GROUP, "c", "3", &first.message_id),
        change(GROUP, "c", "4", added(&["d"])),
        message("g:none", "b", "5"),
        change(GROUP, "a", "6", added(&["b"])),
        change(GROUP, "a", "7", owner_changed("c")),
        message(GROUP, "b", "8"),
    ]
}

pub(super) async fn p4_a_rejected_entry_is_rejected_again_when_the_log_redelivers_it(world: &World) {
    let (log, partition) = (log_with_rejections(), unused_partition());
    let first = save_at(world, &partition, 0, &log).await;
    let expected = [Stored, Stored, Rejected, Rejected, Rejected, Rejected, Stored, Stored, Stored];
    assert_eq!(outcomes(&first), expected);
    assert!(first.iter().all(|result| !result.is_redelivered));
    // As a whole, from each of its entries on, and each message alone, which is another statement in PostgreSQL.
    for from in 0..log.len() {
        let again = save_at(world, &partition, from as i64, &log[from..]).await;
        for ((before, now), expected) in first[from..].iter().zip(&again).zip(&expected[from..]) {
            assert_eq!(now.outcome(), if *expected == Stored { Duplicate } else { Rejected });
            assert_eq!(now.conversation_seq, before.conversation_seq);
            assert_eq!(now.is_redelivered, *expected == Stored);
        }
    }
    let again = save_at(world, &partition, 2, &log[2..3]).await.remove(0).error.unwrap();
    assert_eq!(again.code(), ErrorCode::Forbidden);
    assert!(again.message.contains("rejects it again"), "{}", again.message);
    let unknown = save_at(world, &partition, 5, &log[5..6]).await.remove(0).error.unwrap();
    assert_eq!(unknown.code(), ErrorCode::NotFound, "the group does not exist yet");
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 5);
    // The same records in a batch with new ones.
    let mut longer = log.clone();
    longer.extend([message(GROUP, "b", "9"), message(GROUP, "d", "10")]);
    let results = save_at(world, &partition, 2, &longer[2..]).await;
    assert_eq!(outcomes(&results)[7..], [Stored, Rejected]);
    assert_eq!(results[7].conversation_seq, 6);
}

pub(super) async fn a_retry_of_a_rejected_entry_is_decided_anew(world: &World) {
    let (log, partition) = (log_with_rejections(), unused_partition());
    save_at(world, &partition, 0, &log).await;
    // The records 9 and 10 are retries of the records 2 and 3 by their senders.
    let mut longer = log.clone();
    longer.extend([log[2].clone(), log[3].clone(), message(GROUP, "a", "11")]);
    let results = save_at(world, &partition, 2, &longer[2..]).await;
    let outcomes = outcomes(&results);
    assert_eq!(outcomes[..2], [Rejected, Rejected], "the first attempts stay rejected");
    assert_eq!(outcomes[7..], [Stored, Rejected, Stored]);
    assert_eq!((results[7].conversation_seq, results[9].conversation_seq), (6, 7));
    // Now the first attempt, too, is an entry that is stored.
    let again = save_at(world, &partition, 2, &longer[2..3]).await.remove(0);
    assert_eq!((again.outcome(), again.conversation_seq), (Duplicate, 6));
}

pub(super) async fn a_retry_of_a_stored_entry_is_not_a_redelivery(world: &World) {
    let (log, partition) = (log_with_rejections(), unused_partition());
    save_at(world, &partition, 0, &log).await;
    let stored = [0, 1, 6, 7, 8].map(|index| log[index].clone());
    // Retries in later records, alone and in a batch with redelivered records, and in another partition.
    let retries = save_at(world, &partition, 9, &stored).await;
    let mixed = [&log[..], &stored, &stored[1..]].concat();
    let mixed = save_at(world, &partition, 0, &mixed).await;
    let elsewhere = save_at(world, &unused_partition(), 0, &stored).await;
    for result in retries.iter().chain(&mixed[14..]).chain(&elsewhere) {
        assert_eq!((result.outcome(), result.is_redelivered), (Duplicate, false));
    }
    for result in mixed[..14].iter().filter(|result| result.outcome() != Rejected) {
        assert_eq!((result.outcome(), result.is_redelivered), (Duplicate, true));
    }
}

pub(super) async fn p1_each_save_raises_the_position_of_its_partition(world: &World) {
    let (one, other) = (unused_partition(), unused_partition());
    assert_eq!(start(world, &one, 500).await, Some(0), "the store lacks everything");
    assert_eq!(start(world, &one, 0).await, None);
    // A batch that creates its conversation, a batch for an existing one, a mixed one, and one without entries.
    save_at(world, &one, 0, &[message("d:a:b", "a", "1"), message("d:a:c", "a", "2")]).await;
    assert_eq!(start(world, &one, 500).await, Some(2));
    save_at(world, &one, 2, &[message("d:a:b", "a", "3")]).await;
    assert_eq!(start(world, &one, 500).await, Some(3));
    let group = change(GROUP, "a", "0", created(&[], HistoryVisibility::All));
    save_at(world, &one, 3, &[message("d:a:c", "a", "4"), group, message(GROUP, "eve", "5")]).await;
    assert_eq!(start(world, &one, 500).await, Some(6), "a rejected entry is decided");
    let poison = SaveRequest { next_offset: 9, app: String::new(), ..save_request_at(&one, 6, &[]) };
    world.client().save(poison).await.unwrap();
    assert_eq!(start(world, &one, 500).await, Some(9));
    let entries = [message("d:a:b", "a", "6"), message("d:a:c", "a", "7")];
    let gaps = SaveRequest { next_offset: 20, offsets: vec![1, 5], ..save_request_at(&one, 9, &entries) };
    world.client().save(gaps).await.unwrap();
    assert_eq!(start(world, &one, 500).await, Some(20));
    // Earlier parts do not lower it, and other partitions have their own.
    save_at(world, &one, 0, &[message("d:a:b", "a", "1"), message("d:a:c", "a", "2")]).await;
    assert_eq!(start(world, &one, 500).await, Some(20));
    assert_eq!(start(world, &one, 20).await, None);
    assert_eq!(start(world, &one, 10).await, None, "saved but not committed");
    assert_eq!(start(world, &other, 500).await, Some(0));
    // A batch that is refused as a whole decides nothing.
    let bad = Entry { sender: "a b".into(), ..message("d:a:b", "a", "9") };
    let refused = world.client().save(save_request_at(&one, 20, &[message("d:a:b", "a", "8"), bad])).await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
    assert_eq!(start(world, &one, 500).await, Some(20));
    let after_truncation = request(&one, Some(500), (50, 600));
    let found = world.client().find_start_offset(after_truncation).await.unwrap().into_inner();
    assert_eq!(found.offset, Some(50), "the log no longer has the records from 20 on");
    let results = save_at(world, &one, 50, &[message("d:a:b", "a", "10")]).await;
    assert_eq!(outcomes(&results), [Stored]);
}

pub(super) async fn p1_a_store_that_lost_entries_gets_them_again_with_the_same_numbers(world: &World) {
    let partition = unused_partition();
    let log: Vec<_> = (0..20).map(|n| message("d:a:b", "a", &n.to_string())).collect();
    let first = save_at(world, &partition, 0, &log[..12]).await;
    let second = save_at(world, &partition, 12, &log[12..]).await;
    assert_eq!(start(world, &partition, 20).await, None);
    // The state of a standby, or of a backup from before the second save.
    world.execute("DELETE FROM entries WHERE seq > 12").await;
    world.execute("UPDATE conversations SET head = 12, countable = 12, shown = 12 WHERE id = 'd:a:b'").await;
    world.execute("UPDATE members SET excluded = 12 WHERE user_id = 'a'").await;
    world.execute("UPDATE log_positions SET next_offset = 12 WHERE next_offset = 20").await;
    // Consumers that did not notice must not save later entries, whether to new conversations or to known ones.
    for conversation in ["d:a:b", "d:a:new"] {
        let later = save_request_at(&partition, 20, &[message(conversation, "a", "later")]);
        assert_eq!(code(world.client_of_reopened_store().save(later).await), ErrorCode::Conflict);
    }
    assert_eq!(start(world, &partition, 20).await, Some(12));
    let mut client = world.client_of_reopened_store();
    let request = save_request_at(&partition, 12, &log[12..]);
    let again = client.save(request).await.unwrap().into_inner().results;
    assert_eq!(outcomes(&again), vec![Stored; 8]);
    let seqs = |results: &[SaveResult]| results.iter().map(|r| r.conversation_seq).collect::<Vec<_>>();
    assert_eq!(seqs(&again), seqs(&second));
    let all = client.save(save_request_at(&partition, 0, &log)).await.unwrap().into_inner().results;
    assert_eq!(outcomes(&all), vec![Duplicate; 20]);
    assert_eq!(seqs(&first), (1..=12).collect::<Vec<_>>());
    assert_eq!(world.head("b", "d:a:b").await.unread, 20);
}

pub(super) async fn p1_entries_of_a_replaced_log_are_stored(world: &World) {
    let partition = unused_partition();
    let old: Vec<_> = (0..10).map(|n| message("d:a:b", "a", &format!("old {n}"))).collect();
    save_at(world, &partition, 0, &old).await;
    // A new topic, or a new cluster: the group has committed nothing in it.
    for (round, committed, end) in [(1, None, 30), (2, Some(2), 5)] {
        let found = world.client().find_start_offset(request(&partition, committed, (0, end))).await.unwrap();
        assert_eq!(found.into_inner().offset, None);
        let new: Vec<_> = (0..8).map(|n| message("d:a:b", "a", &format!("new {round}-{n}"))).collect();
        assert_eq!(outcomes(&save_at(world, &partition, 0, &new).await), vec![Stored; 8]);
    }
}

pub(super) async fn invalid_parts_of_the_log_are_refused(world: &World) {
    let valid = || save_request_at(&unused_partition(), 0, &[message("d:a:b", "a", "1")]);
    let invalid = [
        SaveRequest { topic: String::new(), ..valid() },
        SaveRequest { topic: "t".repeat(250), ..valid() },
        SaveRequest { partition: -1, ..valid() },
        SaveRequest { first_offset: -1, next_offset: 0, ..valid() },
        SaveRequest { next_offset: 0, ..valid() },
        SaveRequest { next_offset: 2, ..valid() },
        SaveRequest { offsets: vec![1], ..valid() },
        SaveRequest { offsets: vec![0, 0], next_offset: 9, ..valid() },
    ];
    for request in invalid {
        assert_eq!(code(world.client().save(request).await), ErrorCode::InvalidRequest);
    }
    let partition = unused_partition();
    for invalid in [
        FindStartOffsetRequest { topic: String::new(), ..request(&partition, None, (0, 1)) },
        request(&partition, Some(-1), (0, 1)),
        request(&partition, None, (2, 1)),
    ] {
        assert_eq!(code(world.client().find_start_offset(invalid).await), ErrorCode::InvalidRequest);
    }
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 0);
}
