use super::world::{
    APP, World, added, change, code, created, edit, left, message, message_id, reaction, recall, removed,
    save_request, text,
};
use abi::{
    error::ErrorCode,
    v1::{
        Content, GetHistory, GetMembersRequest, HeadsOfRequest, HeadsRequest, HistoryPage, HistoryRequest,
        HistoryVisibility, Role, content::Body,
    },
};

fn page(conversation: &str) -> GetHistory {
    GetHistory { conversation: conversation.into(), ..Default::default() }
}

fn seqs(page: &HistoryPage) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.conversation_seq).collect()
}

pub(super) async fn p5_pages_in_both_directions_have_no_gaps_or_overlaps(world: &World) {
    world.save_messages("d:a:b", 25).await;
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
    world.save_messages("d:a:b", 1).await;
    world.store(change("g:1", "a", "0", created(&[], HistoryVisibility::All))).await;
    let mut answers = Vec::new();
    for conversation in ["d:a:b", "d:x:y", "g:1", "g:2"] {
        answers.push(world.history("eve", page(conversation)).await.unwrap_err());
        let marked = world.mark_read("eve", conversation, 1).await;
        assert_eq!(marked.error.unwrap().code(), ErrorCode::Forbidden);
        assert_eq!(marked.position, None);
        answers.push(world.readers("eve", conversation, 1).await.unwrap_err());
    }
    assert!(answers.iter().all(|error| *error == answers[0] && error.code == ErrorCode::Forbidden));
    assert!(world.heads_of("eve", &["d:a:b", "d:x:y", "g:1", "g:2"]).await.is_empty());
}

pub(super) async fn the_history_of_an_empty_direct_conversation_is_an_empty_page(world: &World) {
    assert_eq!(world.history("a", page("d:b:a")).await.unwrap(), HistoryPage::default());
    let marked = world.mark_read("a", "d:b:a", 5).await;
    let position = marked.position.unwrap();
    assert_eq!((position.conversation.as_str(), position.read_seq, position.unread), ("d:a:b", 0, 0));
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 0);
}

pub(super) async fn p7_a_page_is_bounded_in_bytes(world: &World) {
    let data = |size: usize| {
        Some(Content { content_type: String::new(), body: Some(Body::Data(vec![0; size].into())) })
    };
    let large = |n: usize| {
        let mut entry = message("d:a:b", "a", &n.to_string());
        entry.content = data(300 << 10);
        entry
    };
    world.save((0..10).map(large).collect()).await;
    let found = world.history("a", GetHistory { limit: 500, ..page("d:a:b") }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![1, 2, 3], true));
    let found = world.history("a", GetHistory { after: 8, ..page("d:a:b") }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![9, 10], false));
    for (max_bytes, expected) in [(1, 1), (700 << 10, 2), (10 << 20, 3)] {
        let page = Some(page("d:a:b"));
        let request = HistoryRequest { app: APP.into(), user: "b".into(), page, max_bytes };
        let found = world.client().history(request).await.unwrap().into_inner();
        assert_eq!((found.entries.len(), found.more), (expected, true), "{max_bytes} bytes");
    }
    // The content of an edit counts in place of the original one.
    for n in 0..4 {
        let (id, n) = (message_id("d:a:c", "a", &n.to_string()), format!("edit {n}"));
        world.store(message("d:a:c", "a", n.trim_start_matches("edit "))).await;
        let mut edit = edit("d:a:c", "a", &n, &id);
        edit.content = data(300 << 10);
        world.store(edit).await;
    }
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let found = world.history("a", GetHistory { after, limit: 500, ..page("d:a:c") }).await.unwrap();
        assert!(found.entries.len() <= 3, "{:?}", seqs(&found));
        all.extend(seqs(&found));
        after = *all.last().unwrap();
        if !found.more {
            break;
        }
    }
    assert_eq!(all, (1..=8).collect::<Vec<_>>());
}

