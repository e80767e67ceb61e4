use super::world::{World, added, change, code, created, left, marks, message, message_id, reaction, recall};
use abi::{
    error::ErrorCode,
    v1::{Content, HistoryVisibility, Reader, Readers, content::Body},
};

pub(super) async fn heads_are_listed_by_their_last_entry_and_paginated(world: &World) {
    let sent_at = |conversation: &str, sent_at_ms| {
        let sender = conversation.split(':').nth(1).unwrap();
        abi::v1::Entry { sent_at_ms, ..message(conversation, sender, "x") }
    };
    // Equal times are ordered by id.
    let times = [("z", 5), ("m", 9), ("B", 5), ("b", 7), ("0", 5), ("a-", 8), ("a.", 5)];
    for (other, time) in times {
        world.store(sent_at(&abi::ids::direct("a", other), time)).await;
    }
    let expected = ["d:a:m", "d:a:a-", "d:a:b", "d:0:a", "d:B:a", "d:a:a.", "d:a:z"];
    for limit in [1, 2, 3, 7, 100] {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let (heads, next) = world.heads("a", &cursor, limit).await;
            assert!(i32::try_from(heads.len()).unwrap() <= limit);
            all.extend(heads.into_iter().map(|head| (head.conversation, head.last_sent_at_ms)));
            if next.is_empty() {
                break;
            }
            cursor = next;
        }
        assert_eq!(all.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), expected, "limit {limit}");
        assert!(all.is_sorted_by(|a, b| a.1 >= b.1));
    }
    // A reaction is not shown, so it does not move the conversation.
    let target = message_id("d:0:a", "0", "x");
    world.store(reaction("d:0:a", "a", "y", &target, &["+1"])).await;
    assert_eq!(world.heads("a", "", 1).await.0[0].conversation, "d:a:m");
    assert_eq!(world.heads("nobody", "", 10).await, (Vec::new(), String::new()));
    let named = world.heads_of("a", &["d:z:a", "g:none", "d:a:m", "d:x:y"]).await;
    let names: Vec<_> = named.iter().map(|head| head.conversation.as_str()).collect();
    assert_eq!(names, ["d:a:z", "d:a:m"], "in the order of the request");
}

pub(super) async fn p7_a_page_of_heads_is_bounded_in_bytes(world: &World) {
    for n in 0..6 {
        let mut large = message(&abi::ids::direct("a", &format!("u{n}")), "a", "1");
        let body = Some(Body::Data(vec![0; 300 << 10].into()));
        large.content = Some(Content { content_type: String::new(), body });
        world.store(large).await;
    }
    let (first, cursor) = world.heads("a", "", 100).await;
    let (second, end) = world.heads("a", &cursor, 100).await;
    assert_eq!((first.len(), second.len(), end.as_str()), (3, 3, ""));
    assert_eq!((first[2].conversation.as_str(), second[0].conversation.as_str()), ("d:a:u2", "d:a:u3"));
}

pub(super) async fn p5_own_and_recalled_messages_do_not_count_as_unread(world: &World) {
    world.users(&["b", "c"]).await;
    let group = "g:1";
    world.store(change(group, "a", "0", created(&["b"], HistoryVisibility::All))).await;
    world.store(message(group, "a", "1")).await;
    world.store(change(group, "a", "2", added(&["c"]))).await;
    world.store_all([message(group, "a", "3"), message(group, "b", "4"), message(group, "a", "5")]).await;
    assert_eq!(world.head("b", group).await.unread, 3);
    assert_eq!(world.head("a", group).await.unread, 1);
    world.store(recall(group, "a", "6", &message_id(group, "a", "3"))).await;
    assert_eq!(world.head("b", group).await.unread, 2);
    for (seq, unread) in [(1, 2), (2, 1), (4, 1), (5, 1), (6, 0), (7, 0)] {
        let marked = world.mark_read("b", group, seq).await.position.unwrap();
        assert_eq!((marked.read_seq, marked.unread, marked.countable_seq), (seq, unread, 4), "{seq}");
        assert_eq!(world.head("b", group).await.unread, unread);
    }
    assert_eq!(world.head("a", group).await.read_seq, 0, "positions are per user");
    // A recall of what is read changes nothing.
    world.store(recall(group, "a", "7", &message_id(group, "a", "5"))).await;
    world.store(message(group, "a", "8")).await;
    assert_eq!(world.head("b", group).await.unread, 1);
}

