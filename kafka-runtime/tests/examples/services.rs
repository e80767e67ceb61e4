//! `services`: several consumers from one file of configuration. Guards P1 and P6.

use crate::support::{Example, brokers, unique};

const CONFIG: &str = include_str!("../../examples/services.toml");

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

/// The sum of a field over the lines that say `text`.
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

    // `audit` begins with what comes after its first start, so nothing is ordered in that one.
    let first = Example::start("services", &[path], &[]);
    let assigned = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("partition assigned") && line.contains("audit")).count()
    };
    first.eventually("it has its four partitions", async || assigned(&first.lines()) == 4).await;
    let (status, _) = first.stop().await;
    assert!(status.success(), "{status}");

    let orders = Example::start("services", &[path, "--orders", "30"], &[]);
    orders.says("all orders are placed").await;
    orders.eventually("27 orders are billed", async || count(&orders.lines(), " billed") == 27).await;
    orders
        .eventually("33 records are seen", async || {
            let lines = orders.lines();
            count(&lines, ": seen topic=") == 33 && count(&lines, ".unbilled") >= 3
        })
        .await;
    let booked = |lines: &[String]| (sum(lines, " booked", "records="), sum(lines, " booked", "taken="));
    let taken = (0..30).filter(|n| n % 10 != 9).map(|n| n % 3 + 1).sum();
    orders.eventually("what was ordered is booked", async || booked(&orders.lines()) == (30, taken)).await;
    let (status, lines) = orders.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(booked(&lines), (30, taken), "nothing is booked twice");
    assert!(count(&lines, " booked") < 30, "batches");

    // All was committed: nothing comes again.
    let last = Example::start("services", &[path, "--orders", "1"], &[]);
    last.eventually("the order is handled by all", async || {
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
async fn all_that_is_wrong_with_a_section_is_said() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = CONFIG.replace("ordering = \"key\"\nconcurrency = 8", "odering = \"key\"\nconcurrency = 0");
    std::fs::write(file.path(), config).unwrap();
    let mut example = Example::start("services", &[file.path().to_str().unwrap()], &[]);
    assert!(!example.ended().await.success());
    let said = example.lines().join("\n");
    assert!(
        said.contains("did you mean `ordering`?") && said.contains("`concurrency` must be a number"),
        "{said}"
    );
}
