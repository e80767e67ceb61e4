//! A list of texts that is changed by actions. The actions come from a topic as JSON. After each action the list is written
//! to the topic `texts`; invalid actions are answered in the topic `errors`. Lists, answers and the offset of the last action
//! are written in one transaction: even after crashes, each action is applied once and produces one list.
//!
//! On the embedded log, which only one process can open, so stop `run` before the others:
//!
//! ```sh
//! texts() { cargo run -q -p kafka-runtime --example texts -- 'log:/tmp/texts?topics=actions&group=texts' "$@"; }
//! texts send '{"action":"add","text":"milk"}' '{"action":"add","text":"tea"}' 'nonsense' '{"action":"remove","text":"milk"}'
//! texts run    # until Ctrl-C, which stops it gracefully; or kill it and run it again
//! texts list
//! ```
//!
//! On Apache Kafka, `send` and `list` work beside `run`: use `'kafka://127.0.0.1:9092?topics=actions&group=texts&instance=one'`.
//! A second `run`, with another `instance`, takes over when the first one ends.

#![expect(clippy::print_stdout, reason = "prints the list")]

use anyhow::bail;
use clap::{Parser, Subcommand};
use kafka_runtime::topics::{self, TopicSpec};
use kafka_runtime::{
    Address, Archive, Batch, Consumer, HandlerError, KafkaArchive, KafkaProducer, KafkaSource, Log, LogTopic,
    Producer, ProducerRecord, Record, Source,
};
use serde::{Deserialize, Serialize};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Records per read.
const CHUNK: usize = 100;

/// A list of texts that is changed by actions.
#[derive(Parser)]
struct Options {
    /// Address: kafka://HOST:PORT?topics=ACTIONS&group=GROUP, or log:DIRECTORY?topics=ACTIONS&group=GROUP
    address: Address,
    /// Topic for the lists
    #[arg(long, default_value = "texts")]
    texts: Arc<str>,
    /// Topic for the answers to invalid actions
    #[arg(long, default_value = "errors")]
    errors: Arc<str>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Handle actions until SIGINT or SIGTERM
    Run {
        /// Delay of each batch in milliseconds, to have time for a kill
        #[arg(long, default_value_t = 0)]
        slow: u64,
    },
    /// Send actions, in this order
    Send { actions: Vec<String> },
    /// Print the last list
    List,
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Action {
    Add { text: String },
    Remove { text: String },
}

/// The result of all actions up to `offset`.
#[derive(Clone, Deserialize, Serialize)]
struct List {
    /// The offset of the last action.
    offset: i64,
    texts: Vec<String>,
}

impl List {
    /// The list before the first action.
    const EMPTY: Self = Self { offset: -1, texts: Vec::new() };

