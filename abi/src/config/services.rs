//! The services behind the gateway, and the one-process program.

use super::{
    Secret,
    bounds::{DAY, YEAR, at_most, host_port_or_empty, listen_address, more_than, schema_name},
};
use std::time::Duration;

section! {
    /// consumer: moves messages from the log to the store and on to the pusher.
    Consumer {
        /// Listen address for `/livez`, `/readyz` and `/metrics`.
        #[bounds(listen_address())]
        admin_listen: String = "127.0.0.1:7469".into(),
        /// Listen address for the gRPC health check, which discovery uses.
        #[bounds(listen_address())]
        grpc_listen: String = "127.0.0.1:7461".into(),
        /// Most records per batch.
        #[bounds(more_than(0))]
        max_batch: u32 = 1_000,
    }
}

section! {
    /// db-service: the only service that uses PostgreSQL.
    Db {
        /// Listen address for gRPC (`DbService`).
        #[bounds(listen_address())]
        grpc_listen: String = "127.0.0.1:7471".into(),
        /// gRPC address advertised to other services, `host:port`. Empty: the listen address, or this machine's.
        #[bounds(host_port_or_empty())]
        grpc_advertise: String = String::new(),
        /// Listen address for `/livez`, `/readyz` and `/metrics`.
        #[bounds(listen_address())]
        admin_listen: String = "127.0.0.1:7479".into(),
        /// PostgreSQL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. For TLS, append
        /// `?sslmode=verify-full&sslrootcert=FILE`.
        postgres: Secret = Secret::new("postgres://godwit:godwit@127.0.0.1:5432/godwit"),
        /// Schema of all tables. Created if missing.
        #[bounds(schema_name())]
        schema: String = "godwit".into(),
        /// Most connections to PostgreSQL.
        #[bounds(more_than(0))]
        max_connections: u32 = 16,
        /// Most members of a group.
        #[bounds(more_than(1))]
        max_group_members: u32 = 500,
    }
}

section! {
    /// pusher: finds the gateways of the receivers and delivers entries to them.
    Pusher {
        /// Listen address for gRPC (`PushService`).
        #[bounds(listen_address())]
        grpc_listen: String = "127.0.0.1:7481".into(),
        /// gRPC address advertised to other services, `host:port`. Empty: the listen address, or this machine's.
        #[bounds(host_port_or_empty())]
        grpc_advertise: String = String::new(),
        /// Listen address for `/livez`, `/readyz` and `/metrics`.
        #[bounds(listen_address())]
        admin_listen: String = "127.0.0.1:7489".into(),
        /// Timeout of a delivery to a gateway. After a timeout the devices of that gateway catch up with their next heartbeat.
        #[bounds(at_most(DAY))]
        #[serde(with = "humantime_serde")]
        deliver_timeout: Duration = Duration::from_secs(2),
    }
}

section! {
    /// Which changes of messages are allowed.
    Messages {
        /// For how long after it was sent its author can edit a message. 0: for ever.
        #[bounds(at_most(YEAR))]
        #[serde(with = "humantime_serde")]
        edit_window: Duration = Duration::from_secs(48 * 3600),
        /// For how long after it was sent its author can recall a message. The owner of a group always can. 0: for ever.
        #[bounds(at_most(YEAR))]
        #[serde(with = "humantime_serde")]
        recall_window: Duration = Duration::from_secs(48 * 3600),
    }
}

section! {
    /// Receipts: telling authors that their messages were read.
    Receipts {
        /// Authors in groups of more members get no receipts.
        max_members: u32 = 100,
    }
}

section! {
    /// godwit: all services in one process. It also uses `app`, `gateway` (except gRPC), `consumer.max_batch`,
    /// `db.max_group_members`, `messages`, `receipts`, `auth`, `limits`, `kafka.produce_timeout`, `operator`, `log` and `trace`.
    Embedded {
        /// Data folder.
        data: String = "godwit-data".into(),
        /// The log accepts new messages only while fewer than this many records wait to be stored.
        #[bounds(more_than(0))]
        max_backlog: u32 = 2_000,
        /// Number of stored records that stay in the log. A store that was restored from a backup, or has lost its last writes, reads them
        /// again. 100,000 short messages take about 30 MB.
        kept_records: u32 = 100_000,
    }
}
