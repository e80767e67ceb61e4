//! Catching up: the receiver's seq, heads, history, read positions.

use abi::{
    error::ErrorCode,
    v1::{GetHistory, Head, ReceiverSeq},
};
use anyhow::{Context as _, Result, ensure};
use tests::{
    device::{Device, Wire, new_id, numbers, refusal, send},
    eventually,
    world::{Session, World},
};

/// Sends so many messages and waits until the sender has been told of all.
async fn talk(device: &mut Device, conversation: &str, count: usize) -> Result<()> {
    let ids = device.pipeline((1..=count).map(|n| send(conversation, &new_id(), &n.to_string()))).await?;
    for id in ids {
        device.answer(id).await?;
    }
    device.entries(count).await?;
    Ok(())
}

async fn head(device: &mut Device, conversation: &str) -> Result<Head> {
    let heads = device.heads("", 0).await?.heads;
    heads.into_iter().find(|head| head.conversation == conversation).context("the conversation has no head")
}

fn page(conversation: &str) -> GetHistory {
    GetHistory { conversation: conversation.into(), ..GetHistory::default() }
}

pub(crate) async fn p4_a_delivery_says_what_the_receivers_seq_rose_by(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    let (mut bobs, welcome) = world.connect_as(&bob, Wire::Proto, None).await?;
    let mut have = welcome.receiver_seq.context("welcome has no receiver's seq")?;
    assert_ne!(have.epoch, 0);
    for round in 1..=5 {
        let ids = alices.pipeline((0..round).map(|_| send(&conversation, &new_id(), "hello"))).await?;
        for id in ids {
            alices.answer(id).await?;
        }
        let mut missing = round;
        while missing > 0 {
            let deliver = bobs.deliver().await?;
            let seq = deliver.receiver_seq.context("a delivery without a receiver's seq")?;
            assert_eq!(u64::from(deliver.raised), deliver.entries.len() as u64);
            assert_eq!(seq, ReceiverSeq { epoch: have.epoch, seq: have.seq + u64::from(deliver.raised) });
            // It is raised after the change can be read, never before.
            let last = deliver.entries.last().map_or(0, |entry| entry.conversation_seq);
            assert!(head(&mut bobs, &conversation).await?.conversation_seq >= last);
            (have, missing) = (seq, missing - deliver.entries.len());
        }
    }
    assert_eq!(bobs.ping().await?.receiver_seq, Some(have));
    Ok(())
}

pub(crate) async fn p5_an_equal_receivers_seq_means_everything_is_there(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let (bobs, welcome) = world.connect_as(&bob, Wire::Proto, None).await?;
    let nothing = welcome.receiver_seq;
    bobs.drop_connection();
    // Nothing happened: the number is the same.
    assert_eq!(world.connect_as(&bob, Wire::Json, nothing).await?.1.receiver_seq, nothing);
    let mut alices = world.connect(&alice).await?;
    talk(&mut alices, &conversation, 3).await?;
    // Something happened: it is another one.
    let (mut bobs, welcome) = world.connect_as(&bob, Wire::Proto, nothing).await?;
    assert_ne!(welcome.receiver_seq, nothing);
    assert_eq!(bobs.whole_history(&conversation).await?.len(), 3);
    bobs.drop_connection();
    assert_eq!(world.connect_as(&bob, Wire::Proto, None).await?.1.receiver_seq, welcome.receiver_seq);
    Ok(())
}

pub(crate) async fn p5_heads_say_what_is_unread(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    talk(&mut alices, &conversation, 7).await?;
    let mut bobs = world.connect(&bob).await?;
    let at_first = head(&mut bobs, &conversation).await?;
    assert_eq!((at_first.conversation_seq, at_first.countable_seq), (7, 7));
    assert_eq!((at_first.read_seq, at_first.read_countable_seq, at_first.visible_from), (0, 0, 1));
    assert!(at_first.last_sent_at_ms > 0);
    assert_eq!(bobs.mark_read(&conversation, 5).await?.read_seq, 5);
    let read = head(&mut bobs, &conversation).await?;
    assert_eq!((read.read_seq, read.countable_seq - read.read_countable_seq), (5, 2));
    // One user's position is not the other's.
    assert_eq!(head(&mut alices, &conversation).await?.read_seq, 0);
    Ok(())
}

pub(crate) async fn p5_a_read_position_never_goes_back_nor_beyond_the_end(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    talk(&mut alices, &conversation, 4).await?;
    let mut bobs = world.connect(&bob).await?;
    for (asked, now) in [(3, 3), (1, 3), (0, 3), (4, 4), (1_000_000, 4), (u64::MAX, 4)] {
        assert_eq!(bobs.mark_read(&conversation, asked).await?.read_seq, now, "after asking for {asked}");
    }
    assert_eq!(head(&mut bobs, &conversation).await?.read_seq, 4);
    Ok(())
}

