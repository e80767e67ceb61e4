//! Data in all tables.

use crate::{
    item::Item,
    position::Batch,
    sessions::{Rotation, SessionKey},
    store::{Conversations, Directory, Users, View},
};
use abi::{
    envelope,
    v1::{
        Block, Content, Entry, GroupChange, GroupCreated, Head, HistoryVisibility, MemberLeft, MembersAdded,
        Profile, ReadMark, SaveOutcome, Session, SetSettings, SigningKey, content::Body,
        group_change::Change,
    },
};
use prost::Message as _;

pub(super) fn text(text: &str) -> Option<Content> {
    Some(Content { content_type: String::new(), body: Some(Body::Text(text.into())) })
}

pub(super) fn entry(conversation: &str, sender: &str, n: usize) -> Entry {
    Entry {
        conversation: conversation.into(),
        message_id: abi::ids::message("app", conversation, sender, "phone", &n.to_string()),
        sender: sender.into(),
        sent_at_ms: 7,
        kind: envelope::MESSAGE.into(),
        countable: true,
        content: text(&"x".repeat(n % 100)),
        ..Entry::default()
    }
}

pub(super) fn encoded(entry: &Entry) -> Item {
    Item::new("app", entry.encode_to_vec().into()).unwrap()
}

pub(super) fn item(conversation: &str, n: usize) -> Item {
    encoded(&entry(conversation, "a", n))
}

/// A change of an entry of `a` in the conversation `d:a:b`.
pub(super) fn change_of(target: usize, sender: &str, n: usize, kind: &str) -> Entry {
    let refers_to = entry("d:a:b", "a", target).message_id;
    Entry { refers_to, kind: kind.into(), countable: false, content: None, ..entry("d:a:b", sender, n) }
}

/// A change of the group `g:1`.
pub(super) fn group(sender: &str, n: usize, change: Change) -> Item {
    encoded(&Entry {
        kind: envelope::GROUP.into(),
        countable: false,
        content: None,
        group_change: Some(GroupChange { change: Some(change) }),
        ..entry("g:1", sender, n)
    })
}

pub(super) fn view(user: &str) -> View {
    View { app: "app".into(), user: user.into(), conversation: "d:a:b".into() }
}

pub(super) fn session(id: &str) -> Session {
    Session {
        session: id.into(),
        app: "app".into(),
        user: "a".into(),
        device: "phone".into(),
        ..Session::default()
    }
}

pub(super) fn session_key() -> SessionKey {
    SessionKey::from(&session("s"))
}

pub(super) async fn head<S: Conversations>(store: &S, user: &str) -> Head {
    let heads = store.heads_of("app".into(), user.into(), vec!["d:a:b".into()]).await.unwrap();
    Head::decode(heads[0].head.clone()).unwrap()
}

/// Puts rows into all tables.
pub(super) async fn fill<S: Conversations + Users + Directory>(store: &S) {
    fill_users(store).await;
    // More than one batch, and more than one fetch from a cursor.
    for from in (0..2_500).step_by(500) {
        store.save(Batch::alone((from..from + 500).map(|n| item("d:a:b", n)).collect())).await.unwrap();
    }
    for n in 0..20 {
        store.save(Batch::alone(vec![item(&format!("d:a:u{n}"), 0)])).await.unwrap();
    }
    let mark = ReadMark { user: "b".into(), conversation: "d:a:b".into(), conversation_seq: 40 };
    store.mark_read("app".into(), vec![mark]).await.unwrap();
    let changes = [
        Entry { content: text("edited"), ..change_of(3, "a", 9_001, envelope::EDIT) },
        Entry { reactions: vec!["+1".into()], ..change_of(3, "b", 9_002, envelope::REACTION) },
        change_of(100, "a", 9_003, envelope::RECALL),
    ];
    // b leaves and comes back: an absence. c leaves for good: a last visible entry.
    let members = vec!["b".into(), "c".into()];
    let created = GroupCreated { name: "name".into(), members, history: HistoryVisibility::FromJoin.into() };
    let groups = [
        group("a", 1, Change::Created(created)),
        group("b", 2, Change::Left(MemberLeft {})),
        item("g:1", 3),
        group("a", 4, Change::Added(MembersAdded { users: vec!["b".into()] })),
        group("c", 5, Change::Left(MemberLeft {})),
    ];
    let items = changes.iter().map(encoded).chain(groups).collect();
    let results = store.save(Batch::alone(items)).await.unwrap();
    assert!(results.iter().all(|result| result.outcome() == SaveOutcome::Stored), "{results:?}");
}

pub(super) async fn fill_users<S: Users + Directory>(store: &S) {
    for user in ["a", "b", "c"] {
        assert!(store.create_user("app".into(), user.into(), "hash".into()).await.unwrap());
    }
    store.create_session(session("s"), vec![1]).await.unwrap();
    let rotation = Rotation { presented: vec![1], next: vec![2], number: Some(1) };
    store.rotate_session(session_key(), rotation).await.unwrap();
    store.signing_keys(SigningKey { id: "k".into(), secret: vec![7; 32].into() }).await.unwrap();
    let profile = Profile { user: "a".into(), name: "Ada".into(), ..Profile::default() };
    assert!(store.replace_profile("app".into(), profile).await.unwrap());
    let draft = SetSettings {
        conversation: "d:a:b".into(),
        draft: Some("draft".into()),
        pinned: Some(true),
        ..SetSettings::default()
    };
    store.change_settings("app".into(), "b".into(), draft).await.unwrap();
    let block = Block { user: "b".into(), blocked: true };
    store.change_block("app".into(), "a".into(), block).await.unwrap();
}
