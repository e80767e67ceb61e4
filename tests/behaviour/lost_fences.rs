//! A removal from a group that is not decided yet while Redis loses its data, and with them the fence of the removed user.

use crate::{distributed::OWN_SERVERS, groups::remove};
use abi::error::ErrorCode;
use anyhow::{Result, ensure};
use tests::{
    device::{new_id, refusal},
    eventually,
    system::{Distributed, OwnServers},
    world::World,
};

pub(crate) async fn p1_no_message_behind_a_removal_is_acknowledged_after_a_redis_data_loss() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let mut system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut device = world.connect(&bob).await?;
    for consumer in system.instances("consumer") {
        consumer.process().signal("STOP")?;
    }
    // The removal is in the log, and nobody reads it.
    assert_eq!(remove(&world, &alice, &group, &bob).await?.problem()?, "unavailable");
    for command in ["kill", "wipe", "start"] {
        servers.run(&[command, "redis"])?;
    }
    let message = new_id();
    let undecided = refusal(device.send(&group, &message, "am I still here?").await);
    for consumer in system.instances("consumer") {
        consumer.process().signal("CONT")?;
    }
    assert_eq!(undecided.code, ErrorCode::Unavailable, "{}", undecided.message);
    eventually("the removal is decided", async || {
        let decided = refusal(device.send(&group, &message, "am I still here?").await).code;
        ensure!(decided == ErrorCode::Forbidden, "{decided:?}");
        Ok(())
    })
    .await
}
