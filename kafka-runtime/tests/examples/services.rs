//! `services`: several consumers from one configuration file. Guards P1 and P6.

use crate::support::{Example, brokers, unique};

const CONFIG: &str = include_str!("../../examples/services.toml");

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

/// The sum of a field over the lines that contain `text`.
fn sum(lines: &[String], text: &str, field: &str) -> u32 {
    let lines = lines.iter().filter(|line| line.contains(text));
    lines
        .map(|line| line.split(field).nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap())
        .sum()
}

async fn every_service_handles_every_order(config: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let path = file.path().to_str().unwrap();

    // `audit` starts at the end of its topics, so let it store its start offset before any order is placed.
    let first = Example::start("services", &[path], &[]);
    let assigned = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("partition assigned") && line.contains("audit")).count()
    };
    first.eventually("audit has its four partitions", async || assigned(&first.lines()) == 4).await;
    let (status, _) = first.stop().await;
    assert!(status.success(), "{status}");

    let orders = Example::start("services", &[path, "--orders", "30"], &[]);
    orders.wait_for_line("all orders are placed").await;
    orders.eventually("27 orders are billed", async || count(&orders.lines(), " billed") == 27).await;
    orders
        .eventually("33 records are seen", async || {
            let lines = orders.lines();
            count(&lines, ": seen topic=") == 33 && count(&lines, ".unbilled") >= 3
        })
        .await;
    let booked = |lines: &[String]| (sum(lines, " booked", "records="), sum(lines, " booked", "taken="));
    let taken = (0..30).filter(|n| n % 10 != 9).map(|n| n % 3 + 1).sum();
    orders.eventually("all orders are booked", async || booked(&orders.lines()) == (30, taken)).await;
    let (status, lines) = orders.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(booked(&lines), (30, taken), "no order must be booked twice");
    assert!(count(&lines, " booked") < 30, "orders must be booked in batches");

    // All offsets were committed, so only the new order is handled.
    let last = Example::start("services", &[path, "--orders", "1"], &[]);
    last.eventually("every service handles the order", async || {
        let lines = last.lines();
        count(&lines, " billed") == 1 && count(&lines, " booked") == 1 && count(&lines, ": seen topic=") == 1
    })
    .await;
    let (status, lines) = last.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(count(&lines, " billed"), 1);
}

#[tokio::test]
async fn every_service_handles_every_order_on_the_embedded_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("folder = \"{}\"", folder.path().display());
    every_service_handles_every_order(&CONFIG.replace("folder = \"services-data\"", &data)).await;
}

#[tokio::test]
async fn every_service_handles_every_order_on_kafka() {
    let kafka = format!("brokers = [\"{}\"]\nreplication = 1", brokers());
    let config = CONFIG.replace("folder = \"services-data\"", &kafka);
    let name = unique("services");
    let config =
        config.replace("\"orders", &format!("\"{name}")).replace("group = \"", &format!("group = \"{name}-"));
    every_service_handles_every_order(&config).await;
}

#[tokio::test]
async fn every_config_error_of_a_section_is_reported() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = CONFIG.replace("ordering = \"key\"\nconcurrency = 8", "odering = \"key\"\nconcurrency = 0");
    std::fs::write(file.path(), config).unwrap();
    let mut example = Example::start("services", &[file.path().to_str().unwrap()], &[]);
    assert!(!example.ended().await.success());
    let output = example.lines().join("\n");
    assert!(
        output.contains("did you mean `ordering`?") && output.contains("`concurrency` must be a number"),
        "{output}"
    );
}
