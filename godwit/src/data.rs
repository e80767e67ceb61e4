//! The data folder: its log, its store, and the consumer between them.

use abi::{EMBEDDED_TOPIC, config::Config, dead_letter_topic};
use cache::Cache;
use kafka_runtime::{Consumer, ConsumerConfig, DeadLetters, Log, LogConfig, LogTopic};
use std::{path::Path, sync::Arc, time::Duration};

/// Deadline of a call between services of this process.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The consumer group of the one consumer.
pub(crate) const GROUP: &str = "godwit";
/// Folder of the store within the data folder.
pub(crate) const STORE: &str = "store";
/// Folder of the log within the data folder.
pub(crate) const LOG: &str = "log";

/// The consumer that stores the log's records and pushes them to devices.
pub(crate) fn consume(
    log: &Log,
    db: abi::Channel,
    push: abi::Channel,
    cache: Arc<dyn Cache>,
    config: &Config,
) -> anyhow::Result<Consumer> {
    let handler = consumer::handler(db.clone(), push, cache);
    let source = Arc::new(log.source(GROUP, &[EMBEDDED_TOPIC])?);
    Ok(Consumer::batches(source, handler)
        .dead_letters(DeadLetters::new(Arc::new(log.clone()), dead_letter_topic(EMBEDDED_TOPIC)))
        .config(ConsumerConfig {
            max_records: config.consumer.max_batch as usize,
            ..ConsumerConfig::default()
        })
        .start_offsets(consumer::start_offsets(db.clone()))
        .before_commit(consumer::before_commit(db)))
}

/// Opens the log, which locks the data folder.
///
/// # Errors
/// Another process uses the folder, or it cannot be read or written.
pub(crate) fn open_log(data: &Path, config: &Config) -> anyhow::Result<Log> {
    let topics =
        vec![LogTopic::new(EMBEDDED_TOPIC, 1), LogTopic::untrimmed(dead_letter_topic(EMBEDDED_TOPIC))];
    let settings = LogConfig {
        max_backlog: config.embedded.max_backlog as usize,
        produce_timeout: config.kafka.produce_timeout,
        keep: config.embedded.kept_records.into(),
        ..LogConfig::new(data.join(LOG), topics)
    };
    Log::open(settings).map_err(|error| match error {
        kafka_runtime::Error::Locked { .. } => anyhow::anyhow!(
            "the data in {} are in use by another godwit; stop it, or choose another folder with --data",
            data.display()
        ),
        error => anyhow::Error::new(error).context(format!("the log in {} cannot be opened", data.display())),
    })
}
