//! Groups: members, permissions, and the visible part of the history.

use abi::{
    error::ErrorCode,
    v1::{Entry, GetHistory, Member, Role, group_change::Change},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    device::{Device, group_change as change, new_id, refusal, seqs, texts},
    http::Answer,
    world::{Session, World},
};

/// Adds users to a group.
pub(crate) async fn add(world: &World, by: &Session, group: &str, users: &[&Session]) -> Result<Answer> {
    let users: Vec<_> = users.iter().map(|user| &user.user).collect();
    let path = format!("/v1/groups/{group}/members");
    world.http("POST", &path, Some(&by.access_token), Some(json!({ "users": users }))).await
}

/// Removes a user from a group. A user who removes themselves leaves the group.
pub(crate) async fn remove(world: &World, by: &Session, group: &str, user: &Session) -> Result<Answer> {
    let path = format!("/v1/groups/{group}/members/{}", user.user);
    world.http("DELETE", &path, Some(&by.access_token), None).await
}

pub(crate) async fn members(world: &World, by: &Session, group: &str) -> Result<Vec<Member>> {
    let answer =
        world.http("GET", &format!("/v1/groups/{group}/members"), Some(&by.access_token), None).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    Ok(serde_json::from_value(answer.json()?["members"].clone())?)
}

/// Waits for exactly `count` messages, and skips group changes. Those arrive as entries or as notifications, so tests read
/// them from the history.
async fn messages(device: &mut Device, count: usize) -> Result<Vec<Entry>> {
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.extend(device.deliver().await?.entries.into_iter().filter(|entry| change(entry).is_none()));
    }
    ensure!(messages.len() == count, "{:?}", texts(&messages));
    Ok(messages)
}

async fn check_access_refused(device: &mut Device, group: &str) {
    let page = GetHistory { conversation: group.into(), ..GetHistory::default() };
    assert_eq!(refusal(device.send(group, &new_id(), "hello").await).code, ErrorCode::Forbidden);
    assert_eq!(refusal(device.history(page).await).code, ErrorCode::Forbidden);
    assert_eq!(refusal(device.mark_read(group, 1).await).code, ErrorCode::Forbidden);
}

pub(crate) async fn p1_members_of_a_group_exchange_messages(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let mut devices = Vec::new();
    for user in [&alice, &bob, &carol] {
        devices.push(world.connect(user).await?);
    }
    let group = world.group(&alice, &[&bob, &carol], "from_join").await?;
    for device in &mut devices {
        let deliver = device.deliver().await?;
        assert!(deliver.raised > 0 && deliver.entries.len() <= 1, "{deliver:?}");
        let created = device.whole_history(&group).await?.remove(0);
        assert!(matches!(change(&created), Some(Change::Created(_))), "{created:?}");
        assert_eq!((created.conversation_seq, created.countable_seq), (1, 0));
    }
    for (n, device) in devices.iter_mut().enumerate() {
        device.send(&group, &new_id(), &format!("from {n}")).await?;
    }
    let mut all = Vec::new();
    for device in &mut devices {
        let seen = messages(device, 3).await?;
        assert_eq!(seqs(&seen), [2, 3, 4]);
        all.push(seen);
    }
    assert!(all.iter().all(|seen| *seen == all[0]), "{all:?}");
    let head = devices[1].heads().await?.remove(0);
    assert_eq!((&*head.conversation, &*head.name, head.role()), (&*group, "friends", Role::Member));
    assert_eq!((head.conversation_seq, head.countable_seq), (4, 3));
    let listed = members(&world, &carol, &group).await?;
    let roles: Vec<_> = listed.iter().map(|member| (member.user.as_str(), member.role())).collect();
    assert_eq!(roles[0], (&*alice.user, Role::Owner));
    assert_eq!(roles.len(), 3);
    Ok(())
}