pub(super) async fn history_and_heads_have_the_current_state_of_entries(world: &World) {
    let [first, second, third] = ["1", "2", "3"].map(|n| message_id("d:a:b", "a", n));
    world.store_all(["1", "2", "3"].map(|n| message("d:a:b", "a", n))).await;
    world
        .store_all([
            edit("d:a:b", "a", "e1", &first),
            edit("d:a:b", "a", "e2", &first),
            edit("d:a:b", "a", "e3", &second),
            recall("d:a:b", "a", "r", &second),
            reaction("d:a:b", "a", "x1", &third, &["+1", "ok"]),
            reaction("d:a:b", "b", "x2", &third, &["+1"]),
        ])
        .await;
    let entries = world.entries("b", "d:a:b").await;
    let state = |seq: usize| entries[seq - 1].state.clone().unwrap();
    assert_eq!(entries[0].content, text("edit e2"), "the last edit");
    assert_eq!((state(1).edits, state(1).changed_seq, state(1).recalled_by), (2, 5, String::new()));
    assert_eq!((entries[1].content.clone(), state(2).recalled_by), (None, "a".into()));
    assert_eq!(entries[2].content, text("text of 3"));
    let reactions = |of: &abi::v1::EntryState| -> Vec<_> {
        of.reactions.iter().map(|count| (count.reaction.clone(), count.count, count.mine)).collect()
    };
    assert_eq!(reactions(&state(3)), [("+1".into(), 2, true), ("ok".into(), 1, false)]);
    assert_eq!(entries[3].content, text("edit e1"), "versions are kept");
    assert_eq!((entries[3].refers_to_seq, entries[3].state.clone()), (1, None));
    assert_eq!(entries[5].content, None, "an edit of a recalled entry is stripped");
    // A page that has the edit but not its target.
    let found = world.history("b", GetHistory { after: 5, limit: 1, ..page("d:a:b") }).await.unwrap();
    assert_eq!((found.entries[0].conversation_seq, found.entries[0].content.clone()), (6, None));
    let head = world.head("a", "d:a:b").await;
    let last = head.last.unwrap();
    assert_eq!((last.conversation_seq, last.message_id, last.content), (3, third.clone(), text("text of 3")));
    assert_eq!(
        reactions(&last.state.unwrap()),
        [("+1".into(), 2, true), ("ok".into(), 1, true)],
        "the marks are those of the reader"
    );
    world.store(edit("d:a:b", "a", "e4", &third)).await;
    let head = world.head("b", "d:a:b").await;
    assert_eq!((head.conversation_seq, head.last.unwrap().content), (10, text("edit e4")));
    world.store(recall("d:a:b", "a", "r2", &third)).await;
    assert_eq!(world.head("b", "d:a:b").await.last.unwrap().content, None);
}

pub(super) async fn p1_unknown_fields_and_kinds_are_returned_byte_for_byte(world: &World) {
    use abi::{envelope, v1::SaveRequest};
    use prost::{Message as _, bytes::BytesMut};
    let known = abi::v1::Entry { kind: "hologram".into(), ..message("d:a:b", "a", "1") };
    let mut bytes = BytesMut::from(&known.encode_to_vec()[..]);
    envelope::put_bytes(999, b"of a later version", &mut bytes);
    let sent = bytes.freeze();
    let request = SaveRequest { entries: vec![sent.clone()], ..save_request(&[known]) };
    world.client().save(request).await.unwrap();
    let request =
        HistoryRequest { app: APP.into(), user: "b".into(), page: Some(page("d:a:b")), ..Default::default() };
    let found = world.client().history(request).await.unwrap().into_inner().entries.remove(0);
    let numbers = [
        envelope::field::CONVERSATION,
        envelope::field::MESSAGE_ID,
        envelope::field::CONVERSATION_SEQ,
        envelope::field::COUNTABLE_SEQ,
    ];
    assert_eq!(envelope::without(&found, &numbers).unwrap(), envelope::without(&sent, &numbers).unwrap());
    assert_eq!(world.head("b", "d:a:b").await.last.unwrap().kind, "hologram");
}

