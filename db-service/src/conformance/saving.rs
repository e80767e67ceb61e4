use super::{
    changes::{edit, reaction, recall, reply},
    world::{
        APP, SENT_AT_MS, World, added, change, code, created, message, removed, save, save_request, text,
    },
};
use abi::{
    error::ErrorCode,
    v1::{Entry, GetHistory, HistoryVisibility, SaveOutcome, SaveRequest, SaveResult},
};
use std::collections::HashMap;
use tokio::task::JoinSet;

fn seqs(results: &[SaveResult]) -> Vec<(u64, u64)> {
    results.iter().map(|result| (result.conversation_seq, result.countable_seq)).collect()
}

fn outcomes(results: &[SaveResult]) -> Vec<SaveOutcome> {
    results.iter().map(SaveResult::outcome).collect()
}

pub(super) async fn p4_concurrent_saves_and_duplicates_leave_no_gaps(world: &World) {
    const CONVERSATIONS: [&str; 3] = ["d:a:b", "d:a:c", "d:a:d"];
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let mut client = if writer % 2 == 0 { world.client() } else { world.other_client() };
        writers.spawn(async move {
            for round in 0..10 {
                // Writers 0 and 1, 2 and 3, ... save the same messages.
                let id = |n| format!("{}-{round}-{n}", writer / 2);
                let entries = (0..6).map(|n| message(CONVERSATIONS[n % 3], "a", &id(n))).collect();
                let results = save(&mut client, entries).await;
                assert!(results.iter().all(|result| result.conversation_seq > 0));
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 180);
    assert_eq!(world.query("SELECT count(*) FROM conversations WHERE head = 60 AND countable = 60").await, 3);
    let gapless = "SELECT count(*) FROM (SELECT conversation FROM entries GROUP BY conversation
        HAVING min(seq) = 1 AND max(seq) = 60 AND count(*) = 60 AND sum(countable) = sum(seq)) AS numbered";
    assert_eq!(world.query(gapless).await, 3);
    assert_eq!(world.query("SELECT count(*) FROM members").await, 6);
}

pub(super) async fn p2_a_duplicate_returns_the_seqs_of_the_stored_entry(world: &World) {
    let first = world.save(vec![message("d:a:b", "a", "1"), message("d:a:b", "a", "2")]).await;
    assert_eq!(seqs(&first), [(1, 1), (2, 2)]);
    let mut other_text = message("d:a:b", "a", "2");
    other_text.content = text("x");
    let batch =
        vec![message("d:a:b", "a", "3"), other_text, message("d:a:b", "a", "3"), message("d:a:b", "b", "3")];
    let again = world.save(batch).await;
    use SaveOutcome::{Duplicate, Stored};
    assert_eq!(outcomes(&again), [Stored, Duplicate, Duplicate, Stored]);
    assert_eq!(seqs(&again), [(3, 3), (2, 2), (3, 3), (4, 4)]);
    let page =
        world.history("b", GetHistory { conversation: "d:a:b".into(), after: 1, ..Default::default() }).await;
    let expected = Entry { conversation_seq: 2, countable_seq: 2, ..message("d:a:b", "a", "2") };
    assert_eq!(page.unwrap().entries[0], expected, "the first content wins, and is returned unchanged");
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 4);
}

pub(super) async fn p3_a_batch_is_stored_in_order_in_each_conversation(world: &World) {
    let ids: Vec<_> = (0..30).map(|n| (["d:a:b", "d:a:c", "d:a:d"][n % 3], n.to_string())).collect();
    let results = world.save(ids.iter().map(|(id, n)| message(id, "a", n)).collect()).await;
    let mut next = HashMap::new();
    for ((conversation, _), result) in ids.iter().zip(&results) {
        let seq = next.entry(conversation).or_insert(0);
        *seq += 1;
        assert_eq!(result.conversation_seq, *seq);
    }
}

pub(super) async fn p1_a_direct_message_is_stored_with_both_members(world: &World) {
    let mut client = world.client();
    client.save(save_request(&[message("d:alice:bob", "alice", "1")])).await.unwrap();
    client.sync(abi::v1::SyncRequest {}).await.unwrap();
    assert_eq!(world.query("SELECT count(*) FROM entries WHERE seq = 1 AND countable = 1").await, 1);
    let members = "SELECT count(*) FROM members WHERE visible_from = 1 AND read_seq = 0 AND role = 1";
    assert_eq!(world.query(members).await, 2);
    let unread = "SELECT count(*) FROM members WHERE excluded = CASE user_id WHEN 'alice' THEN 1 ELSE 0 END";
    assert_eq!(world.query(unread).await, 2, "the own message does not count as unread");
    assert_eq!(world.query("SELECT last_sent_at_ms FROM conversations").await, 1_700_000_000_000);
    world.store(message("d:alice:alice", "alice", "1")).await;
    assert_eq!(world.query("SELECT count(*) FROM members").await, 3);
}

