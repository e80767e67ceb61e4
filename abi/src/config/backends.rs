//! Kafka, Redis, discovery and TLS.

use super::{
    bounds::{DAY, SECOND, at_most, between, each, host_port, id_or_empty, more_than, not_empty, one_of},
    units::Secret,
    value::Value,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

section! {
    /// Apache Kafka.
    Kafka {
        /// Bootstrap brokers, `host:port`.
        #[bounds(not_empty("broker"))]
        brokers: Vec<String> = vec!["127.0.0.1:9092".into()],
        /// File of the certificate authorities (PEM) that sign the brokers' certificates, or `system`. Turns TLS on. TLS and
        /// SCRAM need programs built with the feature `ssl`.
        tls_ca: String = String::new(),
        /// Client certificate file (PEM), for brokers that ask for one.
        tls_certificate: String = String::new(),
        /// Key file (PEM) of `tls_certificate`.
        tls_key: String = String::new(),
        /// SASL mechanism. Used if `sasl_username` is set.
        #[bounds(one_of(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]))]
        sasl_mechanism: String = "SCRAM-SHA-512".into(),
        /// SASL user name. Empty: no authentication.
        sasl_username: String = String::new(),
        /// SASL password.
        sasl_password: Secret = Secret::default(),
        /// Topic of messages. Dead letters go to the topic of the same name with `.dead` appended.
        topic: String = crate::MESSAGES_TOPIC.into(),
        /// Number of partitions, used when the topic is created.
        #[bounds(more_than(0))]
        partitions: u32 = 12,
        /// Replication factor, used when the topic is created. The durability promise needs 3, with 2 replicas in sync.
        #[bounds(more_than(0))]
        replication: u32 = 1,
        /// Whether to start, with a warning, on an existing topic that has fewer replicas than `replication`, or a
        /// `min.insync.replicas` below the durability promise. Otherwise the program refuses to start.
        allow_fewer_replicas: bool = false,
        /// Consumer group.
        group: String = "godwit".into(),
        /// How long the producer waits for a batch to fill. Shorter than `produce_timeout`.
        #[bounds(at_most(Duration::from_secs(15 * 60)))]
        #[serde(with = "humantime_serde")]
        linger: Duration = Duration::from_millis(5),
        /// Timeout of writing a message to the log. After a timeout the device gets the retryable error `unavailable`.
        #[bounds(at_most(DAY))]
        #[serde(with = "humantime_serde")]
        produce_timeout: Duration = Duration::from_secs(5),
        /// A consumer without heartbeats for this long leaves the group, and its partitions go to the others.
        #[bounds(between(SECOND, Duration::from_secs(60)))]
        #[serde(with = "humantime_serde")]
        session_timeout: Duration = Duration::from_secs(6),
    }
}

impl Kafka {
    /// Connection options for an address of `kafka-runtime`.
    pub fn options(&self) -> [(&'static str, &str); 6] {
        let mechanism = if self.sasl_username.is_empty() { "" } else { &self.sasl_mechanism };
        [
            ("tls.ca", &self.tls_ca),
            ("tls.cert", &self.tls_certificate),
            ("tls.key", &self.tls_key),
            ("sasl.mechanism", mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", self.sasl_password.expose()),
        ]
    }
}

section! {
    /// Redis.
    Redis {
        /// `redis://[:PASSWORD@]HOST:PORT[/DB]`, or `rediss://` for TLS.
        url: Secret = Secret::new("redis://127.0.0.1:6379"),
        /// File of the certificate authorities (PEM) for `rediss://`. Empty: those of the system.
        ca: String = String::new(),
        /// Prefix of every key.
        prefix: String = "godwit".into(),
        /// Most connections to Redis.
        max_connections: u32 = 16,
    }
}

/// The source of service addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryKind {
    /// Consul: instances register themselves, and changes are seen at once.
    Consul,
    /// DNS names, looked up at intervals.
    Dns,
    /// The addresses in the configuration.
    #[default]
    Fixed,
}

impl Value for DiscoveryKind {}

section! {
    /// How services find each other.
    Discovery {
        /// Source of service addresses: `consul`, `dns`, or `fixed` for the addresses below.
        kind: DiscoveryKind = DiscoveryKind::Fixed,
        /// URL of the Consul agent.
        consul: String = "http://127.0.0.1:8500".into(),
        /// File of the certificate authorities (PEM) for an `https://` agent. Empty: those of the system.
        consul_ca: String = String::new(),
        /// Consul ACL token.
        consul_token: Secret = Secret::default(),
        /// Prefix of service names in Consul.
        prefix: String = "godwit".into(),
        /// Zone of this instance, such as the name of a data centre. Calls go to instances in the same zone while one of
        /// them works. Only Consul knows the zones of other instances. Empty: all instances are equal.
        #[bounds(id_or_empty())]
        zone: String = String::new(),
        /// Interval of DNS lookups.
        #[bounds(between(Duration::from_millis(100), DAY))]
        #[serde(with = "humantime_serde")]
        dns_refresh: Duration = Duration::from_secs(2),
        /// At shutdown, an instance leaves Consul or DNS first and keeps serving for this long, until all callers have noticed.
        #[bounds(at_most(DAY))]
        #[serde(with = "humantime_serde")]
        drain_grace: Duration = Duration::from_secs(1),
        /// Addresses of db-service, `host:port` (fixed), or one `name:port` (dns).
        #[bounds(each(host_port()))]
        db: Vec<String> = vec!["127.0.0.1:7471".into()],
        /// Addresses of pusher, `host:port` (fixed), or one `name:port` (dns).
        #[bounds(each(host_port()))]
        pusher: Vec<String> = vec!["127.0.0.1:7481".into()],
    }
}

section! {
    /// Mutual TLS between the services, for all gRPC calls. Set all three files, or none for plain text. Changed files are
    /// reloaded without a restart.
    Tls {
        /// File of the certificate authorities (PEM). A peer's certificate must be signed by one of them.
        ca: String = String::new(),
        /// Certificate file of this service (PEM, followed by its chain). Its DNS names must include the service's name:
        /// `ws-gateway`, `consumer`, `db-service` or `pusher`.
        certificate: String = String::new(),
        /// Key file (PEM) of `certificate`.
        key: String = String::new(),
    }
}
