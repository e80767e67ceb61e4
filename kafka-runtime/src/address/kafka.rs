//! Settings that an address has for Kafka clients and topics.

use super::Address;
use super::parse::check_brokers;
use super::raw::{Endpoint, RawAddress};
use super::values::size;
use crate::error::Error;
use crate::kafka::{KafkaConfig, KafkaProducerConfig, KafkaSourceConfig};
use crate::source::QueueLimits;
use crate::topics::TopicSpec;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Bytes of a password file that are read at most.
const MAX_SECRET_BYTES: u64 = 64 << 10;

impl Address {
    /// Brokers with options by name; options with an empty value are left out.
    pub(crate) fn kafka(brokers: Vec<String>, options: &[(&str, &str)]) -> Result<Self, Error> {
        let options = options.iter().filter(|(_, value)| !value.is_empty());
        let options = options.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let errors = check_brokers(&brokers).into_iter().collect();
        Self::from_raw(RawAddress { endpoint: Endpoint::Kafka { brokers }, options, errors })
    }

    /// Brokers, security and librdkafka settings; `None` for an embedded log.
    ///
    /// # Errors
    /// The password file can't be read.
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

    /// Settings of a consumer group member; `None` for an embedded log.
    ///
    /// # Errors
    /// There is no group or no topic, or the password file can't be read.
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

    /// Settings of a Kafka producer.
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

    /// The specifications of the topics in Kafka. The dead-letter topic has one partition and unlimited retention, so that
    /// no dead letter expires before an operator has handled it.
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
}

/// Reads the password, from the first line of a file if the option names one.
fn read_secret(secret: &str) -> Result<String, Error> {
    let Some(path) = secret.strip_prefix("file:").map(Path::new) else { return Ok(secret.to_owned()) };
    let config_error = |reason: &str| Error::Address {
        errors: vec![format!("`sasl.password`: {}: {reason}", path.display())],
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| config_error(&error.to_string()))?;
    file.take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| config_error(&error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(config_error("is empty")),
    }
}
