//! Settings that an address has for the embedded log.

use super::Address;
use super::raw::Endpoint;
use super::values::size;
use crate::log::{LogConfig, LogTopic};

impl Address {
    /// Settings of the embedded log, with the topics of this address; `None` for Kafka. The dead-letter topic keeps
    /// committed records.
    pub fn log_config(&self) -> Option<LogConfig> {
        let Endpoint::Log { folder } = &self.endpoint else { return None };
        let settings = &self.settings;
        let partitions = settings.partitions.unwrap_or(1);
        let topics = settings.topics.iter().map(|topic| LogTopic::new(topic.as_str(), partitions));
        let topics = topics.chain(settings.dead_letters.as_deref().map(LogTopic::untrimmed)).collect();
        Some(LogConfig {
            max_backlog: settings.log_backlog,
            max_queued: settings.produce_queue_records as usize,
            max_queued_bytes: size(settings.produce_queue_bytes),
            produce_timeout: settings.produce_timeout,
            max_record_bytes: size(settings.produce_record_bytes),
            keep: settings.log_keep,
            max_file_bytes: settings.log_bytes,
            ..LogConfig::new(folder, topics)
        })
    }
}
