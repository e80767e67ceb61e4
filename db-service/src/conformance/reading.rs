use super::world::{APP, World, change, code, created, message};
use abi::{
    error::ErrorCode,
    v1::{
        GetHeads, GetHistory, GetMembersRequest, Head, HeadsRequest, HistoryPage, HistoryVisibility,
        MarkRead, MarkReadRequest, MarkReadResponse, entry::Content, message::Body,
    },
};

async fn talk(world: &World, conversation: &str, messages: usize) {
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

async fn mark(world: &World, user: &str, conversation: &str, seq: u64) -> MarkReadResponse {
    world.client().mark_read(marking(user, conversation, seq)).await.unwrap().into_inner()
}

fn marking(user: &str, conversation: &str, conversation_seq: u64) -> MarkReadRequest {
    let read = Some(MarkRead { conversation: conversation.into(), conversation_seq });
    MarkReadRequest { app: APP.into(), user: user.into(), read }
}

pub(super) async fn p5_pages_go_both_ways_and_meet_without_gap_or_overlap(world: &World) {
    talk(world, "d:a:b", 25).await;
    let (mut up, mut after) = (Vec::new(), 0);
    loop {
        let found = world.history("a", GetHistory { after, limit: 10, ..page("d:b:a") }).await.unwrap();
        up.extend(seqs(&found));
        after = *up.last().unwrap();
        if !found.more {
            break;
        }
        assert_eq!(found.entries.len(), 10);
    }
    assert_eq!(up, (1..=25).collect::<Vec<_>>());
    let (mut down, mut before) = (Vec::new(), 0);
    loop {
        let asked = GetHistory { before, newest: before == 0, limit: 5, ..page("d:a:b") };
        let found = world.history("b", asked).await.unwrap();
        down.extend(seqs(&found));
        before = *down.last().unwrap();
        if !found.more {
            break;
        }
        assert_eq!(found.entries.len(), 5);
    }
    assert_eq!(
        down,
        (1..=25).rev().collect::<Vec<_>>(),
        "and the fifth page, though full, says that it is the last"
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

pub(super) async fn p8_strangers_see_nothing_and_do_not_learn_what_exists(world: &World) {
    talk(world, "d:a:b", 1).await;
    world.store(change("g:1", "a", "0", created(&[], HistoryVisibility::All))).await;
    let mut answers = Vec::new();
    for conversation in ["d:a:b", "d:x:y", "g:1", "g:2"] {
        answers.push(world.history("eve", page(conversation)).await.unwrap_err());
        let marked = world.client().mark_read(marking("eve", conversation, 1)).await;
        assert_eq!(code(marked), ErrorCode::Forbidden);
    }
    assert!(answers.iter().all(|fault| *fault == answers[0] && fault.code == ErrorCode::Forbidden));
}

pub(super) async fn an_empty_direct_conversation_is_an_empty_page(world: &World) {
    assert_eq!(world.history("a", page("d:b:a")).await.unwrap(), HistoryPage::default());
    assert_eq!(mark(world, "a", "d:a:b", 5).await, MarkReadResponse { read_seq: 0, moved: false });
    assert_eq!(world.number("SELECT count(*) FROM conversations").await, 0);
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
}

pub(super) async fn heads_come_in_order_and_in_pages(world: &World) {
    for other in ["z", "m", "B", "b", "0", "a-", "a."] {
        talk(world, &abi::ids::direct("a", other), 1).await;
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

pub(super) async fn p5_unread_is_a_subtraction(world: &World) {
    world.users(&["b", "c"]).await;
    world.store(change("g:1", "a", "0", created(&["b"], HistoryVisibility::All))).await;
    world.store(message("g:1", "a", "1")).await;
    world.store(change("g:1", "a", "2", super::world::added(&["c"]))).await;
    world.store(message("g:1", "a", "3")).await;
    let head = || async { world.heads("b", GetHeads::default()).await.heads.remove(0) };
    let unread = |head: &Head| head.countable_seq - head.read_countable_seq;
    assert_eq!(unread(&head().await), 2, "changes of the group don't count");
    for (seq, expected) in [(1, 2), (2, 1), (3, 1), (4, 0)] {
        assert_eq!(mark(world, "b", "g:1", seq).await, MarkReadResponse { read_seq: seq, moved: true });
        let head = head().await;
        assert_eq!((head.read_seq, unread(&head)), (seq, expected));
    }
    assert_eq!(world.heads("a", GetHeads::default()).await.heads[0].read_seq, 0, "positions are per user");
}

pub(super) async fn a_read_position_never_goes_back_or_beyond_the_end(world: &World) {
    talk(world, "d:a:b", 10).await;
    assert_eq!(mark(world, "b", "d:a:b", 7).await, MarkReadResponse { read_seq: 7, moved: true });
    assert_eq!(mark(world, "b", "d:b:a", 3).await, MarkReadResponse { read_seq: 7, moved: false });
    assert_eq!(mark(world, "b", "d:a:b", u64::MAX).await, MarkReadResponse { read_seq: 10, moved: true });
    assert_eq!(mark(world, "b", "d:a:b", 11).await, MarkReadResponse { read_seq: 10, moved: false });
    assert_eq!(world.number("SELECT read_countable FROM members WHERE read_seq = 10").await, 10);
}

pub(super) async fn members_of_a_direct_conversation_come_from_its_id(world: &World) {
    for (id, expected) in [("d:b:a", vec!["a", "b"]), ("d:a:a", vec!["a"])] {
        let request = GetMembersRequest { app: APP.into(), conversation: id.into() };
        let members = world.client().get_members(request).await.unwrap().into_inner();
        assert_eq!(members.members.iter().map(|member| member.user.as_str()).collect::<Vec<_>>(), expected);
        assert!(members.members.iter().all(|member| member.visible_from == 1));
    }
}

pub(super) async fn bad_pages_are_refused(world: &World) {
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
