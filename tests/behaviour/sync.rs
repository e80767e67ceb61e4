//! Catching up: receiver seqs, heads, history, read positions.

use abi::{
    error::ErrorCode,
    v1::{GetChanges, GetHistory, Head, ReceiverSeq},
};
use anyhow::{Context as _, Result, ensure};
use tests::{
    device::{Device, Wire, new_id, refusal, send, seqs},
    eventually,
    world::{Session, World},
};

/// Sends `count` messages and waits until the sender has received them.
async fn send_numbered(device: &mut Device, conversation: &str, count: usize) -> Result<()> {
    let ids = device.pipeline((1..=count).map(|n| send(conversation, &new_id(), &n.to_string()))).await?;
    for id in ids {
        device.answer(id).await?;
    }
    device.entries(count).await?;
    Ok(())
}

async fn head(device: &mut Device, conversation: &str) -> Result<Head> {
    let heads = device.heads().await?;
    heads.into_iter().find(|head| head.conversation == conversation).context("the conversation has no head")
}

fn page(conversation: &str) -> GetHistory {
    GetHistory { conversation: conversation.into(), ..GetHistory::default() }
}

pub(crate) async fn p4_a_delivery_carries_the_increase_of_the_receiver_seq(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    let (mut bob_device, welcome) = world.connect_as(&bob, Wire::Proto, None).await?;
    let mut have = welcome.receiver_seq.context("welcome has no receiver seq")?;
    assert_ne!(have.epoch, 0);
    for round in 1..=5 {
        let ids = alice_device.pipeline((0..round).map(|_| send(&conversation, &new_id(), "hello"))).await?;
        for id in ids {
            alice_device.answer(id).await?;
        }
        let mut missing = round;
        while missing > 0 {
            let deliver = bob_device.deliver().await?;
            let seq = deliver.receiver_seq.context("a delivery without a receiver seq")?;
            assert_eq!(u64::from(deliver.raised), deliver.entries.len() as u64);
            assert_eq!(seq, ReceiverSeq { epoch: have.epoch, seq: have.seq + u64::from(deliver.raised) });
            // The receiver seq increases only after the entry can be read.
            let last = deliver.entries.last().map_or(0, |entry| entry.conversation_seq);
            assert!(head(&mut bob_device, &conversation).await?.conversation_seq >= last);
            (have, missing) = (seq, missing - deliver.entries.len());
        }
    }
    assert_eq!(bob_device.ping().await?.receiver_seq, Some(have));
    Ok(())
}

pub(crate) async fn p5_an_equal_receiver_seq_means_the_device_is_up_to_date(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (bob_device, welcome) = world.connect_as(&bob, Wire::Proto, None).await?;
    let initial = welcome.receiver_seq;
    bob_device.drop_connection();
    // Without a change the receiver seq stays the same.
    assert_eq!(world.connect_as(&bob, Wire::Json, initial).await?.1.receiver_seq, initial);
    let mut alice_device = world.connect(&alice).await?;
    send_numbered(&mut alice_device, &conversation, 3).await?;
    // Three messages change it.
    let (mut bob_device, welcome) = world.connect_as(&bob, Wire::Proto, initial).await?;
    assert_ne!(welcome.receiver_seq, initial);
    assert_eq!(bob_device.whole_history(&conversation).await?.len(), 3);
    bob_device.drop_connection();
    assert_eq!(world.connect_as(&bob, Wire::Proto, None).await?.1.receiver_seq, welcome.receiver_seq);
    Ok(())
}

pub(crate) async fn p5_heads_give_the_unread_count(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    send_numbered(&mut alice_device, &conversation, 7).await?;
    let mut bob_device = world.connect(&bob).await?;
    let unread = head(&mut bob_device, &conversation).await?;
    assert_eq!((unread.conversation_seq, unread.countable_seq), (7, 7));
    assert_eq!((unread.read_seq, unread.unread, unread.visible_from), (0, 7, 1));
    assert!(unread.last_sent_at_ms > 0);
    assert_eq!(bob_device.mark_read(&conversation, 5).await?.read_seq, 5);
    let read = head(&mut bob_device, &conversation).await?;
    assert_eq!((read.read_seq, read.unread), (5, 2));
    // Read positions are per user.
    assert_eq!(head(&mut alice_device, &conversation).await?.read_seq, 0);
    Ok(())
}

pub(crate) async fn p5_a_read_position_never_moves_back_or_past_the_end(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    send_numbered(&mut alice_device, &conversation, 4).await?;
    let mut bob_device = world.connect(&bob).await?;
    for (asked, expected) in [(3, 3), (1, 3), (0, 3), (4, 4), (1_000_000, 4), (u64::MAX, 4)] {
        assert_eq!(
            bob_device.mark_read(&conversation, asked).await?.read_seq,
            expected,
            "after asking for {asked}"
        );
    }
    assert_eq!(head(&mut bob_device, &conversation).await?.read_seq, 4);
    Ok(())
}

pub(crate) async fn p5_the_sender_gets_a_read_receipt(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    send_numbered(&mut alice_device, &conversation, 2).await?;
    bob_device.mark_read(&conversation, 2).await?;
    let receipt = alice_device.receipt().await?;
    assert_eq!(
        (&receipt.conversation, &receipt.user, receipt.conversation_seq),
        (&conversation, &bob.user, 2)
    );
    Ok(())
}

