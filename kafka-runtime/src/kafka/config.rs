//! Settings of Kafka clients.

use crate::address::Address;
use crate::error::Error;
use crate::source::{InitialOffset, QueueLimits};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use std::fmt;
use std::time::Duration;

/// How to reach the brokers.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Bootstrap brokers, `host:port`.
    pub brokers: Vec<String>,
    /// The name of this client on the brokers.
    pub client_id: String,
    /// Additional settings of librdkafka, for example `security.protocol` and `sasl.password`. They override
    /// all others.
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for KafkaConfig {
    /// Values of properties are omitted: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: Vec<&str> = self.properties.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("properties", &properties)
            .finish()
    }
}

impl KafkaConfig {
    /// No additional properties.
    pub fn new(brokers: Vec<String>, client_id: impl Into<String>) -> Self {
        Self { brokers, client_id: client_id.into(), properties: Vec::new() }
    }

    /// Applies options of an [`Address`], such as `tls.ca` and `sasl.username`. Empty values
    /// are ignored.
    ///
    /// # Errors
    /// [`Error::Address`] with every config error: incompatible options, options that this build does not
    /// support, or invalid brokers.
    pub fn with_options(
        brokers: Vec<String>,
        client_id: impl Into<String>,
        options: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let address = Address::kafka(brokers, options)?;
        let config = address.kafka_config()?.expect("an address with brokers is a Kafka address");
        Ok(Self { client_id: client_id.into(), ..config })
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", &self.client_id)
            // Reconnect soon after a broker has returned.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    /// Adds the properties. Applied last, so that they override all other settings.
    pub(crate) fn with_properties(&self, mut client: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
    }
}

/// Settings of a [`KafkaProducer`](super::KafkaProducer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaProducerConfig {
    /// How long a record may wait for others to share its request, in milliseconds. 0, the default, confirms a
    /// single record soonest. At 1,000 records per second, 5 ms saves a third of the CPU time of client and
    /// brokers together.
    pub linger_ms: u32,
    /// Requests in flight per broker, at most 5: more would break the order.
    pub max_in_flight: u32,
    /// Time limit for the confirmation of a record. After it the record fails with
    /// [`TimedOut`](crate::ProduceError::TimedOut), and so do all other queued records. Then the client is
    /// replaced.
    pub timeout: Duration,
    /// `none`, `gzip`, `lz4`, `snappy` or `zstd`.
    pub compression: String,
    /// Limit of unconfirmed records.
    pub max_queued: u32,
    /// Limit of unconfirmed bytes.
    pub max_queued_bytes: u64,
    /// Largest record in bytes. Brokers and topics have their own limit (1 MiB by default).
    pub max_record_bytes: u32,
}

impl Default for KafkaProducerConfig {
    fn default() -> Self {
        Self {
            linger_ms: 0,
            max_in_flight: 1,
            timeout: Duration::from_secs(5),
            compression: "none".into(),
            max_queued: 100_000,
            max_queued_bytes: 64 << 20,
            max_record_bytes: 1_000_000,
        }
    }
}

impl KafkaProducerConfig {
    pub(super) fn client(&self, kafka: &KafkaConfig) -> ClientConfig {
        let mut client = kafka.client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A broker would create a missing topic with its own defaults for partitions and replicas. The
            // first records wait instead until the topic was created properly.
            .set("allow.auto.create.topics", "false")
            // Java's default partitioner, so that other tools find a key in the same partition.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", format!("{:.3}", self.client_linger().as_secs_f64() * 1000.0))
            .set("max.in.flight.requests.per.connection", self.max_in_flight.clamp(1, 5).to_string())
            // Never: the producer times records out itself, to keep their order.
            .set("message.timeout.ms", "0")
            .set("compression.type", &self.compression)
            // The producer counts queued records itself, before they get here.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", i32::MAX.to_string())
            .set("message.max.bytes", self.max_record_bytes.to_string())
            .set("retry.backoff.ms", "50")
            .set("retry.backoff.max.ms", "500");
        kafka.with_properties(client)
    }

    /// How long a record waits before its batch goes to librdkafka.
    pub(super) fn queue_linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms.into()) - self.client_linger()
    }

    /// How long librdkafka waits for the rest of a batch: as long as handing a batch over takes, so that it
    /// fills one request.
    fn client_linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms.into()).min(Duration::from_micros(500))
    }
}

