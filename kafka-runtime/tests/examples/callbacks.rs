//! `callbacks`: at least once in spite of failures, and partitions that are shared. Guards P1 and P9.

use crate::support::{Example, brokers, unique};
use std::collections::BTreeSet;

/// A place in the topic, as the log names it.
type Place = (String, String);

/// The value of a field in a line of the log.
fn field(line: &str, name: &str) -> String {
    let start = line.find(&format!(" {name}=")).expect("the field is there") + name.len() + 2;
    line[start..].split(' ').next().unwrap().to_owned()
}

fn places(lines: &[String], message: &str) -> BTreeSet<Place> {
    let lines = lines.iter().filter(|line| line.contains(&format!(": {message} topic=")));
    lines.map(|line| (field(line, "partition"), field(line, "offset"))).collect()
}

/// The partitions that an instance owns, by what its observer was told.
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
    two.says("handled topic").await;
    two.kill();
    one.eventually("all six partitions again", async || owned(&one.lines()).len() == 6).await;
    one.eventually("all that was delivered is handled by one of them", async || {
        let (lines, theirs) = (one.lines(), two.lines());
        let handled = &places(&lines, "handled") | &places(&theirs, "handled");
        let delivered = places(&lines, "delivered");
        delivered.len() == 1000 && delivered.is_subset(&handled)
    })
    .await;
    let (status, lines) = one.stop().await;
    assert!(status.success(), "{status}");
    for message in ["trying again", ": committed consumer=", "a simulated failure"] {
        assert!(lines.iter().any(|line| line.contains(message)), "nothing says {message:?}");
    }
}

#[tokio::test]
async fn on_the_embedded_log_all_is_handled_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("log:{}?topics=callbacks&group=callbacks&partitions=6", folder.path().display());
    let mut handled = BTreeSet::new();
    for run in 1..=2_usize {
        let arguments = [&address, "--fail-rate", "0.3", "--every-ms", "1", "--records", "60"];
        let example = Example::start("callbacks", &arguments, &[]);
        example
            .eventually("all is handled", async || {
                (&handled | &places(&example.lines(), "handled")).len() == 60 * run
            })
            .await;
        let (status, lines) = example.stop().await;
        assert!(status.success(), "{status}");
        let now = places(&lines, "handled");
        assert!(handled.is_disjoint(&now), "what was committed does not come again");
        handled.extend(now);
    }
}
