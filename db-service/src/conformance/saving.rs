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

fn numbers(results: &[SaveResult]) -> Vec<(u64, u64)> {
    results.iter().map(|result| (result.conversation_seq, result.countable_seq)).collect()
}

fn outcomes(results: &[SaveResult]) -> Vec<SaveOutcome> {
    results.iter().map(SaveResult::outcome).collect()
}

pub(super) async fn p4_numbers_have_no_gaps_under_concurrent_saves_and_duplicates(world: &World) {
    const CONVERSATIONS: [&str; 3] = ["d:a:b", "d:a:c", "d:b:c"];
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let mut client = if writer % 2 == 0 { world.client() } else { world.other() };
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
    assert_eq!(world.number("SELECT count(*) FROM entries").await, 180);
    assert_eq!(
        world.number("SELECT count(*) FROM conversations WHERE head = 60 AND countable = 60").await,
        3
    );
    let numbered = "SELECT count(*) FROM (SELECT conversation FROM entries GROUP BY conversation
        HAVING min(seq) = 1 AND max(seq) = 60 AND count(*) = 60 AND sum(countable) = sum(seq)) AS numbered";
    assert_eq!(world.number(numbered).await, 3);
    assert_eq!(world.number("SELECT count(*) FROM members").await, 6);
}

pub(super) async fn p2_what_is_known_is_answered_with_its_number(world: &World) {
    let first = world.save(vec![message("d:a:b", "a", "1"), message("d:a:b", "a", "2")]).await;
    assert_eq!(numbers(&first), [(1, 1), (2, 2)]);
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
    assert_eq!(numbers(&again), [(3, 3), (2, 2), (3, 3), (4, 4)]);
    let page =
        world.history("b", GetHistory { conversation: "d:a:b".into(), after: 1, ..Default::default() }).await;
    let expected = Entry { conversation_seq: 2, countable_seq: 2, ..message("d:a:b", "a", "2") };
    assert_eq!(page.unwrap().entries[0], expected, "the first content wins, and comes back whole");
    assert_eq!(world.number("SELECT count(*) FROM entries").await, 4);
}

pub(super) async fn p3_a_batch_keeps_its_order_in_every_conversation(world: &World) {
    let ids: Vec<_> = (0..30).map(|n| (["d:a:b", "d:a:c", "d:a:d"][n % 3], n.to_string())).collect();
    let results = world.save(ids.iter().map(|(id, n)| message(id, "a", n)).collect()).await;
    let mut next = HashMap::new();
    for ((conversation, _), result) in ids.iter().zip(&results) {
        let seq = next.entry(conversation).or_insert(0);
        *seq += 1;
        assert_eq!(result.conversation_seq, *seq);
    }
}

pub(super) async fn p1_a_direct_message_is_in_the_tables_with_both_members(world: &World) {
    let mut client = world.client();
    let request = SaveRequest { entries: vec![message("d:alice:bob", "alice", "1")] };
    client.save(request).await.unwrap();
    client.sync(abi::v1::SyncRequest {}).await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM entries WHERE seq = 1 AND countable = 1").await, 1);
    assert_eq!(
        world
            .number(
                "SELECT count(*) FROM members WHERE id = 'd:alice:bob' AND visible_from = 1 AND read_seq = 0"
            )
            .await,
        2
    );
    assert_eq!(world.number("SELECT last_sent_at_ms FROM conversations").await, 1_700_000_000_000);
    world.store(message("d:alice:alice", "alice", "1")).await;
    assert_eq!(world.number("SELECT count(*) FROM members").await, 3);
}

pub(super) async fn a_message_to_no_group_is_rejected_and_stores_nothing(world: &World) {
    let batch = vec![message("d:a:b", "a", "1"), message("g:none", "a", "2"), message("d:a:b", "a", "3")];
    let results = world.save(batch).await;
    assert_eq!(outcomes(&results), [SaveOutcome::Stored, SaveOutcome::Rejected, SaveOutcome::Stored]);
    assert_eq!(results[1].error.as_ref().unwrap().code(), ErrorCode::NotFound);
    assert_eq!(numbers(&results), [(1, 1), (0, 0), (2, 2)]);
    assert_eq!(world.number("SELECT count(*) FROM conversations").await, 1);
}

pub(super) async fn what_the_log_would_refuse_is_refused(world: &World) {
    let spoil: [fn(&mut Entry); 7] = [
        |entry| entry.app.clear(),
        |entry| entry.conversation = "d:b:a".into(),
        |entry| entry.conversation = "nowhere".into(),
        |entry| entry.message_id = "x".into(),
        |entry| entry.sender = "a b".into(),
        |entry| entry.content = None,
        |entry| entry.sender = "\0".into(),
    ];
    for spoil in spoil {
        let mut bad = message("d:a:b", "a", "1");
        spoil(&mut bad);
        let request = SaveRequest { entries: vec![message("d:a:b", "a", "0"), bad] };
        assert_eq!(super::world::code(world.client().save(request).await), ErrorCode::InvalidRequest);
    }
    assert_eq!(world.number("SELECT count(*) FROM entries").await, 0);
}

pub(super) async fn p2_the_same_batch_from_two_instances_at_once_is_stored_once(world: &World) {
    world.users(&["b", "c"]).await;
    for round in 0..10 {
        let batch = || {
            let group = format!("g:{round}");
            let mut batch = vec![change(&group, "a", "0", created(&["b"], HistoryVisibility::All))];
            for n in 0..20 {
                batch.push(message(["d:a:b", "d:c:d", "d:e:f", &group][n % 4], "a", &format!("{round}-{n}")));
            }
            // The second instance meets the conversations in another order.
            if round % 2 == 0 { batch } else { batch.into_iter().rev().collect() }
        };
        let (mut first, mut second) = (world.client(), world.other());
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
    let twice =
        "SELECT count(*) FROM (SELECT 1 FROM entries GROUP BY message_id HAVING count(*) > 1) AS twice";
    assert_eq!(world.number(twice).await, 0);
    let gaps = "SELECT count(*) FROM conversations c WHERE head <> (SELECT count(*) FROM entries e
        WHERE e.conversation = c.key)";
    assert_eq!(world.number(gaps).await, 0);
}

pub(super) async fn p4_batches_that_cross_do_not_block_each_other(world: &World) {
    let mut writers = JoinSet::new();
    for writer in 0..8_usize {
        let mut client = if writer % 2 == 0 { world.client() } else { world.other() };
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
    assert_eq!(world.number("SELECT count(*) FROM conversations WHERE head = 80").await, 20);
}

pub(super) async fn p4_a_reader_never_sees_a_number_before_those_below_it(world: &World) {
    let mut writers = JoinSet::new();
    for (writer, mut client) in [world.client(), world.other()].into_iter().enumerate() {
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
    assert_eq!(world.number("SELECT count(*) FROM entries").await, 1_000);
    let request = SaveRequest { entries: vec![message("d:a:b", "a", "1"); 10_001] };
    assert_eq!(super::world::code(world.client().save(request).await), ErrorCode::InvalidRequest);
    assert_eq!(large(0).app, APP);
}
