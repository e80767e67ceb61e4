//! The one configuration of all programs. Every program reads the same file and takes what concerns it.
//!
//! A value that is not set is the default written here. Lists are TOML lists, or comma-separated text in environment
//! variables and on the command line. An empty text means "not set".

mod units;

pub use units::{ByteSize, Secret};

use serde::{Deserialize, Serialize};
use std::time::Duration;

macro_rules! section {
    ($(#[$docs:meta])* $name:ident { $($(#[$field_docs:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$docs])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_docs])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// Everything.
    Config {
        /// The application that is served: part of every key, token and row.
        app: String = crate::DEFAULT_APP.into(),
        /// The edge: HTTP and WebSocket.
        gateway: Gateway = Gateway::default(),
        /// From the log to the store and the devices.
        consumer: Consumer = Consumer::default(),
        /// The owner of PostgreSQL.
        db: Db = Db::default(),
        /// Delivery to the gateways.
        pusher: Pusher = Pusher::default(),
        /// Accounts, tokens and keys.
        auth: Auth = Auth::default(),
        /// What one user or one address may use.
        limits: Limits = Limits::default(),
        /// Apache Kafka.
        kafka: Kafka = Kafka::default(),
        /// Redis.
        redis: Redis = Redis::default(),
        /// How services find each other.
        discovery: Discovery = Discovery::default(),
        /// The one-process program.
        embedded: Embedded = Embedded::default(),
        /// Who may ask on the admin ports for more than whether a program is well.
        operator: Operator = Operator::default(),
        /// Logs.
        log: Log = Log::default(),
    }
}

section! {
    /// ws-gateway.
    Gateway {
        /// Address of HTTP and WebSocket.
        listen: String = "127.0.0.1:7450".into(),
        /// Address of gRPC (`GatewayService`).
        grpc_listen: String = "127.0.0.1:7451".into(),
        /// `host:port` under which pushers reach gRPC. Empty: the address that it listens on.
        grpc_advertise: String = String::new(),
        /// Address of `/livez`, `/readyz` and `/metrics`.
        admin_listen: String = "127.0.0.1:7459".into(),
        /// A device has so long to say hello.
        #[serde(with = "humantime_serde")]
        hello_timeout: Duration = Duration::from_secs(5),
        /// Devices send a heartbeat this often; after two and a half of them without a frame the connection is closed.
        #[serde(with = "humantime_serde")]
        heartbeat: Duration = Duration::from_secs(30),
        /// Largest body of a message.
        max_body: ByteSize = ByteSize::kib(16),
        /// Largest frame or HTTP body from a client. At least four thirds of `max_body` and 4 KiB: JSON writes bytes as base64.
        max_frame: ByteSize = ByteSize::kib(64),
        /// Most sends that a connection may have unanswered; reading from it waits at that.
        max_in_flight: u32 = 64,
        /// A device that has more than this waiting to be written is closed and catches up later.
        max_outbox: ByteSize = ByteSize::kib(1024),
        /// Connections that one gateway takes.
        max_connections: u32 = 200_000,
        /// When it stops, devices are told to reconnect, spread over this time.
        #[serde(with = "humantime_serde")]
        drain: Duration = Duration::from_secs(5),
    }
}

section! {
    /// consumer.
    Consumer {
        /// Address of `/livez`, `/readyz` and `/metrics`.
        admin_listen: String = "127.0.0.1:7469".into(),
        /// Address of gRPC health, for discovery.
        grpc_listen: String = "127.0.0.1:7461".into(),
        /// Most records handled in one go.
        max_batch: u32 = 1_000,
    }
}

section! {
    /// db-service.
    Db {
        /// Address of gRPC (`DbService`).
        grpc_listen: String = "127.0.0.1:7471".into(),
        /// `host:port` under which others reach gRPC. Empty: the address that it listens on.
        grpc_advertise: String = String::new(),
        /// Address of `/livez`, `/readyz` and `/metrics`.
        admin_listen: String = "127.0.0.1:7479".into(),
        /// PostgreSQL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
        postgres: Secret = Secret::new("postgres://godwit:godwit@127.0.0.1:5432/godwit"),
        /// Schema of all tables; made when missing.
        schema: String = "godwit".into(),
        /// Most connections to PostgreSQL.
        max_connections: u32 = 16,
        /// Most members of a group.
        max_group_members: u32 = 500,
    }
}

section! {
    /// pusher.
    Pusher {
        /// Address of gRPC (`PushService`).
        grpc_listen: String = "127.0.0.1:7481".into(),
        /// `host:port` under which others reach gRPC. Empty: the address that it listens on.
        grpc_advertise: String = String::new(),
        /// Address of `/livez`, `/readyz` and `/metrics`.
        admin_listen: String = "127.0.0.1:7489".into(),
        /// A gateway that has not answered a delivery by then is passed over; its devices learn by heartbeat.
        #[serde(with = "humantime_serde")]
        deliver_timeout: Duration = Duration::from_secs(2),
    }
}

section! {
    /// Accounts, tokens and keys.
    Auth {
        /// Whether `POST /v1/accounts` is open to everybody.
        registration: bool = true,
        /// Life of an access token.
        #[serde(with = "humantime_serde")]
        access_token_life: Duration = Duration::from_secs(15 * 60),
        /// Keys of access tokens as `ID=SECRET` or `ID=file:PATH`, secrets of at least 32 bytes, newest first: the first signs,
        /// all verify. Empty: a key is made on first start and kept with the data.
        keys: Vec<Secret> = Vec::new(),
        /// Memory of Argon2id, in KiB (OWASP's first choice).
        argon2_memory_kib: u32 = 19_456,
        /// Passes of Argon2id.
        argon2_passes: u32 = 2,
    }
}

section! {
    /// What one user or one address may use. A limit is a rate per second with a burst; who is over it is told how long to wait.
    Limits {
        /// Messages of one user per second.
        sends_per_second: u32 = 1_000,
        /// Messages of one user at once.
        send_burst: u32 = 2_000,
        /// Other requests of one connection per second.
        requests_per_second: u32 = 100,
        /// Other requests of one connection at once.
        request_burst: u32 = 400,
        /// Registrations, log-ins and refreshes from one address per second.
        auth_per_second: u32 = 100,
        /// Registrations, log-ins and refreshes from one address at once.
        auth_burst: u32 = 1_000,
        /// New connections from one address per second.
        connects_per_second: u32 = 5_000,
        /// New connections from one address at once.
        connect_burst: u32 = 10_000,
        /// Open connections of one user.
        connections_per_user: u32 = 32,
    }
}

section! {
    /// Apache Kafka.
    Kafka {
        /// Brokers, `host:port`.
        brokers: Vec<String> = vec!["127.0.0.1:9092".into()],
        /// Topic of messages; dead letters go to the same name with `.dead`.
        topic: String = crate::MESSAGES_TOPIC.into(),
        /// Partitions of the topic when it is made.
        partitions: u32 = 12,
        /// Replicas of the topic when it is made. Three, with two in sync, is what the promise needs in production.
        replication: u32 = 1,
        /// Whether a topic that has fewer replicas than that, or fewer of them in sync than the promise needs, is only warned of.
        allow_fewer_replicas: bool = false,
        /// Consumer group.
        group: String = "godwit".into(),
        /// How long the producer waits for a batch to fill.
        #[serde(with = "humantime_serde")]
        linger: Duration = Duration::from_millis(5),
        /// A send that is not logged by then is answered "try again".
        #[serde(with = "humantime_serde")]
        produce_timeout: Duration = Duration::from_secs(5),
        /// The group waits so long for a consumer that has fallen silent.
        #[serde(with = "humantime_serde")]
        session_timeout: Duration = Duration::from_secs(6),
    }
}

section! {
    /// Redis.
    Redis {
        /// `redis://[:PASSWORD@]HOST:PORT[/DB]`.
        url: Secret = Secret::new("redis://127.0.0.1:6379"),
        /// In front of every key.
        prefix: String = "godwit".into(),
        /// Most connections.
        max_connections: u32 = 16,
    }
}

/// Where addresses of services come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryKind {
    /// Consul: instances register themselves, changes are seen at once.
    Consul,
    /// DNS names, asked again every few seconds.
    Dns,
    /// The addresses written in the configuration.
    #[default]
    Fixed,
}

section! {
    /// How services find each other.
    Discovery {
        /// `consul`, `dns` or `fixed`.
        kind: DiscoveryKind = DiscoveryKind::Fixed,
        /// Consul's agent.
        consul: String = "http://127.0.0.1:8500".into(),
        /// Consul's ACL token.
        consul_token: Secret = Secret::default(),
        /// In front of service names in Consul.
        prefix: String = "godwit".into(),
        /// db-service: `host:port` addresses (fixed) or one `name:port` (dns).
        db: Vec<String> = vec!["127.0.0.1:7471".into()],
        /// pusher: `host:port` addresses (fixed) or one `name:port` (dns).
        pusher: Vec<String> = vec!["127.0.0.1:7481".into()],
    }
}

section! {
    /// The one-process program.
    Embedded {
        /// Folder of all data.
        data: String = "godwit-data".into(),
        /// The log takes new messages only while the store is less than this many behind.
        max_backlog: u32 = 2_000,
    }
}

section! {
    /// Who may ask on the admin ports for more than whether a program is well.
    Operator {
        /// The token of operators, of at least 32 bytes, the same for all programs: it opens the dead letters. Empty: nobody is
        /// let in, except that the one-process program makes one and keeps it in its folder of data, as `operator-token`.
        token: Secret = Secret::default(),
    }
}

section! {
    /// Logs.
    Log {
        /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,ws_gateway=debug`.
        level: String = "info".into(),
        /// `text` or `json`.
        format: String = "text".into(),
    }
}

impl Config {
    /// What is wrong with the values taken together, each a sentence with the key.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        check(
            crate::ids::check_id("app", &self.app).is_ok(),
            "app: must be 1 to 64 of letters, digits, '.', '_' and '-'",
        );
        let gateway = &self.gateway;
        check(gateway.max_body.bytes() > 0, "gateway.max_body: must be more than 0");
        check(
            gateway.max_frame.bytes()
                >= (gateway.max_body.bytes() / 3).saturating_mul(4).saturating_add(4096),
            "gateway.max_frame: must be at least four thirds of gateway.max_body and 4KiB",
        );
        check(
            gateway.max_outbox.bytes() >= gateway.max_frame.bytes(),
            "gateway.max_outbox: must be at least gateway.max_frame",
        );
        check(gateway.max_in_flight > 0, "gateway.max_in_flight: must be more than 0");
        check(gateway.heartbeat >= Duration::from_secs(1), "gateway.heartbeat: must be at least 1s");
        check(!gateway.hello_timeout.is_zero(), "gateway.hello_timeout: must be more than 0s");
        let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(366 * 86_400));
        for (name, value, most, written) in [
            ("gateway.hello_timeout", gateway.hello_timeout, day, "1day"),
            ("gateway.heartbeat", gateway.heartbeat, day, "1day"),
            ("gateway.drain", gateway.drain, day, "1day"),
            ("pusher.deliver_timeout", self.pusher.deliver_timeout, day, "1day"),
            ("auth.access_token_life", self.auth.access_token_life, year, "1year"),
            ("kafka.linger", self.kafka.linger, day, "1day"),
            ("kafka.produce_timeout", self.kafka.produce_timeout, day, "1day"),
            ("kafka.session_timeout", self.kafka.session_timeout, day, "1day"),
        ] {
            // Beyond that, adding a time to now would overflow somewhere.
            check(value <= most, &format!("{name}: must be at most {written}"));
        }
        check(self.consumer.max_batch > 0, "consumer.max_batch: must be more than 0");
        check(self.db.max_connections > 0, "db.max_connections: must be more than 0");
        check(self.db.max_group_members > 1, "db.max_group_members: must be more than 1");
        check(
            !self.db.schema.is_empty()
                && self.db.schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "db.schema: must be of lower-case letters, digits and '_'",
        );
        check(
            self.auth.access_token_life >= Duration::from_secs(1),
            "auth.access_token_life: must be at least 1s",
        );
        check(self.auth.argon2_memory_kib >= 8, "auth.argon2_memory_kib: must be at least 8");
        check(self.auth.argon2_passes > 0, "auth.argon2_passes: must be more than 0");
        for (index, key) in self.auth.keys.iter().enumerate() {
            check(
                key.expose().split_once('=').is_some_and(|(id, secret)| {
                    crate::ids::check_id("key id", id).is_ok() && secret.len() >= 32
                }),
                &format!("auth.keys[{index}]: must be ID=SECRET with a secret of at least 32 bytes"),
            );
        }
        let limits = &self.limits;
        for (name, value) in [
            ("sends_per_second", limits.sends_per_second),
            ("send_burst", limits.send_burst),
            ("requests_per_second", limits.requests_per_second),
            ("request_burst", limits.request_burst),
            ("auth_per_second", limits.auth_per_second),
            ("auth_burst", limits.auth_burst),
            ("connects_per_second", limits.connects_per_second),
            ("connect_burst", limits.connect_burst),
            ("connections_per_user", limits.connections_per_user),
        ] {
            check(value > 0, &format!("limits.{name}: must be more than 0"));
        }
        check(!self.kafka.brokers.is_empty(), "kafka.brokers: name at least one broker");
        check(self.kafka.partitions > 0, "kafka.partitions: must be more than 0");
        check(self.kafka.replication > 0, "kafka.replication: must be more than 0");
        check(self.embedded.max_backlog > 0, "embedded.max_backlog: must be more than 0");
        let token = self.operator.token.expose();
        check(token.is_empty() || token.len() >= 32, "operator.token: must have at least 32 bytes");
        check(
            token.bytes().all(|byte| byte.is_ascii_graphic()),
            "operator.token: must be of visible ASCII characters",
        );
        check(matches!(self.log.format.as_str(), "text" | "json"), "log.format: must be text or json");
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_without_fault() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn p7_values_without_bound_are_refused() {
        let mut config = Config::default();
        config.gateway.heartbeat = Duration::MAX;
        config.auth.access_token_life = Duration::from_secs(u64::MAX / 2);
        config.gateway.max_body = ByteSize::new(u64::MAX);
        let faults = config.faults().join("\n");
        for key in ["gateway.heartbeat:", "auth.access_token_life:", "gateway.max_frame:"] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        let mut config = Config { app: "a b".into(), ..Config::default() };
        config.gateway.max_in_flight = 0;
        config.auth.keys = vec![Secret::new("short=secret")];
        config.limits.send_burst = 0;
        config.operator.token = Secret::new("short");
        let faults = config.faults().join("\n");
        for key in
            ["app:", "gateway.max_in_flight:", "auth.keys[0]:", "limits.send_burst:", "operator.token:"]
        {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }
}
