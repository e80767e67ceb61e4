//! A removal from a group that is not decided yet while the cache loses its data, and with them the fence of the removed user.

use crate::{distributed::OWN_SERVERS, groups::remove};
use abi::error::ErrorCode;
use anyhow::{Result, ensure};
use tests::{
    device::{Device, new_id, refusal},
    eventually,
    system::{Distributed, Embedded, OwnServers},
    world::World,
};

/// Makes the consumers of a system stop reading, or go on.
fn signal_consumers(system: &mut Distributed, signal: &str) -> Result<()> {
    system.instances("consumer").try_for_each(|consumer| consumer.process().signal(signal))
}

/// Sends the message of a removed user, and checks that it is not acknowledged although the removal is not decided.
async fn check_undecided(device: &mut Device, group: &str, message: &str) {
    let undecided = refusal(device.send(group, message, "am I still here?").await);
    assert_eq!(undecided.code, ErrorCode::Unavailable, "{}", undecided.message);
}

/// Repeats the message of a removed user until the removal is decided.
async fn check_removed(device: &mut Device, group: &str, message: &str) -> Result<()> {
    eventually("the removal is decided", async || {
        let decided = refusal(device.send(group, message, "am I still here?").await).code;
        ensure!(decided == ErrorCode::Forbidden, "{decided:?}");
        Ok(())
    })
    .await
}

pub(crate) async fn p1_no_message_behind_a_removal_is_acknowledged_after_a_redis_data_loss() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let mut system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut device = world.connect(&bob).await?;
    signal_consumers(&mut system, "STOP")?;
    // The removal is in the log, and nobody reads it.
    assert_eq!(remove(&world, &alice, &group, &bob).await?.problem()?, "unavailable");
    for command in ["kill", "wipe", "start"] {
        servers.run(&[command, "redis"])?;
    }
    let message = new_id();
    check_undecided(&mut device, &group, &message).await;
    signal_consumers(&mut system, "CONT")?;
    check_removed(&mut device, &group, &message).await
}

pub(crate) async fn p1_no_message_behind_a_removal_is_acknowledged_after_gateways_and_redis_restart()
-> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let mut system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    signal_consumers(&mut system, "STOP")?;
    assert_eq!(remove(&world, &alice, &group, &bob).await?.problem()?, "unavailable");
    system.instances("ws-gateway").for_each(|gateway| gateway.kill());
    for command in ["kill", "wipe", "start"] {
        servers.run(&[command, "redis"])?;
    }
    for gateway in system.instances("ws-gateway") {
        gateway.start_again().await?;
    }
    let (mut device, message) = (world.connect(&bob).await?, new_id());
    check_undecided(&mut device, &group, &message).await;
    signal_consumers(&mut system, "CONT")?;
    check_removed(&mut device, &group, &message).await
}

/// Makes the store refuse to save records, also after a restart, or lets it save again.
fn hold_store(system: &Embedded, hold: bool) -> Result<()> {
    let store = rusqlite::Connection::open(system.data().join("store/store.sqlite"))?;
    store.busy_timeout(std::time::Duration::from_secs(10))?;
    store.execute_batch(match hold {
        true => {
            "CREATE TRIGGER held BEFORE INSERT ON log_positions BEGIN SELECT RAISE(ABORT, 'held by a test'); END"
        }
        false => "DROP TRIGGER held",
    })?;
    Ok(())
}

pub(crate) async fn p1_no_message_behind_a_removal_is_acknowledged_after_a_sigkill() -> Result<()> {
    let mut system = Embedded::start(&[]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let group = world.group(&alice, &[&bob], "all").await?;
    hold_store(&system, true)?;
    assert_eq!(remove(&world, &alice, &group, &bob).await?.problem()?, "unavailable");
    system.kill();
    system.start_again().await?;
    let (mut device, message) = (world.connect(&bob).await?, new_id());
    check_undecided(&mut device, &group, &message).await;
    hold_store(&system, false)?;
    check_removed(&mut device, &group, &message).await?;
    // The store has decided everything. From then on messages are acknowledged without it.
    let mut device = world.connect(&alice).await?;
    for _ in 0..5 {
        device.send(&group, &new_id(), "bob is gone").await?;
    }
    hold_store(&system, true)?;
    device.send(&group, &new_id(), "while the store is away").await?;
    hold_store(&system, false)
}