pub(super) async fn a_read_position_never_moves_back_or_past_the_last_entry(world: &World) {
    world.save_messages("d:a:b", 10).await;
    for (mark, previous, position) in [(7, 0, 7), (3, 7, 7), (u64::MAX, 7, 10), (11, 10, 10)] {
        let marked = world.mark_read("b", "d:b:a", mark).await;
        assert_eq!(marked.previous_seq, previous, "{mark}");
        let found = marked.position.unwrap();
        assert_eq!((found.read_seq, found.unread), (position, 10 - position), "{mark}");
        assert_eq!(marked.authors.is_empty(), previous == position, "{mark}");
    }
    assert_eq!(world.query("SELECT read_countable FROM members WHERE read_seq = 10").await, 10);
}

pub(super) async fn a_batch_marks_many_conversations_of_many_users(world: &World) {
    world.save_messages("d:a:b", 3).await;
    world.save_messages("d:a:c", 2).await;
    let request = marks(&[
        ("b", "d:b:a", 2),
        ("eve", "d:a:b", 1),
        ("c", "d:a:c", 9),
        ("a", "d:a:b", 3),
        ("x", "d:x:y", 1),
    ]);
    let marked = world.client().mark_read(request).await.unwrap().into_inner().marked;
    let position = |index: usize| {
        let position = marked[index].position.clone().unwrap();
        (position.conversation, position.read_seq, position.unread)
    };
    assert_eq!(position(0), ("d:a:b".into(), 2, 1));
    assert_eq!(marked[0].authors, ["a"]);
    assert_eq!(marked[1].error.as_ref().unwrap().code(), ErrorCode::Forbidden);
    assert_eq!(position(2), ("d:a:c".into(), 2, 0));
    assert_eq!(position(3), ("d:a:b".into(), 3, 0));
    assert!(marked[3].authors.is_empty(), "nobody gets a receipt for their own messages");
    assert_eq!(position(4), ("d:x:y".into(), 0, 0));
    for invalid in [
        marks(&[("b", "d:a:b", 1), ("b", "d:b:a", 2)]),
        marks(&[("b", "nowhere", 1)]),
        marks(&[("", "d:a:b", 1)]),
    ] {
        assert_eq!(code(world.client().mark_read(invalid).await), ErrorCode::InvalidRequest);
    }
    assert!(world.client().mark_read(marks(&[])).await.unwrap().into_inner().marked.is_empty());
}

pub(super) async fn receipts_go_to_the_authors_in_groups_up_to_a_size(world: &World) {
    world.users(&["b", "c", "d", "e"]).await;
    let group = "g:1";
    world.store(change(group, "a", "0", created(&["b", "c", "d"], HistoryVisibility::All))).await;
    world.store_all([message(group, "b", "1"), message(group, "a", "2"), message(group, "c", "3")]).await;
    world.store(reaction(group, "c", "4", &message_id(group, "a", "2"), &["+1"])).await;
    world.store(change(group, "c", "5", left())).await;
    assert_eq!(world.mark_read("d", group, 6).await.authors, ["a", "b"], "those who are still members");
    let head = world.head("a", group).await;
    assert_eq!((head.read_by_any_seq, head.read_by_all_seq), (6, 0));
    world.mark_read("b", group, 4).await;
    let head = world.head("a", group).await;
    assert_eq!((head.read_by_any_seq, head.read_by_all_seq), (6, 4));
    assert_eq!(world.head("d", group).await.read_by_all_seq, 0, "the caller's own position does not count");
    world.store(change(group, "a", "6", added(&["c", "e"]))).await;
    world.store(message(group, "a", "7")).await;
    let marked = world.mark_read("d", group, 8).await;
    assert_eq!(
        (marked.position.unwrap().read_seq, marked.authors.len()),
        (8, 0),
        "five members are too many"
    );
    let head = world.head("a", group).await;
    assert_eq!((head.read_by_any_seq, head.read_by_all_seq), (0, 0));
    let alone = message("d:a:a", "a", "1");
    world.store(alone).await;
    assert_eq!(world.head("a", "d:a:a").await.read_by_all_seq, 0);
}

