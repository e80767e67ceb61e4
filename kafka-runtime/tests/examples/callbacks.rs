//! `callbacks`: at-least-once delivery despite failures, and shared partitions. Guards P1 and P9.

use crate::support::{Example, brokers, unique};
use std::collections::BTreeSet;

/// Partition and offset of a record, as printed in the log.
type RecordId = (String, String);

/// The value of a field in a log line.
fn field(line: &str, name: &str) -> String {
    let start = line.find(&format!(" {name}=")).expect("the line must have the field") + name.len() + 2;
    line[start..].split(' ').next().unwrap().to_owned()
}

fn record_ids(lines: &[String], message: &str) -> BTreeSet<RecordId> {
    let lines = lines.iter().filter(|line| line.contains(&format!(": {message} topic=")));
    lines.map(|line| (field(line, "partition"), field(line, "offset"))).collect()
}

/// The partitions that an instance owns, according to its observer.
fn owned(lines: &[String]) -> BTreeSet<String> {
    let mut owned = BTreeSet::new();
    for line in lines {
        let listed = || line.split(" partitions=").nth(1).unwrap_or_default().split(' ').map(str::to_owned);
        if line.contains(": assigned consumer=") {
            owned.extend(listed());
        } else if line.contains(": revoked consumer=") || line.contains(": lost consumer=") {
            listed().for_each(|partition| assert!(owned.remove(&partition), "it did not own {partition}"));
        }
    }
    owned
}

#[tokio::test]
async fn two_instances_share_six_partitions_and_one_takes_over_when_the_other_is_killed() {
    let name = unique("callbacks");
    let address = format!("kafka://{}?topics={name}&group={name}&partitions=6&session.timeout=6s", brokers());
    let start = |arguments: &[&str]| {
        let failing = [&address, "--fail-rate", "0.2", "--every-ms", "20"];
        Example::start("callbacks", &[&failing[..], arguments].concat(), &[])
    };
    let one = start(&["--seed", "1", "--records", "1000"]);
    one.eventually("all six partitions", async || owned(&one.lines()).len() == 6).await;
    let mut two = start(&["--seed", "2", "--records", "0"]);
    let shares = || (owned(&one.lines()), owned(&two.lines()));
    one.eventually("3 and 3", async || {
        let (one, two) = shares();
        one.len() == 3 && two.len() == 3
    })
    .await;
    let (first, second) = shares();
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    two.wait_for_line("handled topic").await;
    two.kill();
    one.eventually("all six partitions again", async || owned(&one.lines()).len() == 6).await;
    one.eventually("every delivered record is handled by an instance", async || {
        let (lines, theirs) = (one.lines(), two.lines());
        let handled = &record_ids(&lines, "handled") | &record_ids(&theirs, "handled");
        let delivered = record_ids(&lines, "delivered");
        delivered.len() == 1000 && delivered.is_subset(&handled)
    })
    .await;
    let (status, lines) = one.stop().await;
    assert!(status.success(), "{status}");
    for message in ["trying again", ": committed consumer=", "a simulated failure"] {
        assert!(lines.iter().any(|line| line.contains(message)), "no line contains {message:?}");
    }
}

#[tokio::test]
async fn on_the_embedded_log_every_record_is_handled_once_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("log:{}?topics=callbacks&group=callbacks&partitions=6", folder.path().display());
    let mut handled = BTreeSet::new();
    for run in 1..=2_usize {
        let arguments = [&address, "--fail-rate", "0.3", "--every-ms", "1", "--records", "60"];
        let example = Example::start("callbacks", &arguments, &[]);
        example
            .eventually("all records are handled", async || {
                (&handled | &record_ids(&example.lines(), "handled")).len() == 60 * run
            })
            .await;
        let (status, lines) = example.stop().await;
        assert!(status.success(), "{status}");
        let now = record_ids(&lines, "handled");
        assert!(handled.is_disjoint(&now), "committed records must not be delivered again");
        handled.extend(now);
    }
}