    fn apply(&mut self, record: &Record) -> Result<(), serde_json::Error> {
        match serde_json::from_slice(&record.payload)? {
            Action::Add { text } => self.texts.push(text),
            Action::Remove { text } => {
                let place = self.texts.iter().position(|other| *other == text);
                place.map(|place| self.texts.remove(place));
            }
        }
        self.offset = record.offset;
        Ok(())
    }
}

/// The answer to an invalid action. It goes to the sender, so it may quote the action.
#[derive(Serialize)]
struct Refusal {
    offset: i64,
    error: &'static str,
    reason: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    tracing_subscriber::fmt().with_ansi(is_terminal).init();
    let log = open(&options).await?;
    match options.command {
        Command::Run { slow } => run(log, &options.address, Duration::from_millis(slow)).await,
        Command::Send { actions } => {
            for action in actions {
                log.producer
                    .send(ProducerRecord::new(Arc::clone(log.actions.topic()), "list", action))
                    .await?;
            }
            Ok(())
        }
        Command::List => {
            println!("{}", serde_json::to_string(&log.last_list(i64::MAX).await?)?);
            Ok(())
        }
    }
}

/// The topics, on either log.
struct Topics {
    source: Arc<dyn Source>,
    producer: Arc<dyn Producer>,
    actions: Arc<dyn Archive>,
    texts: Arc<dyn Archive>,
    errors: Arc<str>,
}

async fn open(Options { address, texts, errors, .. }: &Options) -> anyhow::Result<Topics> {
    let ([actions], Some(group)) = (address.topics(), address.group()) else {
        bail!("the address must name one topic and a group: ?topics=actions&group=texts");
    };
    let errors = Arc::clone(errors);
    let topics = if let Some(mut config) = address.log_config() {
        let untrimmed = [texts, &errors].map(|name| LogTopic::untrimmed(Arc::clone(name)));
        config.topics = [LogTopic::new(actions.as_str(), 1)].into_iter().chain(untrimmed).collect();
        let log = Log::open(config)?;
        let source = Arc::new(log.source(group, &[actions])?);
        let (actions, texts) = (Arc::new(log.archive(actions)?), Arc::new(log.archive(texts)?));
        Topics { source, producer: Arc::new(log), actions, texts, errors }
    } else {
        let (Some(kafka), Some(source)) = (address.kafka_config()?, address.source_config()?) else {
            bail!("the address is neither Kafka nor an embedded log");
        };
        let specs = address.topic_specs().into_iter().take(1).flat_map(|spec| {
            let name = |name: &str| TopicSpec { name: name.into(), partitions: Some(1), ..spec.clone() };
            [name(actions), name(texts), name(&errors)]
        });
        topics::ensure(&kafka, &specs.collect::<Vec<_>>(), address.start_timeout()).await?;
        let producer = Arc::new(KafkaProducer::new(&kafka, address.producer_config())?);
        let actions = Arc::new(KafkaArchive::new(kafka.clone(), actions.as_str()));
        let texts = Arc::new(KafkaArchive::new(kafka, Arc::clone(texts)));
        Topics { source: Arc::new(KafkaSource::new(source)), producer, actions, texts, errors }
    };
    for topic in [&topics.actions, &topics.texts] {
        if topic.bounds().await?.len() != 1 {
            bail!("{} has several partitions: one list needs one order of its actions", topic.topic());
        }
    }
    Ok(topics)
}

async fn run(topics: Topics, address: &Address, slow: Duration) -> anyhow::Result<()> {
    let source = Arc::clone(&topics.source);
    let handler = Arc::new((topics, Mutex::new(List::EMPTY)));
    let handler = tower::service_fn(move |batch: Batch| {
        let handler = Arc::clone(&handler);
        async move {
            tokio::time::sleep(slow).await;
            let (topics, last) = &*handler;
            topics.handle(&batch, &mut *last.lock().await).await.map_err(HandlerError::retry)
        }
    });
    let consumer = Consumer::transform(source, handler).named("texts").config(address.consumer_config());

    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut running = pin!(consumer.run(stop.clone()));
    loop {
        tokio::select! {
            ended = &mut running => break Ok(ended?),
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
}

impl Topics {
    /// The outputs of a batch. `last` is the list after the previous call.
    ///
    /// The batch must be applied to the list of all actions before it, whether or not this process has handled
    /// them. `last` is that list if it ends just before the batch. It does not if this is the first batch here,
    /// if the batch is delivered again because its outputs were not written, or if another member owned the partition
    /// in between. Then the list is read from the log.
    async fn handle(&self, batch: &Batch, last: &mut List) -> anyhow::Result<Vec<ProducerRecord>> {
        let (Some(first), Some(end)) = (batch.records.first(), batch.records.last()) else {
            return Ok(Vec::new());
        };
        if last.offset + 1 != first.offset {
            *last = self.list_before(first.offset).await?;
            tracing::info!(
                offset = first.offset,
                texts = last.texts.len(),
                "continuing from the list in the log"
            );
        }
        let mut outputs = Vec::new();
        for record in batch.records.iter() {
            let output =
                |topic: &Arc<str>, json| ProducerRecord::new(Arc::clone(topic), record.key.clone(), json);
            outputs.push(match last.apply(record) {
                Ok(()) => output(self.texts.topic(), serde_json::to_vec(last)?),
                Err(cause) => {
                    let error = if cause.is_data() { "not an action" } else { "invalid JSON" };
                    let refusal = Refusal { offset: record.offset, error, reason: cause.to_string() };
                    output(&self.errors, serde_json::to_vec(&refusal)?)
                }
            });
        }
        last.offset = end.offset;
        tracing::info!(offset = end.offset, texts = last.texts.len(), "handled");
        Ok(outputs)
    }

    /// The list of all actions before `offset`: the last written list, plus the actions after it.
    ///
    /// Usually there are none, with two exceptions. The last records may have been invalid actions. And Kafka
    /// completes a transaction topic by topic, so the committed offset may become visible a moment before the
    /// list. Each list holds the offset of its last action, so the missing actions are known, and the topic
    /// still has them.
    async fn list_before(&self, offset: i64) -> anyhow::Result<List> {
        let mut list = self.last_list(offset).await?;
        let mut from = list.offset + 1;
        while from < offset {
            let records = self.actions.read(0, from, CHUNK).await?;
            let Some(last) = records.last() else { break };
            from = last.offset + 1;
            for record in records.iter().filter(|record| record.offset < offset) {
                // An invalid action was answered already.
                let _ = list.apply(record);
            }
        }
        list.offset = offset - 1;
        Ok(list)
    }

    /// The last list in the log of an action before `offset`.
    async fn last_list(&self, offset: i64) -> anyhow::Result<List> {
        let Some(bounds) = self.texts.bounds().await?.into_iter().next() else { return Ok(List::EMPTY) };
        let mut look_back = CHUNK as i64;
        loop {
            // Aborted transactions may occupy the end of the topic.
            let start = bounds.start.max(bounds.end - look_back);
            let (mut from, mut found) = (start, None);
            loop {
                let records = self.texts.read(0, from, CHUNK).await?;
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                for record in &records {
                    let list: List = serde_json::from_slice(&record.payload)?;
                    if list.offset < offset {
                        found = Some(list);
                    }
                }
            }
            match found {
                Some(list) => return Ok(list),
                None if start == bounds.start => return Ok(List::EMPTY),
                None => look_back *= 10,
            }
        }
    }
}