pub(super) async fn p8_a_message_of_an_outsider_or_to_no_group_is_rejected_and_not_stored(world: &World) {
    world.store(change("g:1", "a", "0", created(&["b"], HistoryVisibility::All))).await;
    let batch = vec![
        message("d:a:b", "a", "1"),
        message("g:none", "a", "2"),
        message("d:x:y", "a", "3"),
        message("g:1", "eve", "4"),
        message("g:1", "b", "5"),
        message("d:a:b", "a", "6"),
    ];
    // Once as a mixed batch that creates a conversation, and once as a batch for existing ones.
    for round in 0..2 {
        let results = world.save(batch.clone()).await;
        use SaveOutcome::{Duplicate, Rejected, Stored};
        let fine = if round == 0 { Stored } else { Duplicate };
        assert_eq!(outcomes(&results), [fine, Rejected, Rejected, Rejected, fine, fine]);
        assert_eq!(seqs(&results), [(1, 1), (0, 0), (0, 0), (0, 0), (2, 1), (2, 2)]);
        let code = |n: usize| results[n].error.as_ref().unwrap().code();
        assert_eq!([1, 2, 3].map(code), [ErrorCode::NotFound, ErrorCode::Forbidden, ErrorCode::Forbidden]);
    }
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 2);
    // A message is a duplicate even if its sender was removed since.
    world.store(change("g:1", "a", "7", removed(&["b"]))).await;
    let results = world.save(vec![message("g:1", "b", "5"), message("g:1", "b", "8")]).await;
    assert_eq!(outcomes(&results), [SaveOutcome::Duplicate, SaveOutcome::Rejected]);
    assert_eq!(seqs(&results), [(2, 1), (0, 0)]);
}

pub(super) async fn entries_that_the_log_decoder_refuses_are_refused(world: &World) {
    let invalidations: [fn(&mut Entry); 7] = [
        |entry| entry.conversation = "d:b:a".into(),
        |entry| entry.conversation = "nowhere".into(),
        |entry| entry.message_id = "x".into(),
        |entry| entry.sender = "a b".into(),
        |entry| entry.kind.clear(),
        |entry| entry.refers_to = "x".into(),
        |entry| entry.sender = "\0".into(),
    ];
    for invalidate in invalidations {
        let mut bad = message("d:a:b", "a", "1");
        invalidate(&mut bad);
        let request = save_request(&[message("d:a:b", "a", "0"), bad]);
        assert_eq!(code(world.client().save(request).await), ErrorCode::InvalidRequest);
    }
    let request = SaveRequest { app: String::new(), ..save_request(&[message("d:a:b", "a", "0")]) };
    assert_eq!(code(world.client().save(request).await), ErrorCode::InvalidRequest);
    let request =
        SaveRequest { entries: vec![vec![0xff].into()], ..save_request(&[message("d:a:b", "a", "0")]) };
    assert_eq!(code(world.client().save(request).await), ErrorCode::InvalidRequest);
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 0);
}

pub(super) async fn p1_an_entry_of_a_later_version_is_stored_byte_for_byte(world: &World) {
    use prost::Message as _;
    let later = |id: &str, kind: &str, countable| {
        let mut bytes = Entry { kind: kind.into(), countable, ..message("d:a:b", "a", id) }.encode_to_vec();
        // Field 500, which this version does not know.
        bytes.extend([0xa2, 0x1f, 3, 1, 2, 3]);
        prost::bytes::Bytes::from(bytes)
    };
    let entries =
        vec![later("1", "hologram", true), later("2", "acme.order", false), later("3", "message", true)];
    let known = [message("d:a:b", "a", "1"), message("d:a:b", "a", "2"), message("d:a:b", "a", "3")];
    let request = SaveRequest { entries: entries.clone(), ..save_request(&known) };
    let results = world.client().save(request).await.unwrap().into_inner().results;
    assert_eq!(seqs(&results), [(1, 1), (2, 1), (3, 2)]);
    let request = abi::v1::HistoryRequest {
        app: APP.into(),
        user: "b".into(),
        page: Some(GetHistory { conversation: "d:a:b".into(), ..GetHistory::default() }),
        ..abi::v1::HistoryRequest::default()
    };
    let page = world.client().history(request).await.unwrap().into_inner();
    for (entry, read) in entries.iter().zip(&page.entries) {
        let kept = abi::envelope::without(entry, &[1, 2]).unwrap();
        assert!(read.windows(kept.len()).any(|window| *window == kept), "{read:?}");
    }
    assert_eq!(world.query("SELECT count(*) FROM entries WHERE kind IS NULL").await, 1);
}

