use super::world::{APP, World, change, created, message, save};
use abi::{
    error::ErrorCode,
    v1::{
        Entry, GetHistory, HistoryVisibility, SaveOutcome, SaveRequest, SaveResult, entry::Content,
        message::Body,
    },
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
    const CONVERSATIONS: [&str; 3] = ["d:a:b", "d:a:c", "d:b:c"];
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
    other_text.content = Some(Content::Message(abi::v1::Message {
        content_type: String::new(),
        body: Some(Body::Text("x".into())),
    }));
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
    let request = SaveRequest { entries: vec![message("d:alice:bob", "alice", "1")] };
    client.save(request).await.unwrap();
    client.sync(abi::v1::SyncRequest {}).await.unwrap();
    assert_eq!(world.query("SELECT count(*) FROM entries WHERE seq = 1 AND countable = 1").await, 1);
    assert_eq!(
        world
            .query(
                "SELECT count(*) FROM members WHERE id = 'd:alice:bob' AND visible_from = 1 AND read_seq = 0"
            )
            .await,
        2
    );
    assert_eq!(world.query("SELECT last_sent_at_ms FROM conversations").await, 1_700_000_000_000);
    world.store(message("d:alice:alice", "alice", "1")).await;
    assert_eq!(world.query("SELECT count(*) FROM members").await, 3);
}

pub(super) async fn a_message_to_a_missing_group_is_rejected_and_not_stored(world: &World) {
    let batch = vec![message("d:a:b", "a", "1"), message("g:none", "a", "2"), message("d:a:b", "a", "3")];
    let results = world.save(batch).await;
    assert_eq!(outcomes(&results), [SaveOutcome::Stored, SaveOutcome::Rejected, SaveOutcome::Stored]);
    assert_eq!(results[1].error.as_ref().unwrap().code(), ErrorCode::NotFound);
    assert_eq!(seqs(&results), [(1, 1), (0, 0), (2, 2)]);
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 1);
}

pub(super) async fn entries_that_the_log_decoder_refuses_are_refused(world: &World) {
    let invalidations: [fn(&mut Entry); 7] = [
        |entry| entry.app.clear(),
        |entry| entry.conversation = "d:b:a".into(),
        |entry| entry.conversation = "nowhere".into(),
        |entry| entry.message_id = "x".into(),
        |entry| entry.sender = "a b".into(),
        |entry| entry.content = None,
        |entry| entry.sender = "\0".into(),
    ];
    for invalidate in invalidations {
        let mut bad = message("d:a:b", "a", "1");
        invalidate(&mut bad);
        let request = SaveRequest { entries: vec![message("d:a:b", "a", "0"), bad] };
        assert_eq!(super::world::code(world.client().save(request).await), ErrorCode::InvalidRequest);
    }
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 0);
}

pub(super) async fn p2_a_batch_saved_by_two_instances_at_once_is_stored_once(world: &World) {
    world.users(&["b", "c"]).await;
    for round in 0..10 {
        let batch = || {
            let group = format!("g:{round}");
            let mut batch = vec![change(&group, "a", "0", created(&["b"], HistoryVisibility::All))];
            for n in 0..20 {
                batch.push(message(["d:a:b", "d:c:d", "d:e:f", &group][n % 4], "a", &format!("{round}-{n}")));
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
        entry.content = Some(Content::Message(abi::v1::Message {
            content_type: String::new(),
            body: Some(Body::Text(text.clone())),
        }));
        entry
    };
    assert_eq!(world.save((0..1_000).map(large).collect()).await.len(), 1_000);
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 1_000);
    let request = SaveRequest { entries: vec![message("d:a:b", "a", "1"); 10_001] };
    assert_eq!(super::world::code(world.client().save(request).await), ErrorCode::InvalidRequest);
    assert_eq!(large(0).app, APP);
}
