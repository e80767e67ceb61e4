//! From an address to the settings of clients, logs and consumers.

use super::values::Secret;
use super::{Address, Endpoint};
use crate::backoff::Backoff;
use crate::consumer::{ConsumerConfig, Ordering, RetryPolicy};
use crate::error::Error;
use crate::kafka::{KafkaConfig, KafkaProducerConfig, KafkaSourceConfig};
use crate::log::{LogConfig, LogTopic};
use crate::source::{InitialOffset, QueueLimits};
use crate::topics::TopicSpec;
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

/// No password is longer than this.
const MAX_SECRET: u64 = 64 << 10;

impl Address {
    /// How to reach the brokers; `None` for an embedded log.
    ///
    /// # Errors
    /// The file of the password can't be read.
    pub fn kafka_config(&self) -> Result<Option<KafkaConfig>, Error> {
        let Endpoint::Kafka { brokers } = &self.endpoint else { return Ok(None) };
        let settings = &self.settings;
        let mut properties = Vec::new();
        let mut set = |name: &str, value: &str| properties.push((name.to_owned(), value.to_owned()));
        match (&settings.tls_ca, &settings.sasl_username) {
            (None, None) => {}
            (None, Some(_)) => set("security.protocol", "sasl_plaintext"),
            (Some(_), None) => set("security.protocol", "ssl"),
            (Some(_), Some(_)) => set("security.protocol", "sasl_ssl"),
        }
        if let (Some(username), Some(password)) = (&settings.sasl_username, &settings.sasl_password) {
            set("sasl.mechanism", settings.sasl_mechanism);
            set("sasl.username", username);
            set("sasl.password", &read_secret(password)?);
        }
        if let Some(ca) = &settings.tls_ca {
            set("ssl.ca.location", if ca == "system" { "probe" } else { ca });
        }
        if let (Some(certificate), Some(key)) = (&settings.tls_cert, &settings.tls_key) {
            set("ssl.certificate.location", certificate);
            set("ssl.key.location", key);
        }
        properties.extend(settings.properties.iter().cloned());
        Ok(Some(KafkaConfig { brokers: brokers.clone(), client_id: settings.client_id.clone(), properties }))
    }

    /// Settings of a member of the group; `None` for an embedded log.
    ///
    /// # Errors
    /// There is no group or no topic, or the file of the password can't be read.
    pub fn source_config(&self) -> Result<Option<KafkaSourceConfig>, Error> {
        let (group, topics) = self.subscription()?;
        let Some(kafka) = self.kafka_config()? else { return Ok(None) };
        let settings = &self.settings;
        Ok(Some(KafkaSourceConfig {
            kafka,
            group: group.to_owned(),
            topics: topics.to_vec(),
            initial_offset: settings.offset,
            instance_id: settings.instance.clone(),
            session_timeout: settings.session_timeout,
            poll_interval: settings.poll_interval,
            isolation: settings.isolation.into(),
            assignment: settings.assignment.into(),
            queue: QueueLimits { records: settings.queue_records, bytes: size(settings.queue_bytes) },
            revoke_timeout: settings.revoke_timeout(),
            fetch_wait: settings.fetch_wait,
            fetch_bytes: u32::try_from(settings.fetch_bytes).unwrap_or(u32::MAX),
            fetch_ahead_bytes: settings.fetch_ahead,
            headers: settings.fetch_headers,
            outputs: self.producer_config(),
        }))
    }

    /// Settings of a producer to Kafka.
    pub fn producer_config(&self) -> KafkaProducerConfig {
        let settings = &self.settings;
        KafkaProducerConfig {
            linger_ms: u32::try_from(settings.linger.as_millis()).unwrap_or(u32::MAX),
            max_in_flight: settings.in_flight,
            timeout: settings.produce_timeout,
            compression: settings.compression.into(),
            max_queued: settings.produce_queue_records,
            max_queued_bytes: settings.produce_queue_bytes,
            max_record_bytes: u32::try_from(settings.produce_record_bytes).unwrap_or(u32::MAX),
        }
    }

    /// Settings of the embedded log, with the topics of this address; `None` for Kafka. Dead letters are kept.
    pub fn log_config(&self) -> Option<LogConfig> {
        let Endpoint::Log { folder } = &self.endpoint else { return None };
        let settings = &self.settings;
        let partitions = settings.partitions.unwrap_or(1);
        let topics = settings.topics.iter().map(|topic| LogTopic::new(topic.as_str(), partitions));
        let topics = topics.chain(settings.dead_letters.as_deref().map(LogTopic::kept)).collect();
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

    /// Limits, times and policies of a consumer.
    pub fn consumer_config(&self) -> ConsumerConfig {
        let settings = &self.settings;
        ConsumerConfig {
            max_records: settings.batch_records,
            max_bytes: size(settings.batch_bytes),
            batch_wait: settings.batch_wait,
            retry: RetryPolicy {
                attempts: settings.retry_attempts,
                backoff: Backoff {
                    first: settings.retry_first,
                    max: settings.retry_max,
                    jitter: settings.retry_jitter,
                },
            },
            ordering: match settings.ordering {
                "key" => Ordering::Key {
                    concurrency: NonZeroUsize::new(settings.concurrency).unwrap_or(NonZeroUsize::MIN),
                },
                _ => Ordering::Partition,
            },
            commit_interval: settings.commit_interval,
            commit_timeout: settings.commit_timeout,
            finish_timeout: settings.finish_timeout,
        }
    }

    /// Where the group begins in partitions that are new to it.
    pub fn initial_offset(&self) -> InitialOffset {
        self.settings.offset
    }

    /// What the topics must be like in Kafka. Dead letters are one partition, and stay until somebody has looked at them.
    pub fn topic_specs(&self) -> Vec<TopicSpec> {
        let settings = &self.settings;
        let spec = |name: &String, partitions| TopicSpec {
            partitions,
            replication: settings.replication,
            allow_fewer_replicas: settings.allow_fewer_replicas,
            ..TopicSpec::existing(name)
        };
        let dead_letters = settings.dead_letters.iter().map(|topic| TopicSpec {
            settings: vec![("retention.ms".into(), "-1".into())],
            ..spec(topic, Some(1))
        });
        settings.topics.iter().map(|topic| spec(topic, settings.partitions)).chain(dead_letters).collect()
    }

    /// How long the checks before the start may take.
    pub fn start_timeout(&self) -> Duration {
        self.settings.start_timeout
    }

    /// The group and the topics, which a consumer needs.
    pub(crate) fn subscription(&self) -> Result<(&str, &[String]), Error> {
        let mut faults = Vec::new();
        if self.settings.topics.is_empty() {
            faults.push("a consumer needs `topics`".to_owned());
        }
        if self.settings.group.is_none() {
            faults.push("a consumer needs a `group`".to_owned());
        }
        match &self.settings.group {
            Some(group) if faults.is_empty() => Ok((group, &self.settings.topics)),
            _ => Err(Error::Address { faults }),
        }
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn read_secret(secret: &Secret) -> Result<String, Error> {
    let path: &Path = match secret {
        Secret::Text(text) => return Ok(text.clone()),
        Secret::File(path) => path,
    };
    let fault =
        |why: &str| Error::Address { faults: vec![format!("`sasl.password`: {}: {why}", path.display())] };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| fault(&error.to_string()))?;
    file.take(MAX_SECRET).read_to_string(&mut text).map_err(|error| fault(&error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(fault("is empty")),
    }
}
