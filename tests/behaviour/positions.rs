//! The position of the store in the log: a store that lacks entries catches up by itself. See also the restores in [`backup`](crate::backup).

use crate::backup::{numbered, send_all};
use abi::v1::Entry;
use anyhow::{Result, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, raw_sql};
use std::path::Path;
use tests::{
    device::texts,
    eventually,
    system::{Distributed, Embedded, Instance, Servers, unique},
    world::{Session, World},
};

/// The numbers and the message ids of entries.
pub(crate) fn numbers(entries: &[Entry]) -> Vec<(u64, String)> {
    entries.iter().map(|entry| (entry.conversation_seq, entry.message_id.clone())).collect()
}

/// The entries of a conversation, once there are so many.
async fn stored(world: &World, reader: &Session, conversation: &str, count: usize) -> Result<Vec<Entry>> {
    let mut device = world.connect(reader).await?;
    eventually("every acknowledged message is stored", async || {
        let stored = device.whole_history(conversation).await?;
        ensure!(stored.len() == count, "{} of {count}: {:?}", stored.len(), texts(&stored));
        Ok(stored)
    })
    .await
}

pub(crate) async fn p1_an_older_store_is_completed_from_the_log_with_the_same_numbers() -> Result<()> {
    let mut system = Embedded::start(&["gateway.drain=200ms"]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (store, older) = (system.data().join("store"), system.data().join("older"));
    send_all(&world, &alice, &conversation, &numbered("kept", 0..10)).await?;
    stop(&mut system).await?;
    copy_folder(&store, &older)?;
    system.start_again().await?;
    send_all(&world, &alice, &conversation, &numbered("in the log", 0..25)).await?;
    let before = stored(&world, &bob, &conversation, 35).await?;

    // As after a restore, or after a power cut that took the last transactions. The log has committed all records.
    stop(&mut system).await?;
    std::fs::remove_dir_all(&store)?;
    std::fs::rename(&older, &store)?;
    system.start_again().await?;
    assert_eq!(numbers(&stored(&world, &bob, &conversation, 35).await?), numbers(&before));
    send_all(&world, &alice, &conversation, &numbered("after", 0..1)).await?;
    let after = stored(&world, &bob, &conversation, 36).await?;
    assert_eq!(numbers(&after)[..35], numbers(&before));
    assert_eq!(after[35].conversation_seq, 36);
    Ok(())
}

/// The tables that are written when messages are saved.
const SAVED: [&str; 4] = ["conversations", "entries", "members", "log_positions"];

pub(crate) async fn p1_a_database_without_its_last_transactions_is_completed_from_kafka() -> Result<()> {
    let servers = Servers::from_environment()?;
    let schema = format!("godwit_test_{}", unique());
    let mut system = Distributed::start_on(servers.clone(), &[&format!("db.schema={schema}")]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut database = PgConnection::connect(&servers.postgres).await?;
    send_all(&world, &alice, &conversation, &numbered("kept", 0..10)).await?;
    stored(&world, &bob, &conversation, 10).await?;
    let keep = SAVED.map(|table| format!("CREATE TABLE {schema}.kept_{table} AS TABLE {schema}.{table};"));
    raw_sql(AssertSqlSafe(keep.concat())).execute(&mut database).await?;
    send_all(&world, &alice, &conversation, &numbered("lost", 0..25)).await?;
    let before = stored(&world, &bob, &conversation, 35).await?;

    // As after the promotion of an asynchronous standby, while the services run.
    let lose = SAVED.map(|table| {
        let row = "OVERRIDING SYSTEM VALUE";
        format!(
            "DELETE FROM {schema}.{table}; INSERT INTO {schema}.{table} {row} TABLE {schema}.kept_{table};"
        )
    });
    raw_sql(AssertSqlSafe(format!("BEGIN; {} COMMIT", lose.concat()))).execute(&mut database).await?;
    assert_eq!(stored(&world, &bob, &conversation, 10).await?.len(), 10);
    // The consumer of the partition notices with its next save. The other one takes the partition over.
    send_all(&world, &alice, &conversation, &numbered("after", 0..1)).await?;
    let after = stored(&world, &bob, &conversation, 36).await?;
    assert_eq!(numbers(&after)[..35], numbers(&before));
    let mut noticed: Vec<&mut Instance> = Vec::new();
    for consumer in system.instances("consumer") {
        if consumer.process().output().iter().any(|line| line.contains("the store has lost entries")) {
            noticed.push(consumer);
        }
    }
    assert_eq!(noticed.len(), 1);
    let status = noticed[0].process().ended().await?;
    ensure!(
        !status.success(),
        "the consumer must report the failure to its supervisor, but ended with {status}"
    );
    noticed[0].start_again().await?;
    send_all(&world, &alice, &conversation, &numbered("later", 0..1)).await?;
    assert_eq!(stored(&world, &bob, &conversation, 37).await?[36].conversation_seq, 37);
    Ok(())
}

async fn stop(system: &mut Embedded) -> Result<()> {
    system.process().signal("TERM")?;
    let status = system.process().ended().await?;
    ensure!(status.success(), "it ended with {status}: {}", system.process().output().join("\n"));
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