pub(super) async fn readers_are_the_members_who_can_see_the_entry(world: &World) {
    world.users(&["b", "c", "d", "e"]).await;
    let group = "g:1";
    world.store(change(group, "a", "0", created(&["b", "c", "d"], HistoryVisibility::FromJoin))).await;
    world.store(message(group, "b", "1")).await;
    world.store(change(group, "a", "2", added(&["e"]))).await;
    world.store(change(group, "d", "3", left())).await;
    world.mark_read("c", group, 2).await;
    world.mark_read("a", group, 1).await;
    let reader = |user: &str, has_read| Reader { user: user.into(), has_read };
    let found = world.readers_after("a", group, 2, "", 2).await.unwrap();
    assert_eq!(found, Readers { readers: vec![reader("a", false), reader("c", true)], more: false });
    let found = world.readers_after("a", group, 3, "", 2).await.unwrap();
    assert_eq!(found, Readers { readers: vec![reader("b", false), reader("c", false)], more: true });
    let found = world.readers_after("a", group, 3, "c", 2).await.unwrap();
    assert_eq!(found, Readers { readers: vec![reader("e", false)], more: false });
    assert_eq!(
        world.readers_after("e", group, 2, "", 2).await.unwrap_err().code,
        ErrorCode::NotFound,
        "e can't see the entry"
    );
    assert_eq!(world.readers_after("a", group, 9, "", 2).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(
        world.readers_after("a", group, 2, "\0", 2).await.unwrap_err().code,
        ErrorCode::InvalidRequest
    );
}

pub(super) async fn p4_unread_counts_are_exact_under_concurrent_changes(world: &World) {
    let conversation = "d:a:b";
    world.save_messages(conversation, 5).await;
    let mut writers = tokio::task::JoinSet::new();
    for (writer, sender) in ["a", "b", "a"].into_iter().enumerate() {
        let mut client = if writer == 2 { world.other_client() } else { world.client() };
        writers.spawn(async move {
            for n in 0..30 {
                let id = format!("{writer}-{n}");
                let mut entries = vec![message(conversation, sender, &id)];
                if n % 3 == 0 {
                    let target = message_id(conversation, sender, &id);
                    entries.push(recall(conversation, sender, &format!("recall {id}"), &target));
                }
                super::world::save(&mut client, entries).await;
            }
        });
    }
    for (user, mut client) in [("a", world.client()), ("b", world.other_client()), ("b", world.client())] {
        writers.spawn(async move {
            for seq in (1..100).step_by(4) {
                client.mark_read(marks(&[(user, conversation, seq)])).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    // The marks may have overtaken the messages, and a read position ends at the last entry.
    for (user, marked) in [("a", None), ("b", None), ("a", Some(97)), ("b", Some(97))] {
        if let Some(seq) = marked {
            world.mark_read(user, conversation, seq).await;
        }
        let entries = world.entries(user, conversation).await;
        let head = world.head(user, conversation).await;
        let unread = entries.iter().filter(|entry| {
            entry.conversation_seq > head.read_seq
                && entry.countable
                && entry.sender != user
                && entry.state.as_ref().is_none_or(|state| state.recalled_by.is_empty())
        });
        let read_seq = marked.unwrap_or(head.read_seq);
        assert_eq!((head.read_seq, head.unread), (read_seq, unread.count() as u64), "{user}");
    }
}