pub(super) async fn a_reply_is_stored_with_the_seq_of_its_target(world: &World) {
    let first = message("d:a:b", "a", "1");
    let lost = message("d:a:b", "a", "lost");
    let (second, third, unknown) = (reply(&first, "b", "2"), reply(&first, "a", "3"), reply(&lost, "b", "4"));
    let early = reply(&message("d:a:b", "b", "6"), "a", "5");
    // In one batch, then again, then in a batch of its own.
    let batch = vec![first.clone(), second.clone(), unknown, early, message("d:a:b", "b", "6")];
    for _ in 0..2 {
        let results = world.save(batch.clone()).await;
        assert_eq!(seqs(&results), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
        let targets: Vec<_> = results.iter().map(|result| result.refers_to_seq).collect();
        assert_eq!(targets, [0, 1, 0, 0, 0], "a reply refers to an earlier entry");
    }
    assert_eq!(world.store(third).await.refers_to_seq, 1);
    let entries = world.entries("b", "d:a:b").await;
    assert_eq!(entries.iter().map(|entry| entry.refers_to_seq).collect::<Vec<_>>(), [0, 1, 0, 0, 0, 1]);
}

pub(super) async fn a_first_entry_that_changes_nothing_creates_a_direct_conversation(world: &World) {
    let unknown = message("d:a:b", "a", "lost");
    for change in
        [edit(&unknown, "a", "1"), recall(&unknown, "a", "2"), reaction(&unknown, "b", "3", &["+1"])]
    {
        assert_eq!(world.reject(change).await, ErrorCode::NotFound);
    }
    assert_eq!(world.reject(edit(&unknown, "eve", "4")).await, ErrorCode::Forbidden);
    assert_eq!(world.reject(change("d:a:b", "a", "5", added(&["c"]))).await, ErrorCode::InvalidRequest);
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 0);
    let order = Entry { kind: "acme.order".into(), countable: false, ..message("d:a:b", "a", "6") };
    assert_eq!(seqs(&[world.store(order).await]), [(1, 0)]);
    assert_eq!(world.query("SELECT shown * 10 + countable FROM conversations").await, 10);
    assert_eq!(world.query("SELECT max(last_sent_at_ms) FROM conversations").await, SENT_AT_MS);
}

pub(super) async fn p2_a_batch_saved_by_two_instances_at_once_is_stored_once(world: &World) {
    world.users(&["b", "c"]).await;
    for round in 0..10 {
        let batch = || {
            let group = format!("g:{round}");
            let mut batch = vec![change(&group, "a", "0", created(&["b"], HistoryVisibility::All))];
            for n in 0..20 {
                batch.push(message(["d:a:b", "d:a:c", "d:a:d", &group][n % 4], "a", &format!("{round}-{n}")));
            }
            // In odd rounds the order is reversed, so the group is created last.
            if round % 2 == 0 { batch } else { batch.into_iter().rev().collect() }
        };
        let (mut first, mut second) = (world.client(), world.other_client());
        let mut reversed = batch();
        reversed[1..].reverse();
        let (one, two) = tokio::join!(save(&mut first, batch()), save(&mut second, reversed));
        let stored = |results: &[SaveResult]| {
            results.iter().filter(|result| result.outcome() == SaveOutcome::Stored).count()
        };
        if round % 2 == 0 {
            assert_eq!(stored(&one) + stored(&two), 21);
        }
    }
    let duplicates =
        "SELECT count(*) FROM (SELECT 1 FROM entries GROUP BY message_id HAVING count(*) > 1) AS twice";
    assert_eq!(world.query(duplicates).await, 0);
    let gaps = "SELECT count(*) FROM conversations c WHERE head <> (SELECT count(*) FROM entries e
        WHERE e.conversation = c.key)";
    assert_eq!(world.query(gaps).await, 0);
}

pub(super) async fn p4_batches_in_opposite_order_do_not_deadlock(world: &World) {
    let mut writers = JoinSet::new();
    for writer in 0..8_usize {
        let mut client = if writer % 2 == 0 { world.client() } else { world.other_client() };
        writers.spawn(async move {
            for round in 0..10 {
                let entries = (0..20).map(|n| {
                    let n = if writer % 2 == 0 { n } else { 19 - n };
                    message(&format!("d:u{n}:v"), "v", &format!("{writer}-{round}"))
                });
                save(&mut client, entries.collect()).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.query("SELECT count(*) FROM conversations WHERE head = 80").await, 20);
}

pub(super) async fn p4_a_reader_never_sees_an_entry_without_all_earlier_ones(world: &World) {
    let mut writers = JoinSet::new();
    for (writer, mut client) in [world.client(), world.other_client()].into_iter().enumerate() {
        writers.spawn(async move {
            for round in 0..40 {
                let entries = (0..5).map(|n| message("d:a:b", "a", &format!("{writer}-{round}-{n}")));
                save(&mut client, entries.collect()).await;
            }
        });
    }
    let mut seen = 0;
    while seen < 400 {
        let page = GetHistory { conversation: "d:a:b".into(), after: seen, limit: 500, ..Default::default() };
        for entry in world.history("a", page).await.unwrap().entries {
            assert_eq!(entry.conversation_seq, seen + 1);
            seen = entry.conversation_seq;
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
}

pub(super) async fn a_large_batch_is_stored(world: &World) {
    let text = "x".repeat(16 << 10);
    let large = |n: usize| {
        let mut entry = message("d:a:b", "a", &n.to_string());
        entry.content = super::world::text(&text);
        entry
    };
    assert_eq!(world.save((0..1_000).map(large).collect()).await.len(), 1_000);
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 1_000);
    let request = save_request(&vec![message("d:a:b", "a", "1"); 10_001]);
    assert_eq!(code(world.client().save(request).await), ErrorCode::InvalidRequest);
}