pub(crate) async fn p5_who_wrote_is_told_that_it_was_read(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let (mut alices, mut bobs) = (world.connect(&alice).await?, world.connect(&bob).await?);
    talk(&mut alices, &conversation, 2).await?;
    bobs.mark_read(&conversation, 2).await?;
    let receipt = alices.receipt().await?;
    assert_eq!(
        (&receipt.conversation, &receipt.user, receipt.conversation_seq),
        (&conversation, &bob.user, 2)
    );
    Ok(())
}

pub(crate) async fn p5_history_pages_both_ways(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    talk(&mut alices, &conversation, 25).await?;
    let mut bobs = world.connect(&bob).await?;
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
        let answer = bobs.history(asked.clone()).await?;
        assert_eq!((numbers(&answer.entries), answer.more), (expected, more), "{asked:?}");
    }
    // In either order of the users.
    let turned = format!("d:{}:{}", bob.user, alice.user);
    assert_eq!(bobs.history(page(&turned)).await?.entries.len(), 25);
    for contradiction in [
        GetHistory { after: 1, before: 5, ..page(&conversation) },
        GetHistory { after: 1, newest: true, ..page(&conversation) },
    ] {
        assert_eq!(refusal(bobs.history(contradiction).await).code, ErrorCode::InvalidRequest);
    }
    Ok(())
}

pub(crate) async fn p5_heads_come_in_pages(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let mut conversations = Vec::new();
    for _ in 0..7 {
        let conversation = alice.with(&world.user("friend").await?);
        talk(&mut device, &conversation, 1).await?;
        conversations.push(conversation);
    }
    conversations.push(world.group(&alice, &[], "all").await?);
    conversations.sort();
    let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = device.heads(&after, 3).await?;
        ensure!(page.heads.len() <= 3, "a page of {} heads", page.heads.len());
        seen.extend(page.heads.into_iter().map(|head| head.conversation));
        after = seen.last().cloned().unwrap_or_default();
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, pages), (conversations, 3));
    Ok(())
}

pub(crate) async fn p7_pages_have_a_bound(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    talk(&mut device, &conversation, 1).await?;
    for limit in [-1, i32::MIN, 501, i32::MAX] {
        let fault = refusal(device.history(GetHistory { limit, ..page(&conversation) }).await);
        assert_eq!(fault.code, ErrorCode::InvalidRequest, "history, limit {limit}");
        assert!(fault.message.contains("500"), "{}", fault.message);
        assert_eq!(
            refusal(device.heads("", limit).await).code,
            ErrorCode::InvalidRequest,
            "heads, limit {limit}"
        );
    }
    for limit in [0, 1, 500] {
        assert_eq!(device.history(GetHistory { limit, ..page(&conversation) }).await?.entries.len(), 1);
        assert_eq!(device.heads("", limit).await?.heads.len(), 1);
    }
    Ok(())
}

async fn refused_everything(world: &World, stranger: &Session, conversation: &str) -> Result<()> {
    let mut device = world.connect(stranger).await?;
    let forbidden = ErrorCode::Forbidden;
    assert_eq!(refusal(device.send(conversation, &new_id(), "let me in").await).code, forbidden);
    assert_eq!(refusal(device.history(page(conversation)).await).code, forbidden);
    assert_eq!(refusal(device.mark_read(conversation, 1).await).code, forbidden);
    assert_eq!(device.heads("", 0).await?.heads, []);
    Ok(())
}

pub(crate) async fn p8_a_conversation_of_others_is_closed(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let conversation = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    talk(&mut device, &conversation, 1).await?;
    refused_everything(&world, &carol, &conversation).await?;
    // One that is not there looks the same: who asks learns nothing.
    refused_everything(&world, &carol, "g:there-is-no-such-group").await?;
    refused_everything(&world, &carol, &format!("d:{}:nobody", alice.user)).await?;
    assert_eq!(device.whole_history(&conversation).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p8_who_does_not_exist_cannot_be_written_to(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let nobody = abi::ids::direct(&alice.user, &format!("nobody-{}", tests::system::unique()));
    let fault = refusal(device.send(&nobody, &new_id(), "hello").await);
    assert_eq!(fault.code, ErrorCode::NotFound);
    // To oneself is fine: notes.
    let notes = abi::ids::direct(&alice.user, &alice.user);
    device.send(&notes, &new_id(), "buy milk").await?;
    eventually("the note is stored", async || {
        ensure!(device.whole_history(&notes).await?.len() == 1);
        Ok(())
    })
    .await
}