pub(super) async fn p8_a_former_member_reads_up_to_the_entry_of_the_removal(world: &World) {
    world.users(&["b", "c"]).await;
    let group = "g:1";
    world.store(change(group, "a", "0", created(&["b", "c"], HistoryVisibility::All))).await;
    let [first, second] = ["1", "2"].map(|n| message_id(group, "a", n));
    world.store_all(["1", "2"].map(|n| message(group, "a", n))).await;
    world.store(edit(group, "a", "e1", &first)).await;
    world.store(change(group, "a", "5", removed(&["b"]))).await;
    world.store_all([message(group, "a", "6"), edit(group, "a", "e2", &first)]).await;
    let entries = world.entries("b", group).await;
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[1].content, text("edit e1"), "the last edit that the user could see");
    let newest = world.history("b", GetHistory { newest: true, ..page(group) }).await.unwrap();
    assert_eq!(seqs(&newest), [5, 4, 3, 2, 1]);
    let head = world.head("b", group).await;
    assert_eq!((head.conversation_seq, head.visible_until, head.role()), (5, 5, Role::Unspecified));
    assert_eq!((head.countable_seq, head.unread, head.last.unwrap().conversation_seq), (2, 2, 5));
    world.store(recall(group, "a", "r", &second)).await;
    assert_eq!(world.entries("b", group).await[2].content, None, "a recall holds for everyone");
    assert_eq!(world.head("b", group).await.unread, 1);
    let marked = world.mark_read("b", group, 7).await;
    let position = marked.position.unwrap();
    assert_eq!((position.read_seq, position.unread, position.countable_seq), (5, 0, 2));
    assert!(marked.authors.is_empty(), "a former member sends no receipts");
    assert_eq!(world.heads("b", "", 10).await.0.len(), 1, "the list has former memberships");
    let request = GetMembersRequest { app: APP.into(), conversation: group.into() };
    let members = world.client().get_members(request).await.unwrap().into_inner().members;
    assert_eq!(members.iter().map(|member| member.user.as_str()).collect::<Vec<_>>(), ["a", "c"]);
}

pub(super) async fn p8_entries_of_an_absence_stay_hidden(world: &World) {
    world.users(&["b"]).await;
    let group = "g:1";
    world.store(change(group, "a", "0", created(&["b"], HistoryVisibility::FromJoin))).await;
    world.store(message(group, "a", "1")).await;
    world.store(change(group, "b", "2", left())).await;
    world.store_all([message(group, "a", "3"), message(group, "a", "4")]).await;
    world.store(change(group, "a", "5", added(&["b"]))).await;
    let hidden = message_id(group, "a", "4");
    world.store_all([edit(group, "a", "e", &hidden), message(group, "a", "6")]).await;
    let entries = world.entries("b", group).await;
    let seqs_of = |entries: &[abi::v1::Entry]| -> Vec<_> {
        entries.iter().map(|entry| entry.conversation_seq).collect()
    };
    assert_eq!(seqs_of(&entries), [1, 2, 3, 6, 7, 8]);
    assert_eq!(entries[4].content, None, "an edit of a hidden entry is stripped");
    let newest = GetHistory { newest: true, limit: 2, ..page(group) };
    assert_eq!(seqs(&world.history("b", newest).await.unwrap()), [8, 7]);
    let found = world.history("b", GetHistory { before: 7, ..page(group) }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![6], true), "a page ends at the absence");
    let found = world.history("b", GetHistory { before: 6, ..page(group) }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![3, 2, 1], false));
    let found = world.history("b", GetHistory { after: 4, ..page(group) }).await.unwrap();
    assert_eq!((seqs(&found), found.more), (vec![6, 7, 8], false), "a page that begins in the absence");
    let head = world.head("b", group).await;
    assert_eq!((head.visible_from, head.visible_until, head.role()), (1, 0, Role::Member));
    assert_eq!(head.unread, 2, "the messages before and after the absence");
    assert_eq!(world.mark_read("b", group, 3).await.position.unwrap().unread, 1);
    assert_eq!(world.mark_read("b", group, 7).await.position.unwrap().unread, 1);
    let marked = world.mark_read("b", group, 8).await;
    assert_eq!((marked.position.unwrap().unread, marked.authors), (0, vec!["a".to_owned()]));
    let found = world.readers("a", group, 5).await.unwrap();
    assert!(found.readers.is_empty(), "nobody else sees the hidden entry: {found:?}");
    assert_eq!(world.readers("b", group, 5).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.readers("b", group, 2).await.unwrap().readers.len(), 1);
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
    for (cursor, limit) in [("", -1), ("", 501), ("\0", 1), ("x/d:a:b", 1), ("5", 1), ("5/nowhere", 1)] {
        let request = HeadsRequest { app: APP.into(), user: "a".into(), cursor: cursor.into(), limit };
        assert_eq!(code(world.client().heads(request).await), ErrorCode::InvalidRequest);
    }
    for conversations in [vec!["nowhere".to_owned()], vec!["d:a:b".to_owned(); 501]] {
        let request = HeadsOfRequest { app: APP.into(), user: "a".into(), conversations };
        assert_eq!(code(world.client().heads_of(request).await), ErrorCode::InvalidRequest);
    }
}