pub(crate) async fn p2_a_repeated_creation_returns_the_same_group(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let body = json!({ "name": "friends", "members": [bob.user], "history": "all", "request_id": new_id() });
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = world.http("POST", "/v1/groups", Some(&alice.access_token), Some(body.clone())).await?;
        assert_eq!(answer.status, 201, "{answer:?}");
        let entry: Entry = serde_json::from_value(answer.json()?["entry"].clone())?;
        assert_eq!(entry.conversation_seq, 1);
        ids.push(answer.json()?["conversation"].as_str().context("no conversation")?.to_owned());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let mut device = world.connect(&bob).await?;
    assert_eq!(device.heads().await?.len(), 1);
    assert_eq!(device.whole_history(&ids[0]).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p3_changes_of_a_group_are_entries_of_its_conversation(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let mut alice_device = world.connect(&alice).await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    alice_device.send(&group, &new_id(), "hello").await?;
    messages(&mut alice_device, 1).await?;
    assert_eq!(add(&world, &alice, &group, &[&carol]).await?.status, 200);
    let mut carol_device = world.connect(&carol).await?;
    carol_device.send(&group, &new_id(), "hi").await?;
    messages(&mut alice_device, 1).await?;
    assert_eq!(remove(&world, &alice, &group, &bob).await?.status, 200);
    assert_eq!(remove(&world, &carol, &group, &carol).await?.status, 200);
    let seen = alice_device.whole_history(&group).await?;
    assert_eq!(seqs(&seen), [1, 2, 3, 4, 5, 6]);
    let countable: Vec<_> = seen.iter().map(|entry| entry.countable_seq).collect();
    assert_eq!(countable, [0, 1, 1, 2, 2, 2]);
    let kinds: Vec<_> = seen
        .iter()
        .map(|entry| match change(entry) {
            None => "message",
            Some(Change::Created(_)) => "created",
            Some(Change::Added(added)) if added.users == [carol.user.clone()] => "added carol",
            Some(Change::Removed(removed)) if removed.users == [bob.user.clone()] => "removed bob",
            Some(Change::Left(_)) => "left",
            Some(other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["created", "message", "added carol", "message", "removed bob", "left"]);
    Ok(())
}

pub(crate) async fn p4_a_new_member_sees_entries_since_joining_or_the_whole_history(
    world: World,
) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let mut alice_device = world.connect(&alice).await?;
    for (history, visible) in [("from_join", vec![4, 5]), ("all", vec![1, 2, 3, 4, 5])] {
        let group = world.group(&alice, &[&bob], history).await?;
        for text in ["one", "two"] {
            alice_device.send(&group, &new_id(), text).await?;
        }
        messages(&mut alice_device, 2).await?;
        let mut carol_device = world.connect(&carol).await?;
        assert_eq!(add(&world, &alice, &group, &[&carol]).await?.status, 200);
        alice_device.send(&group, &new_id(), "three").await?;
        assert_eq!(texts(&messages(&mut carol_device, 1).await?), ["three"]);
        messages(&mut alice_device, 1).await?;
        assert_eq!(seqs(&carol_device.whole_history(&group).await?), visible, "{history}");
        let newest = GetHistory { conversation: group.clone(), newest: true, ..GetHistory::default() };
        let newest = carol_device.history(newest).await?;
        assert_eq!((newest.entries.len(), newest.more), (visible.len(), false));
        let heads = carol_device.heads().await?;
        let head = heads.iter().find(|head| head.conversation == group).context("no head")?;
        assert_eq!(head.visible_from, visible[0]);
        let listed = members(&world, &bob, &group).await?;
        let carol_device =
            listed.iter().find(|member| member.user == carol.user).context("carol is not a member")?;
        assert_eq!(carol_device.visible_from, visible[0]);
    }
    Ok(())
}

/// A change is stored after all messages that were acknowledged before it. A new member with history from joining must not
/// see those.
pub(crate) async fn p3_a_change_never_overtakes_an_acknowledged_message(world: World) -> Result<()> {
    const ROUNDS: usize = 8;
    const MESSAGES: usize = 50;
    let (alice, bob, carol) = world.three_users().await?;
    let mut alice_device = world.connect(&alice).await?;
    let group = world.group(&alice, &[&bob], "from_join").await?;
    for _ in 0..ROUNDS {
        for join in [true, false] {
            let sends = (0..MESSAGES).map(|_| tests::device::send(&group, &new_id(), "before the change"));
            for id in alice_device.pipeline(sends).await? {
                alice_device.answer(id).await?;
            }
            let answer = match join {
                true => add(&world, &alice, &group, &[&carol]).await?,
                false => remove(&world, &alice, &group, &carol).await?,
            };
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    let seen = alice_device.whole_history(&group).await?;
    let changes = seen.iter().enumerate().filter(|(_, entry)| change(entry).is_some());
    let positions: Vec<_> = changes.map(|(position, _)| position).collect();
    let expected: Vec<_> = (0..=2 * ROUNDS).map(|n| n * (MESSAGES + 1)).collect();
    assert_eq!(positions, expected);
    Ok(())
}

pub(crate) async fn p8_only_an_owner_can_change_members(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    for answer in [
        add(&world, &bob, &group, &[&carol]).await?,
        add(&world, &carol, &group, &[&carol]).await?,
        remove(&world, &bob, &group, &alice).await?,
        remove(&world, &carol, &group, &bob).await?,
    ] {
        assert_eq!((answer.status, answer.problem()?.as_str()), (403, "forbidden"));
    }
    assert_eq!(members(&world, &alice, &group).await?.len(), 2);
    // Adding a member again succeeds and changes nothing.
    assert_eq!(add(&world, &alice, &group, &[&bob]).await?.status, 200);
    assert_eq!(members(&world, &alice, &group).await?.len(), 2);
    Ok(())
}

pub(crate) async fn p8_removing_a_non_member_sends_that_user_nothing(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut carol_device = world.connect(&carol).await?;
    let before = carol_device.ping().await?;
    let answer = remove(&world, &alice, &group, &carol).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (404, "not_found"));
    assert_eq!(carol_device.ping().await?, before);
    Ok(())
}

pub(crate) async fn p2_request_ids_and_client_msg_ids_do_not_collide(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let mut alice_device = world.connect(&alice).await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let path = format!("/v1/groups/{group}/members/{}?request_id=1", bob.user);
    alice_device.send(&group, "1", "hello").await?;
    let removed = world.http("DELETE", &path, Some(&alice.access_token), None).await?;
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(members(&world, &alice, &group).await?.len(), 1);
    assert_eq!(alice_device.whole_history(&group).await?.len(), 3);
    // A repeated request gets the same answer. Another request with the same id is refused.
    assert_eq!(world.http("DELETE", &path, Some(&alice.access_token), None).await?.status, 200);
    let (path, body) =
        (format!("/v1/groups/{group}/members"), json!({ "users": [bob.user], "request_id": "1" }));
    let other = world.http("POST", &path, Some(&alice.access_token), Some(body)).await?;
    assert_eq!((other.status, other.problem()?.as_str()), (409, "conflict"));
    Ok(())
}

pub(crate) async fn p8_non_members_see_nothing_of_a_group(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut carol_device = world.connect(&carol).await?;
    check_access_refused(&mut carol_device, &group).await;
    for path in [format!("/v1/groups/{group}/members"), "/v1/groups/g:unknown/members".into()] {
        let answer = world.http("GET", &path, Some(&carol.access_token), None).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (403, "forbidden"), "{path}");
        let answer = world.http("GET", &path, None, None).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (401, "unauthenticated"), "{path}");
    }
    Ok(())
}

pub(crate) async fn p8_a_group_with_unknown_users_is_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let unknown_user = format!("nobody-{}", tests::system::unique());
    let group = world.group(&alice, &[&bob], "all").await?;
    let create = |body| world.http("POST", "/v1/groups", Some(&alice.access_token), Some(body));
    let unknown = create(json!({ "name": "friends", "members": [bob.user, unknown_user] })).await?;
    assert_eq!((unknown.status, unknown.problem()?.as_str()), (404, "not_found"));
    let path = format!("/v1/groups/{group}/members");
    let unknown = world
        .http("POST", &path, Some(&alice.access_token), Some(json!({ "users": [unknown_user] })))
        .await?;
    assert_eq!((unknown.status, unknown.problem()?.as_str()), (404, "not_found"));
    for invalid in [
        json!({ "name": "", "members": [] }),
        json!({ "name": "x".repeat(129), "members": [] }),
        json!({ "members": [] }),
        json!({ "name": "friends", "members": ["two words"] }),
        json!({ "name": "friends", "members": [], "history": "some" }),
        json!({ "name": "friends", "members": [], "request_id": "" }),
    ] {
        let answer = create(invalid.clone()).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"), "{invalid}");
    }
    Ok(())
}
