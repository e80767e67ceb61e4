//! The documented metrics, compared with the source code and with running programs.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tests::{
    device::new_id,
    eventually,
    metrics::{Metrics, exported, table},
    system::{DISTRIBUTED_PROGRAMS, Distributed, Embedded},
    world::World,
};

/// Metrics that every system exports after one message.
const AFTER_A_MESSAGE: [&str; 10] = [
    "godwit_ws_gateway_connections",
    "godwit_ws_gateway_sends_total",
    "godwit_ws_gateway_acks_total",
    "godwit_ws_gateway_deliveries_total",
    "godwit_ws_gateway_delivery_seconds",
    "godwit_consumer_batch_records",
    "godwit_db_service_save_seconds",
    "godwit_pusher_delivery_seconds",
    "godwit_kafka_runtime_produced_total",
    "godwit_utils_ready",
];

pub(crate) async fn the_documented_metrics_match_the_source_code() -> Result<()> {
    let table = table()?;
    ensure!(table.len() > 40, "docs/metrics.md has a table of {} rows", table.len());
    let mut literals = BTreeSet::new();
    let mut sources = Vec::new();
    for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))? {
        sources.extend(metrics_files(&folder?.path().join("src"))?);
    }
    for source in sources {
        let text = fs::read_to_string(&source)?;
        literals.extend(text.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    let named: BTreeSet<_> = literals.iter().filter(|literal| literal.starts_with("godwit_")).collect();
    assert_eq!(
        table.keys().collect::<BTreeSet<_>>(),
        named,
        "names in docs/metrics.md, and in the source code"
    );
    for (name, row) in &table {
        let kind = match name.rsplit('_').next() {
            Some("total") => "counter",
            Some("seconds") => "histogram",
            _ => &*row.kind,
        };
        assert_eq!(row.kind, kind, "{name}");
        ensure!(
            literals.contains(&row.meaning),
            "{name}: the source code has no help text \"{}\"",
            row.meaning
        );
    }
    Ok(())
}

/// Every `metrics.rs` in a folder.
fn metrics_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(metrics_files(&path)?);
        } else if path.ends_with("metrics.rs") {
            files.push(path);
        }
    }
    Ok(files)
}

pub(crate) async fn embedded_exported_metrics_match_the_documentation() -> Result<()> {
    let system = Embedded::start(&[]).await?;
    let admin = system.admin().to_owned();
    check_exported(&World::new(std::sync::Arc::new(system)), &[admin]).await
}

pub(crate) async fn distributed_exported_metrics_match_the_documentation() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    let mut admins = Vec::new();
    for program in DISTRIBUTED_PROGRAMS {
        admins.extend(system.instances(program).map(|instance| instance.admin().to_owned()));
    }
    check_exported(&World::new(std::sync::Arc::new(system)), &admins).await
}

/// Sends a message, and checks that the table has every exported metric, with its type and meaning.
async fn check_exported(world: &World, admins: &[String]) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    alice_device.send(&alice.conversation_with(&bob), &new_id(), "hello").await?;
    bob_device.entries(1).await?;
    alice_device.entries(1).await?;
    let table = table()?;
    let mut seen = Metrics::new();
    eventually("the metrics of a message are exported", async || {
        for admin in admins {
            seen.extend(exported(admin).await?);
        }
        let missing: Vec<_> = AFTER_A_MESSAGE.iter().filter(|name| !seen.contains_key(**name)).collect();
        ensure!(missing.is_empty(), "{missing:?} are missing");
        Ok(())
    })
    .await?;
    for (name, metric) in seen {
        let row = table.get(&name).with_context(|| format!("docs/metrics.md does not name {name}"))?;
        assert_eq!(metric, *row, "{name}: as exported, and in docs/metrics.md");
    }
    Ok(())
}