pub(crate) async fn p5_history_pages_forward_and_backward(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    send_numbered(&mut alice_device, &conversation, 25).await?;
    let mut bob_device = world.connect(&bob).await?;
    for (asked, expected, more) in [
        (GetHistory { limit: 10, ..page(&conversation) }, (1..=10).collect::<Vec<_>>(), true),
        (GetHistory { after: 10, limit: 10, ..page(&conversation) }, (11..=20).collect(), true),
        (GetHistory { after: 20, limit: 10, ..page(&conversation) }, (21..=25).collect(), false),
        (GetHistory { after: 15, limit: 10, ..page(&conversation) }, (16..=25).collect(), false),
        (GetHistory { after: 25, ..page(&conversation) }, vec![], false),
        (GetHistory { after: u64::MAX, ..page(&conversation) }, vec![], false),
        (GetHistory { newest: true, limit: 3, ..page(&conversation) }, vec![25, 24, 23], true),
        (GetHistory { before: 23, limit: 3, ..page(&conversation) }, vec![22, 21, 20], true),
        (GetHistory { before: 4, limit: 3, ..page(&conversation) }, vec![3, 2, 1], false),
        (GetHistory { before: 1, ..page(&conversation) }, vec![], false),
        (GetHistory { before: u64::MAX, limit: 2, ..page(&conversation) }, vec![25, 24], true),
        (page(&conversation), (1..=25).collect(), false),
    ] {
        let answer = bob_device.history(asked.clone()).await?;
        assert_eq!((seqs(&answer.entries), answer.more), (expected, more), "{asked:?}");
    }
    // A direct conversation has one identity, in either order of its users.
    let swapped = format!("d:{}:{}", bob.user, alice.user);
    assert_eq!(bob_device.history(page(&swapped)).await?.entries.len(), 25);
    for contradiction in [
        GetHistory { after: 1, before: 5, ..page(&conversation) },
        GetHistory { after: 1, newest: true, ..page(&conversation) },
    ] {
        assert_eq!(refusal(bob_device.history(contradiction).await).code, ErrorCode::InvalidRequest);
    }
    Ok(())
}

pub(crate) async fn p5_heads_are_paginated(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let mut conversations = Vec::new();
    for _ in 0..7 {
        let conversation = alice.conversation_with(&world.user("friend").await?);
        send_numbered(&mut device, &conversation, 1).await?;
        conversations.push(conversation);
    }
    conversations.push(world.group(&alice, &[], "all").await?);
    // The most recent conversation comes first.
    conversations.reverse();
    let (mut seen, mut cursor, mut pages, mut seqs) = (Vec::new(), String::new(), 0, Vec::new());
    loop {
        let page = device.changes(GetChanges { cursor, limit: 3, ..GetChanges::default() }).await?;
        ensure!(page.everything && page.heads.len() <= 3, "{page:?}");
        seen.extend(page.heads.into_iter().map(|head| head.conversation));
        seqs.push(page.receiver_seq);
        pages += 1;
        cursor = page.next;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (conversations, 3));
    assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");
    Ok(())
}

pub(crate) async fn p7_page_sizes_are_limited(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    send_numbered(&mut device, &conversation, 1).await?;
    for limit in [-1, i32::MIN, 501, i32::MAX] {
        let error = refusal(device.history(GetHistory { limit, ..page(&conversation) }).await);
        assert_eq!(error.code, ErrorCode::InvalidRequest, "history, limit {limit}");
        assert!(error.message.contains("500"), "{}", error.message);
        assert_eq!(
            refusal(device.changes(GetChanges { limit, ..GetChanges::default() }).await).code,
            ErrorCode::InvalidRequest,
            "changes, limit {limit}"
        );
    }
    for limit in [0, 1, 500] {
        assert_eq!(device.history(GetHistory { limit, ..page(&conversation) }).await?.entries.len(), 1);
        let page = device.changes(GetChanges { limit, ..GetChanges::default() }).await?;
        assert_eq!(page.heads.len(), 1);
    }
    Ok(())
}

async fn check_all_refused(world: &World, stranger: &Session, conversation: &str) -> Result<()> {
    let mut device = world.connect(stranger).await?;
    let forbidden = ErrorCode::Forbidden;
    assert_eq!(refusal(device.send(conversation, &new_id(), "let me in").await).code, forbidden);
    assert_eq!(refusal(device.history(page(conversation)).await).code, forbidden);
    assert_eq!(refusal(device.mark_read(conversation, 1).await).code, forbidden);
    assert_eq!(device.heads().await?, []);
    Ok(())
}

pub(crate) async fn p8_a_conversation_is_closed_to_other_users(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    send_numbered(&mut device, &conversation, 1).await?;
    check_all_refused(&world, &carol, &conversation).await?;
    // A missing conversation gets the same error, so that a stranger can't find out which ones exist.
    check_all_refused(&world, &carol, "g:there-is-no-such-group").await?;
    check_all_refused(&world, &carol, &format!("d:{}:nobody", alice.user)).await?;
    assert_eq!(device.whole_history(&conversation).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p8_a_message_to_an_unknown_user_is_refused(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let unknown = abi::ids::direct(&alice.user, &format!("nobody-{}", tests::system::unique()));
    let error = refusal(device.send(&unknown, &new_id(), "hello").await);
    assert_eq!(error.code, ErrorCode::NotFound);
    // A user may write to themselves.
    let notes = abi::ids::direct(&alice.user, &alice.user);
    device.send(&notes, &new_id(), "buy milk").await?;
    eventually("the note is stored", async || {
        ensure!(device.whole_history(&notes).await?.len() == 1);
        Ok(())
    })
    .await
}
