use super::world::{APP, World, change, code, created, message};
use abi::{
    error::ErrorCode,
    v1::{
        GetHeads, GetHistory, GetMembersRequest, Head, HeadsRequest, HistoryPage, HistoryVisibility,
        MarkRead, MarkReadRequest, MarkReadResponse, entry::Content, message::Body,
    },
};

async fn save_messages(world: &World, conversation: &str, messages: usize) {
    let sender = conversation.split(':').nth(1).unwrap();
    let messages = (0..messages).map(|n| message(conversation, sender, &n.to_string()));
    world.save(messages.collect()).await;
}

fn page(conversation: &str) -> GetHistory {
    GetHistory { conversation: conversation.into(), ..Default::default() }
}

fn seqs(page: &HistoryPage) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.conversation_seq).collect()
}

async fn mark_read(world: &World, user: &str, conversation: &str, seq: u64) -> MarkReadResponse {
    world.client().mark_read(mark_read_request(user, conversation, seq)).await.unwrap().into_inner()
}

fn mark_read_request(user: &str, conversation: &str, conversation_seq: u64) -> MarkReadRequest {
    let read = Some(MarkRead { conversation: conversation.into(), conversation_seq });
    MarkReadRequest { app: APP.into(), user: user.into(), read }
}

pub(super) async fn p5_pages_in_both_directions_have_no_gaps_or_overlaps(world: &World) {
    save_messages(world, "d:a:b", 25).await;
    let (mut ascending, mut after) = (Vec::new(), 0);
    loop {
        let found = world.history("a", GetHistory { after, limit: 10, ..page("d:b:a") }).await.unwrap();
        ascending.extend(seqs(&found));
        after = *ascending.last().unwrap();
        if !found.more {
            break;
        }
        assert_eq!(found.entries.len(), 10);
    }
    assert_eq!(ascending, (1..=25).collect::<Vec<_>>());
    let (mut descending, mut before) = (Vec::new(), 0);
    loop {
        let page = GetHistory { before, newest: before == 0, limit: 5, ..page("d:a:b") };
        let found = world.history("b", page).await.unwrap();
        descending.extend(seqs(&found));
        before = *descending.last().unwrap();
        if !found.more {
            break;
        }
        assert_eq!(found.entries.len(), 5);
    }
    assert_eq!(
        descending,
        (1..=25).rev().collect::<Vec<_>>(),
        "the fifth page is full and reports that it is the last"
    );
    assert!(world.history("a", GetHistory { after: 25, ..page("d:a:b") }).await.unwrap().entries.is_empty());
    assert!(
        world.history("a", GetHistory { after: u64::MAX, ..page("d:a:b") }).await.unwrap().entries.is_empty()
    );
    assert_eq!(
        world.history("a", GetHistory { before: u64::MAX, ..page("d:a:b") }).await.unwrap().entries.len(),
        25
    );
}

pub(super) async fn p8_strangers_see_no_entries_and_not_which_conversations_exist(world: &World) {
    save_messages(world, "d:a:b", 1).await;
    world.store(change("g:1", "a", "0", created(&[], HistoryVisibility::All))).await;
    let mut answers = Vec::new();
    for conversation in ["d:a:b", "d:x:y", "g:1", "g:2"] {
        answers.push(world.history("eve", page(conversation)).await.unwrap_err());
        let marked = world.client().mark_read(mark_read_request("eve", conversation, 1)).await;
        assert_eq!(code(marked), ErrorCode::Forbidden);
    }
    assert!(answers.iter().all(|error| *error == answers[0] && error.code == ErrorCode::Forbidden));
}

pub(super) async fn the_history_of_an_empty_direct_conversation_is_an_empty_page(world: &World) {
    assert_eq!(world.history("a", page("d:b:a")).await.unwrap(), HistoryPage::default());
    assert_eq!(mark_read(world, "a", "d:a:b", 5).await, MarkReadResponse { read_seq: 0, moved: false });
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 0);
}

pub(super) async fn p7_a_page_is_bounded_in_bytes(world: &World) {
    let large = |n: usize| {
        let mut entry = message("d:a:b", "a", &n.to_string());
        let body = Some(Body::Data(vec![0; 300 << 10].into()));
        entry.content = Some(Content::Message(abi::v1::Message { content_type: String::new(), body }));
        entry
    };
    world.save((0..10).map(large).collect()).await;
    let found = world.history("a", GetHistory { limit: 500, ..page("d:a:b") }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![1, 2, 3], true));
    let found = world.history("a", GetHistory { after: 8, ..page("d:a:b") }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![9, 10], false));
    let newest = GetHistory { newest: true, limit: 500, ..page("d:a:b") };
    for (max_bytes, expected) in [(1, vec![10]), (700 << 10, vec![10, 9]), (u64::MAX, vec![10, 9, 8])] {
        let found = world.history_of("a", newest.clone(), max_bytes).await.unwrap();
        assert_eq!((seqs(&found), found.more), (expected, true), "at most {max_bytes} bytes");
    }
}

