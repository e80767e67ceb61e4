//! `texts`: each action is applied once and produces one list, despite crashes; an invalid action stops
//! nothing. Guards P1 and P2.

use crate::support::{Example, brokers, unique};
use kafka_runtime::{Archive, KafkaArchive, KafkaConfig, Log, LogConfig, LogTopic};
use serde_json::{Value, json};

const FIRST: [&str; 4] = [
    r#"{"action":"add","text":"milk"}"#,
    "nonsense",
    r#"{"action":"shout"}"#,
    r#"{"action":"add","text":"tea"}"#,
];
const SECOND: [&str; 3] =
    [r#"{"action":"remove","text":"milk"}"#, r#"{"action":"add","text":"tea"}"#, r#"{"action":"add"}"#];
const MANY: usize = 300;

/// The example on one address.
struct Texts {
    address: String,
    texts: String,
    errors: String,
}

impl Texts {
    fn start(&self, command: &[&str]) -> Example {
        let arguments = [&self.address, "--texts", &self.texts, "--errors", &self.errors];
        Example::start("texts", &[&arguments, command].concat(), &[])
    }

    async fn send(&self, actions: &[impl AsRef<str>]) {
        let actions = actions.iter().map(AsRef::as_ref);
        let mut sending = self.start(&[&["send"], &actions.collect::<Vec<_>>()[..]].concat());
        assert!(sending.ended().await.success(), "{:?}", sending.lines());
    }

    async fn list(&self) -> Vec<String> {
        let mut listing = self.start(&["list"]);
        assert!(listing.ended().await.success(), "{:?}", listing.lines());
        let lines = listing.lines();
        let json = lines.iter().find(|line| line.starts_with('{')).unwrap();
        serde_json::from_value(serde_json::from_str::<Value>(json).unwrap()["texts"].take()).unwrap()
    }

    /// Runs it until it has handled the record at offset `last`, stops it gracefully, and checks the list.
    async fn run_until(&self, last: usize, expected: &[String]) {
        let running = self.start(&["run"]);
        running.wait_for_line(&format!("handled offset={last} ")).await;
        let (status, lines) = running.stop().await;
        assert!(status.success(), "{status}: {lines:?}");
        assert_eq!(self.list().await, expected);
    }

    /// Kills it while it has records to handle.
    async fn run_and_kill(&self) {
        let mut running = self.start(&["run", "--slow", "10"]);
        let handled = || running.lines().iter().filter(|line| line.contains("handled offset=")).count();
        running.eventually("15 batches are handled", async || handled() >= 15).await;
        running.kill();
    }
}

/// Creates an action and applies it to `list`.
fn action(n: usize, list: &mut Vec<String>) -> String {
    if n % 4 == 3 {
        let text = list[n % list.len()].clone();
        list.remove(list.iter().position(|other| *other == text).unwrap());
        return json!({ "action": "remove", "text": text }).to_string();
    }
    list.push(format!("text {n}"));
    json!({ "action": "add", "text": format!("text {n}") }).to_string()
}

async fn payloads(archive: &dyn Archive) -> Vec<Value> {
    let records = archive.read(0, 0, 10_000).await.unwrap();
    records.iter().map(|record| serde_json::from_slice(&record.payload).unwrap()).collect()
}

fn offsets(payloads: &[Value]) -> Vec<usize> {
    payloads.iter().map(|payload| payload["offset"].as_u64().unwrap() as usize).collect()
}

/// Returns the resulting list and the offset of the last action.
async fn each_action_is_applied_once(
    example: &Texts,
    archives: impl FnOnce() -> [Box<dyn Archive>; 2],
) -> (Vec<String>, usize) {
    let mut list = vec!["milk".to_owned(), "tea".to_owned()];
    example.send(&FIRST).await;
    example.run_until(3, &list).await;

    // A restart resumes at the committed offset. Removing a text that occurs twice removes one of them.
    list = vec!["tea".to_owned(), "tea".to_owned()];
    example.send(&SECOND).await;
    example.run_until(6, &list).await;

    let actions: Vec<String> = (0..MANY).map(|n| action(n, &mut list)).collect();
    example.send(&actions).await;
    for _ in 0..2 {
        example.run_and_kill().await;
        assert_ne!(example.list().await, list, "it must be killed before the last action");
    }
    let last = 6 + MANY;
    example.run_until(last, &list).await;

    let [texts, errors] = archives();
    let lists = payloads(texts.as_ref()).await;
    let changes: Vec<usize> = (0..=last).filter(|offset| ![1, 2, 6].contains(offset)).collect();
    assert_eq!(offsets(&lists), changes, "each action must produce one list, in order");
    let answers = payloads(errors.as_ref()).await;
    assert_eq!(offsets(&answers), [1, 2, 6]);
    let errors: Vec<&str> = answers.iter().map(|answer| answer["error"].as_str().unwrap()).collect();
    assert_eq!(errors, ["invalid JSON", "not an action", "not an action"]);
    let reasons: Vec<&str> = answers.iter().map(|answer| answer["reason"].as_str().unwrap()).collect();
    assert!(reasons[1].contains("`shout`") && reasons[2].contains("`text`"), "{reasons:?}");
    (list, last)
}

#[tokio::test]
async fn texts_applies_each_action_once_despite_crashes_on_kafka() {
    let (actions, texts, errors) = (unique("actions"), unique("texts"), unique("errors"));
    let options = format!("topics={actions}&group={actions}&instance=one&batch.records=5");
    let address = format!("kafka://{}?{options}", brokers());
    let archive = |topic: &str| -> Box<dyn Archive> {
        Box::new(KafkaArchive::new(KafkaConfig::new(vec![brokers()], "test"), topic))
    };
    let archives = [archive(&texts), archive(&errors)];
    let mut example = Texts { address, texts, errors };
    let (mut list, last) = each_action_is_applied_once(&example, || archives).await;

    // If the list is lost, it is rebuilt from the actions, which Kafka still has.
    example.texts = unique("texts");
    list.push("coffee".to_owned());
    example.send(&[r#"{"action":"add","text":"coffee"}"#]).await;
    example.run_until(last + 1, &list).await;
}

#[tokio::test]
async fn texts_applies_each_action_once_despite_crashes_on_the_embedded_log() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("log:{}?topics=actions&group=texts&batch.records=5", folder.path().display());
    let example = Texts { address, texts: "texts".into(), errors: "errors".into() };
    each_action_is_applied_once(&example, || {
        let topics =
            vec![LogTopic::new("actions", 1), LogTopic::untrimmed("texts"), LogTopic::untrimmed("errors")];
        let log = Log::open(LogConfig::new(folder.path(), topics)).unwrap();
        ["texts", "errors"].map(|topic| -> Box<dyn Archive> { Box::new(log.archive(topic).unwrap()) })
    })
    .await;
}
