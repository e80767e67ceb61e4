//! Former members of groups: what they keep, and what they can no longer do.

use crate::groups::{add, members, remove};
use abi::{
    error::ErrorCode,
    v1::{Role, group_change::Change},
};
use anyhow::{Context as _, Result, ensure};
use tests::{
    device::{Device, group_change as change, new_id, refusal, seqs},
    eventually,
    world::World,
};

/// A removed member keeps what could be read before, up to the entry that says so, and can't do anything.
async fn check_removed(device: &mut Device, group: &str, visible_until: u64) -> Result<()> {
    assert_eq!(refusal(device.send(group, &new_id(), "hello").await).code, ErrorCode::Forbidden);
    let entries = device.whole_history(group).await?;
    assert_eq!(seqs(&entries).last(), Some(&visible_until));
    let heads = device.heads().await?;
    let head = heads.iter().find(|head| head.conversation == group).context("the group has no head")?;
    assert_eq!((head.role(), head.visible_until), (Role::Unspecified, visible_until));
    assert_eq!(head.conversation_seq, visible_until);
    Ok(())
}

pub(crate) async fn p8_a_removed_member_can_neither_send_nor_read(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let group = world.group(&alice, &[&bob, &carol], "all").await?;
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    bob_device.send(&group, &new_id(), "still here").await?;
    assert_eq!(remove(&world, &alice, &group, &bob).await?.status, 200);
    check_removed(&mut bob_device, &group, 3).await?;
    let secret = alice_device.send(&group, &new_id(), "now that bob is gone").await?;
    let mut carol_device = world.connect(&carol).await?;
    eventually("the message is stored", async || {
        let seen = carol_device.whole_history(&group).await?;
        ensure!(seen.iter().any(|entry| entry.message_id == secret.message_id));
        Ok(())
    })
    .await?;
    // Bob's device gets entries of his own conversations, and never the secret of the group.
    let notes = abi::ids::direct(&bob.user, &bob.user);
    let last = bob_device.send(&notes, &new_id(), "last").await?;
    loop {
        let entries = bob_device.deliver().await?.entries;
        assert!(entries.iter().all(|entry| entry.message_id != secret.message_id));
        if entries.iter().any(|entry| entry.message_id == last.message_id) {
            return Ok(());
        }
    }
}

pub(crate) async fn p5_a_removed_member_receives_the_removal(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut bob_device = world.connect(&bob).await?;
    assert_eq!(remove(&world, &alice, &group, &bob).await?.status, 200);
    loop {
        let entries = bob_device.deliver().await?.entries;
        if entries.iter().any(|entry| matches!(change(entry), Some(Change::Removed(_)))) {
            return Ok(());
        }
    }
}

pub(crate) async fn p8_a_member_who_left_can_neither_send_nor_read_and_ownership_passes_on(
    world: World,
) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    assert_eq!(add(&world, &alice, &group, &[&carol]).await?.status, 200);
    let mut alice_device = world.connect(&alice).await?;
    assert_eq!(remove(&world, &alice, &group, &alice).await?.status, 200);
    check_removed(&mut alice_device, &group, 3).await?;
    // The member who joined first is the new owner.
    let listed = members(&world, &carol, &group).await?;
    let roles: Vec<_> = listed.iter().map(|member| (member.user.as_str(), member.role())).collect();
    assert_eq!(roles, [(&*bob.user, Role::Owner), (&*carol.user, Role::Member)]);
    assert_eq!(add(&world, &bob, &group, &[&alice]).await?.status, 200);
    assert_eq!(alice_device.send(&group, &new_id(), "back again").await?.message_id.len(), 32);
    Ok(())
}
