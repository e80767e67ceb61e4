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
    /// Brokers to ask first, `host:port`.
    pub brokers: Vec<String>,
    /// The name under which brokers know this client.
    pub client_id: String,
    /// More settings of librdkafka, for example `security.protocol` and `sasl.password`; they win over all others.
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for KafkaConfig {
    /// Values of properties are left out: some are secrets.
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
    /// Without further properties.
    pub fn new(brokers: Vec<String>, client_id: impl Into<String>) -> Self {
        Self { brokers, client_id: client_id.into(), properties: Vec::new() }
    }

    /// With options of an [`Address`](crate::Address), such as `tls.ca` and `sasl.username`; empty values are left out.
    ///
    /// # Errors
    /// [`Error::Address`] with every fault: options that don't go together, that this build can't do, or brokers that are none.
    pub fn with_options(
        brokers: Vec<String>,
        client_id: impl Into<String>,
        options: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let address = Address::kafka(brokers, options)?;
        let config = address.kafka_config()?.expect("brokers are Kafka");
        Ok(Self { client_id: client_id.into(), ..config })
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", &self.client_id)
            // A broker that comes back is found soon, whatever it was that took it away.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    /// Applied last, so that they win.
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
    /// Milliseconds that a record may wait for others to share its request. 0, the default, confirms a
    /// lone record soonest; at a thousand records a second 5 takes a third off the CPU of client and brokers together.
    pub linger_ms: u32,
    /// Requests per broker that may be unanswered, at most 5: more would break the order.
    pub max_in_flight: u32,
    /// A record that is not confirmed by then is answered [`TimedOut`](crate::ProduceError::TimedOut), and so is all that waits
    /// with it; then a new client begins.
    pub timeout: Duration,
    /// `none`, `gzip`, `lz4`, `snappy` or `zstd`.
    pub compression: String,
    /// Most records that may wait.
    pub max_queued: u32,
    /// Most bytes that may wait.
    pub max_queued_bytes: u64,
    /// Largest record. Brokers and topics have a limit of their own (1 MiB by default).
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
            // A broker would make a missing topic with whatever partitions and replicas it likes. Whoever makes topics as they
            // should be does so while the first records wait.
            .set("allow.auto.create.topics", "false")
            // As Java's clients choose, so that other tools find a key where this one puts it.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", format!("{:.3}", self.linger_there().as_secs_f64() * 1000.0))
            .set("max.in.flight.requests.per.connection", self.max_in_flight.clamp(1, 5).to_string())
            // Never: the producer gives records up itself, in order.
            .set("message.timeout.ms", "0")
            .set("compression.type", &self.compression)
            // What may wait is counted before it comes here.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", i32::MAX.to_string())
            .set("message.max.bytes", self.max_record_bytes.to_string())
            .set("retry.backoff.ms", "50")
            .set("retry.backoff.max.ms", "500");
        kafka.with_properties(client)
    }

    /// How long a record waits until its batch is handed to librdkafka.
    pub(super) fn linger_here(&self) -> Duration {
        Duration::from_millis(self.linger_ms.into()) - self.linger_there()
    }

    /// How long librdkafka waits: for as long as handing a batch over takes, so that it makes one request of it.
    fn linger_there(&self) -> Duration {
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
    /// Where the group begins in partitions that are new to it. Its first record by default.
    pub initial_offset: InitialOffset,
    /// The name of this member, the same after a restart and different for each member (static membership): one that is back
    /// within `session_timeout` gets its partitions without a rebalance. Without one, the default, leaving is noticed at once.
    /// It also names the member's transactions, `GROUP-INSTANCE-LENGTH` with the length of the group's name.
    pub instance_id: Option<String>,
    /// The group gives the partitions of a member away that has been silent for so long. 6 s by default.
    pub session_timeout: Duration,
    /// The group gives the partitions of a member away that does not poll for so long, though it sends heartbeats. A
    /// thread polls all the time, so this only has to exceed `revoke_timeout`. 75 s by default.
    pub poll_interval: Duration,
    /// `read_committed` (default): records of transactions that were aborted or are open are not seen. `read_uncommitted`:
    /// they are, and [transactions](crate::Source::transact) may write results twice after a crash, because the offset that an open
    /// one is about to commit is not waited for.
    pub isolation: String,
    /// How partitions are shared out: `range` (default), `roundrobin` or `cooperative-sticky`. With the first two a rebalance
    /// stops all members for a moment, and offsets are committed while nobody else can own them. The last one keeps what
    /// need not move going, at the price of commits that are refused in the middle of a rebalance.
    ///
    /// Measured while a second member came and went ten times under load (six partitions, shared 3 and 3, 6 s session; with
    /// each of them everything was handled once and in order). A pause is the longest time between two records of a
    /// partition; those of about 2 s are what a member needs to learn by heartbeat that the other one has left.
    ///
    /// | | partitions assigned | commits refused | longest pause of each partition |
    /// |---|---|---|---|
    /// | `range` | 126 times | 0 | 0.2, 0.5, 0.5, 2.2, 2.2, 2.2 s |
    /// | `roundrobin` | 126 times | 0 | 1.7, 1.7, 1.7, 1.7, 1.8, 1.8 s |
    /// | `cooperative-sticky` | 66 times | 13 | 1.0, 1.0, 1.1, 2.3, 2.3, 2.4 s |
    ///
    /// So `range`: no commit is refused, and stopping everything for a moment pauses the partitions that stay for no longer than
    /// a cooperative rebalance does, which needs two rounds.
    pub assignment: String,
    /// How much may wait for the worker of each partition before its fetching is paused.
    pub queue: QueueLimits,
    /// A revocation waits so long for the consumer to finish and commit. Longer than
    /// [`finish_timeout`](crate::ConsumerConfig::finish_timeout) and
    /// [`commit_timeout`](crate::ConsumerConfig::commit_timeout) together. 15 s by default.
    pub revoke_timeout: Duration,
    /// Brokers wait so long for something to arrive before they answer that there is nothing. No latency comes from it.
    pub fetch_wait: Duration,
    /// Most bytes of one partition that are fetched in one request; one larger record gets through. 1 MiB by default.
    pub fetch_bytes: u32,
    /// Most bytes that are fetched ahead of the queues, over all partitions. 8 MiB by default.
    pub fetch_ahead_bytes: u64,
    /// Whether headers of records are read, as is the default. Where nobody looks at them it can be turned off: librdkafka
    /// parses them one record at a time, also where there are none.
    pub headers: bool,
    /// How a [transaction](crate::Source::transact) writes its records: at once and in order, whatever this says of `linger_ms` and
    /// `max_in_flight`, and within 10 s.
    pub outputs: KafkaProducerConfig,
}

impl KafkaSourceConfig {
    /// With the defaults.
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
            // Other beginnings are committed before the first fetch. A committed offset that is no longer kept must not lead
            // to the end.
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", self.fetch_wait.as_millis().to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            // What librdkafka holds beside our own queues; the defaults hold 64 MiB.
            .set("queued.min.messages", "2000")
            .set("queued.max.messages.kbytes", (self.fetch_ahead_bytes / 1024).max(1).to_string())
            .set("fetch.message.max.bytes", self.fetch_bytes.to_string())
            .set("topic.metadata.refresh.interval.ms", "30000")
            // Lag, and whether brokers are up.
            .set("statistics.interval.ms", "5000");
        if let Some(instance_id) = &self.instance_id {
            client.set("group.instance.id", instance_id);
        }
        self.kafka.with_properties(client)
    }
}