/// Settings of a [`KafkaSource`](super::KafkaSource).
#[derive(Clone, Debug)]
pub struct KafkaSourceConfig {
    /// How to reach the brokers.
    pub kafka: KafkaConfig,
    /// The consumer group.
    pub group: String,
    /// The topics to read.
    pub topics: Vec<String>,
    /// Start offset in partitions that are new to the group. `Earliest` by default.
    pub initial_offset: InitialOffset,
    /// A unique name of this member that survives restarts (static membership). A member that returns within
    /// `session_timeout` gets its partitions back without a rebalance. `None`, the default: the group
    /// rebalances at once when the member leaves. The name is also part of the member's transactional id,
    /// `GROUP-INSTANCE-LENGTH`, where `LENGTH` is the length of the group's name.
    pub instance_id: Option<String>,
    /// After this time without a heartbeat the group reassigns the member's partitions. 6 s by default.
    pub session_timeout: Duration,
    /// After this time without a poll the group reassigns the member's partitions, even if it sends heartbeats.
    /// A thread polls all the time, so this only has to exceed `revoke_timeout`. 75 s by default.
    pub poll_interval: Duration,
    /// `read_committed` (default) skips records of aborted transactions and waits for open ones.
    /// `read_uncommitted` reads both. With it, [transactions](crate::Source::transact) may write results twice
    /// after a crash, because a new owner does not wait for the offset that an open transaction is about to
    /// commit.
    pub isolation: String,
    /// How the group assigns partitions: `range` (default), `roundrobin` or `cooperative-sticky`.
    ///
    /// `range` and `roundrobin` stop all members for a moment during a rebalance, and no commit is refused.
    /// `cooperative-sticky` keeps partitions running that do not move, but the brokers refuse some commits during a
    /// rebalance, and a rebalance takes two rounds. Measured pauses are equally long, so `range` is the default (see
    /// `docs/reports/2026-11-21-rebalancing.md` in the repository).
    pub assignment: String,
    /// Capacity of the queue of each partition. When it is full, fetching of the partition is paused.
    pub queue: QueueLimits,
    /// How long a revocation waits for the consumer to finish and commit. Must exceed
    /// [`finish_timeout`](crate::ConsumerConfig::finish_timeout) and
    /// [`commit_timeout`](crate::ConsumerConfig::commit_timeout) together. 15 s by default.
    pub revoke_timeout: Duration,
    /// How long a broker waits for new records before it answers with none. Does not add latency.
    pub fetch_wait: Duration,
    /// Limit of bytes per partition in one fetch; a larger single record passes. 1 MiB by default.
    pub fetch_bytes: u32,
    /// Limit of bytes that are fetched ahead of the queues, over all partitions. 8 MiB by default.
    pub fetch_ahead_bytes: u64,
    /// Whether to read the headers of records; `true` by default. Turn this off where no handler uses them:
    /// librdkafka parses headers record by record, even if there are none.
    pub headers: bool,
    /// How a [transaction](crate::Source::transact) writes its records. `linger_ms` and `max_in_flight` are
    /// ignored: it writes at once and in order. Its time limit is 10 s at most.
    pub outputs: KafkaProducerConfig,
}

impl KafkaSourceConfig {
    /// A source with the defaults.
    pub fn new(kafka: KafkaConfig, group: &str, topics: &[&str]) -> Self {
        Self {
            kafka,
            group: group.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            initial_offset: InitialOffset::Earliest,
            instance_id: None,
            session_timeout: Duration::from_secs(6),
            poll_interval: Duration::from_secs(75),
            isolation: "read_committed".into(),
            assignment: "range".into(),
            queue: QueueLimits { records: 8_000, bytes: 4 << 20 },
            revoke_timeout: Duration::from_secs(15),
            fetch_wait: Duration::from_millis(500),
            fetch_bytes: 1 << 20,
            fetch_ahead_bytes: 8 << 20,
            headers: true,
            outputs: KafkaProducerConfig::default(),
        }
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut client = self.kafka.client();
        let session_ms = self.session_timeout.as_millis();
        client
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", &self.assignment)
            .set("session.timeout.ms", session_ms.to_string())
            .set("heartbeat.interval.ms", (session_ms / 3).max(1).to_string())
            .set("max.poll.interval.ms", self.poll_interval.as_millis().to_string())
            .set("isolation.level", &self.isolation)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Other start offsets are committed before the first fetch. If a committed offset was removed,
            // continue with the first stored record, not at the end.
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", self.fetch_wait.as_millis().to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            // Records that librdkafka holds besides our own queues. Its defaults allow 64 MiB.
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", (self.fetch_ahead_bytes / 1024).max(1).to_string())
            .set("fetch.message.max.bytes", self.fetch_bytes.to_string())
            .set("topic.metadata.refresh.interval.ms", "30000")
            // Statistics report the lag, and whether brokers are up.
            .set("statistics.interval.ms", "5000");
        if let Some(instance_id) = &self.instance_id {
            client.set("group.instance.id", instance_id);
        }
        self.kafka.with_properties(client)
    }
}