pub(super) async fn heads_are_ordered_and_paginated(world: &World) {
    for other in ["z", "m", "B", "b", "0", "a-", "a."] {
        save_messages(world, &abi::ids::direct("a", other), 1).await;
    }
    world.store(change("g:1", "a", "0", created(&[], HistoryVisibility::All))).await;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let found = world.heads("a", GetHeads { after, limit: 3 }).await;
        all.extend(found.heads.iter().map(|head| head.conversation.clone()));
        after = all.last().unwrap().clone();
        if !found.more {
            break;
        }
    }
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((all.len(), &all), (8, &sorted), "byte order, each once");
    let exact = world.heads("a", GetHeads { after: String::new(), limit: 8 }).await;
    assert!(!exact.more && exact.heads.len() == 8);
    assert!(world.heads("nobody", GetHeads::default()).await.heads.is_empty());
}

pub(super) async fn p5_the_unread_count_is_the_difference_of_two_seqs(world: &World) {
    world.users(&["b", "c"]).await;
    world.store(change("g:1", "a", "0", created(&["b"], HistoryVisibility::All))).await;
    world.store(message("g:1", "a", "1")).await;
    world.store(change("g:1", "a", "2", super::world::added(&["c"]))).await;
    world.store(message("g:1", "a", "3")).await;
    let head = || async { world.heads("b", GetHeads::default()).await.heads.remove(0) };
    let unread = |head: &Head| head.countable_seq - head.read_countable_seq;
    assert_eq!(unread(&head().await), 2, "group changes do not count as unread");
    for (seq, expected) in [(1, 2), (2, 1), (3, 1), (4, 0)] {
        assert_eq!(mark_read(world, "b", "g:1", seq).await, MarkReadResponse { read_seq: seq, moved: true });
        let head = head().await;
        assert_eq!((head.read_seq, unread(&head)), (seq, expected));
    }
    assert_eq!(world.heads("a", GetHeads::default()).await.heads[0].read_seq, 0, "positions are per user");
}

pub(super) async fn a_read_position_never_moves_back_or_past_the_last_entry(world: &World) {
    save_messages(world, "d:a:b", 10).await;
    assert_eq!(mark_read(world, "b", "d:a:b", 7).await, MarkReadResponse { read_seq: 7, moved: true });
    assert_eq!(mark_read(world, "b", "d:b:a", 3).await, MarkReadResponse { read_seq: 7, moved: false });
    assert_eq!(
        mark_read(world, "b", "d:a:b", u64::MAX).await,
        MarkReadResponse { read_seq: 10, moved: true }
    );
    assert_eq!(mark_read(world, "b", "d:a:b", 11).await, MarkReadResponse { read_seq: 10, moved: false });
    assert_eq!(world.query("SELECT read_countable FROM members WHERE read_seq = 10").await, 10);
}

pub(super) async fn the_members_of_a_direct_conversation_follow_from_its_id(world: &World) {
    for (id, expected) in [("d:b:a", vec!["a", "b"]), ("d:a:a", vec!["a"])] {
        let request = GetMembersRequest { app: APP.into(), conversation: id.into() };
        let members = world.client().get_members(request).await.unwrap().into_inner();
        assert_eq!(members.members.iter().map(|member| member.user.as_str()).collect::<Vec<_>>(), expected);
        assert!(members.members.iter().all(|member| member.visible_from == 1));
    }
}

pub(super) async fn invalid_pages_are_refused(world: &World) {
    let bad = [
        GetHistory { limit: -1, ..page("d:a:b") },
        GetHistory { limit: 501, ..page("d:a:b") },
        GetHistory { after: 1, before: 2, ..page("d:a:b") },
        GetHistory { after: 1, newest: true, ..page("d:a:b") },
        page("nowhere"),
        page("g:\0"),
    ];
    for bad in bad {
        assert_eq!(world.history("a", bad).await.unwrap_err().code, ErrorCode::InvalidRequest);
    }
    for (after, limit) in [("", -1), ("", 501), ("\0", 1)] {
        let page = Some(GetHeads { after: after.into(), limit });
        let request = HeadsRequest { app: APP.into(), user: "a".into(), page };
        assert_eq!(code(world.client().heads(request).await), ErrorCode::InvalidRequest);
    }
}
