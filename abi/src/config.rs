//! The one configuration of all programs. Every program reads the same file and takes what concerns it.
//!
//! A value that is not set is the default written here. Lists are TOML lists, or comma-separated text in environment
//! variables and on the command line. An empty text means "not set".

mod faults;
mod network;
mod units;

pub use network::Network;
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
        /// TLS between the services.
        tls: Tls = Tls::default(),
        /// The one-process program.
        embedded: Embedded = Embedded::default(),
        /// Who may ask on the admin ports for more than whether a program is well.
        operator: Operator = Operator::default(),
        /// Logs.
        log: Log = Log::default(),
        /// Traces: the way of single messages through the services.
        trace: Trace = Trace::default(),
    }
}

section! {
    /// ws-gateway.
    Gateway {
        /// Address of HTTP and WebSocket.
        listen: String = "127.0.0.1:7450".into(),
        /// File of the certificate (PEM, its chain after it) that devices see. Empty: plain HTTP, for a proxy in front that adds TLS.
        tls_certificate: String = String::new(),
        /// File of the key (PEM) of `tls_certificate`.
        tls_key: String = String::new(),
        /// Proxies in front, as networks or single addresses: where one of them connects, the client's address is the last one in
        /// `X-Forwarded-For` that is not of these. Nobody else's `X-Forwarded-For` is believed.
        trusted_proxies: Vec<Network> = Vec::new(),
        /// Address of gRPC (`GatewayService`).
        grpc_listen: String = "127.0.0.1:7451".into(),
        /// `host:port` under which pushers reach gRPC. Empty: the address that it listens on, or this machine's.
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
        /// A device that has more than this waiting to be written is closed and catches up later. What is more than a quarter of it at once comes as news without the entries.
        max_outbox: ByteSize = ByteSize::kib(1024),
        /// Connections that one gateway takes.
        max_connections: u32 = 200_000,
        /// When it stops, devices are told to reconnect, spread over this time.
        #[serde(with = "humantime_serde")]
        drain: Duration = Duration::from_secs(5),
        /// Before that it goes on as before for this long, and `/readyz` says that it stops: a load balancer needs a moment to
        /// notice, and sends new connections here until then.
        #[serde(with = "humantime_serde")]
        drain_grace: Duration = Duration::ZERO,
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
        /// `host:port` under which others reach gRPC. Empty: the address that it listens on, or this machine's.
        grpc_advertise: String = String::new(),
        /// Address of `/livez`, `/readyz` and `/metrics`.
        admin_listen: String = "127.0.0.1:7479".into(),
        /// PostgreSQL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; with TLS, `?sslmode=verify-full&sslrootcert=FILE` after it.
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
        /// `host:port` under which others reach gRPC. Empty: the address that it listens on, or this machine's.
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
        /// Life of an access token. So often a gateway asks whether the log-in of an open connection is still good, in case it was not told.
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
    /// What one user or one address may use of one gateway: each gateway counts for itself. A limit is a rate per second with a
    /// burst; who is over it is told how long to wait.
    Limits {
        /// Messages of one user per second.
        sends_per_second: u32 = 1_000,
        /// Messages of one user at once.
        send_burst: u32 = 2_000,
        /// Other requests of one connection per second.
        requests_per_second: u32 = 100,
        /// Other requests of one connection at once.
        request_burst: u32 = 400,
        /// Registrations, log-ins and refreshes from one address per second. Of IPv6 an address is all of its /64, here and below.
        auth_per_second: u32 = 100,
        /// Registrations, log-ins and refreshes from one address at once.
        auth_burst: u32 = 1_000,
        /// Registrations of and log-ins to one account per second, from wherever they come.
        account_auth_per_second: u32 = 1,
        /// Registrations of and log-ins to one account at once.
        account_auth_burst: u32 = 50,
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
        /// Turns TLS on: file of the authorities (PEM) that brokers are checked against, or `system`. TLS and SCRAM need programs that
        /// were built with the feature `ssl`.
        tls_ca: String = String::new(),
        /// File of our certificate (PEM), where brokers ask for one.
        tls_certificate: String = String::new(),
        /// File of the key (PEM) of `tls_certificate`.
        tls_key: String = String::new(),
        /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`, where there is a user.
        sasl_mechanism: String = "SCRAM-SHA-512".into(),
        /// Whom to log in as. Empty: nobody.
        sasl_username: String = String::new(),
        /// The user's password.
        sasl_password: Secret = Secret::default(),
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

impl Kafka {
    /// How brokers are to be reached, as options of an address of `kafka-runtime`.
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
        /// `redis://[:PASSWORD@]HOST:PORT[/DB]`, with TLS `rediss://`.
        url: Secret = Secret::new("redis://127.0.0.1:6379"),
        /// File of the authorities (PEM) that a `rediss://` is checked against. Empty: those of the system.
        ca: String = String::new(),
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
    /// DNS names, looked up again and again.
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
        /// File of the authorities (PEM) that an `https://` agent is checked against. Empty: those of the system.
        consul_ca: String = String::new(),
        /// Consul's ACL token.
        consul_token: Secret = Secret::default(),
        /// In front of service names in Consul.
        prefix: String = "godwit".into(),
        /// Where this instance runs, such as the name of a data centre. Calls go to instances of the same zone while one of them
        /// works. Only Consul tells others' zones. Empty: all are alike.
        zone: String = String::new(),
        /// DNS names are looked up this often.
        #[serde(with = "humantime_serde")]
        dns_refresh: Duration = Duration::from_secs(2),
        /// An instance that stops leaves Consul, or DNS, and goes on serving for this long: until all who call it have noticed.
        #[serde(with = "humantime_serde")]
        drain_grace: Duration = Duration::from_secs(1),
        /// db-service: `host:port` addresses (fixed) or one `name:port` (dns).
        db: Vec<String> = vec!["127.0.0.1:7471".into()],
        /// pusher: `host:port` addresses (fixed) or one `name:port` (dns).
        pusher: Vec<String> = vec!["127.0.0.1:7481".into()],
    }
}

section! {
    /// TLS between the services, gRPC in both directions. All empty: plain. The files are read again when they change.
    Tls {
        /// File of the authorities (PEM): services talk only to peers whose certificate one of them has signed.
        ca: String = String::new(),
        /// File of this service's certificate (PEM, its chain after it), with its name among the DNS names: `ws-gateway`,
        /// `consumer`, `db-service`, `pusher`.
        certificate: String = String::new(),
        /// File of the key (PEM) of `certificate`.
        key: String = String::new(),
    }
}

section! {
    /// The one-process program. Of the other sections it takes `app`, `gateway` (but for gRPC), `consumer.max_batch`,
    /// `db.max_group_members`, `auth`, `limits`, `kafka.produce_timeout`, `operator`, `log` and `trace`.
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

section! {
    /// Traces: the way of single messages through the services.
    Trace {
        /// Collector of OpenTelemetry (OTLP over gRPC), `http://HOST:PORT`. Empty: no message is followed.
        endpoint: String = String::new(),
        /// Which part of the messages is followed: 0 for none, 1 for all. What counts is the gateway's; the others go on
        /// with what it began.
        sample: f64 = 0.01,
    }
}
