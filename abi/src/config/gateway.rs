//! The gateway, log-ins and rate limits.

use super::{
    ByteSize, Network, Secret,
    bounds::{
        DAY, SECOND, YEAR, at_least, at_most, between, each, host_port_or_empty, listen_address, more_than,
        signing_key,
    },
};
use std::time::Duration;

section! {
    /// ws-gateway: HTTP and WebSocket connections of devices.
    Gateway {
        /// Listen address for HTTP and WebSocket.
        #[bounds(listen_address())]
        listen: String = "127.0.0.1:7450".into(),
        /// Certificate file for devices (PEM, followed by its chain). Empty: serve plain HTTP, for a proxy that terminates TLS.
        tls_certificate: String = String::new(),
        /// Key file (PEM) of `tls_certificate`.
        tls_key: String = String::new(),
        /// Proxies in front of the gateway, as networks or single addresses. On a connection from one of them, the client's
        /// address is the last one in `X-Forwarded-For` that is not a trusted proxy. All other connections can't set it.
        trusted_proxies: Vec<Network> = Vec::new(),
        /// Listen address for gRPC (`GatewayService`).
        #[bounds(listen_address())]
        grpc_listen: String = "127.0.0.1:7451".into(),
        /// gRPC address advertised to pushers, `host:port`. Empty: the listen address, or this machine's.
        #[bounds(host_port_or_empty())]
        grpc_advertise: String = String::new(),
        /// Listen address for `/livez`, `/readyz` and `/metrics`.
        #[bounds(listen_address())]
        admin_listen: String = "127.0.0.1:7459".into(),
        /// A device must send `hello` within this time after it has connected.
        #[bounds(more_than(Duration::ZERO), at_most(DAY))]
        #[serde(with = "humantime_serde")]
        hello_timeout: Duration = Duration::from_secs(5),
        /// Interval of the devices' heartbeats. A connection without a frame for 2.5 intervals is closed.
        #[bounds(between(SECOND, DAY))]
        #[serde(with = "humantime_serde")]
        heartbeat: Duration = Duration::from_secs(30),
        /// Largest message body.
        #[bounds(more_than(ByteSize::new(0)))]
        max_body: ByteSize = ByteSize::kib(16),
        /// Largest frame in either direction, and largest HTTP body from a client. At least three times `max_body` plus 4 KiB: a
        /// client that escapes all characters beyond ASCII writes two bytes of text as six. Longer answers are sent in parts.
        max_frame: ByteSize = ByteSize::kib(64),
        /// Most unanswered sends per connection. At this limit the gateway stops reading from the connection.
        #[bounds(more_than(0))]
        max_in_flight: u32 = 64,
        /// Most requests, other than sends and heartbeats, that the gateway works on at a time per connection. Further ones wait.
        #[bounds(more_than(0))]
        max_requests: u32 = 4,
        /// Most bytes queued for a device. Above this limit the connection is closed and the device catches up later. A
        /// delivery larger than a quarter of the limit is sent as a notification; the device fetches the entries. At least
        /// `max_frame` times (`max_requests` + 2).
        max_outbox: ByteSize = ByteSize::kib(1024),
        /// Most bytes queued for all devices of the gateway together, and reserved for answers in progress (two frames each).
        /// Above this limit the connections with the largest queues are closed, and requests are answered `unavailable`. The
        /// default is enough for 256 devices at their limit; devices that keep up have empty queues. At least `max_outbox`.
        max_outbox_total: ByteSize = ByteSize::kib(256 * 1024),
        /// Most WebSockets per gateway. The limit of open files may allow fewer: a gateway keeps 100 files for itself.
        max_connections: u32 = 200_000,
        /// Duration of the drain: the gateway asks its devices to reconnect, spread over this time.
        #[bounds(at_most(DAY))]
        #[serde(with = "humantime_serde")]
        drain: Duration = Duration::from_secs(5),
        /// Time before the drain in which the gateway keeps serving while `/readyz` already reports not ready. A load
        /// balancer sends new connections until it has noticed.
        #[bounds(at_most(DAY))]
        #[serde(with = "humantime_serde")]
        drain_grace: Duration = Duration::ZERO,
    }
}

section! {
    /// Accounts and access tokens.
    Auth {
        /// Whether anyone may create an account with `POST /v1/accounts`.
        registration: bool = true,
        /// Lifetime of an access token. Gateways also recheck the sessions of open connections at this interval, in case
        /// they missed a log-out; a recheck that db-service does not answer is repeated at least every half minute.
        #[bounds(between(SECOND, YEAR))]
        #[serde(with = "humantime_serde")]
        access_token_life: Duration = Duration::from_secs(15 * 60),
        /// Keys of access tokens, `ID=SECRET` or `ID=file:PATH`, newest first. The first key signs; all keys verify. Empty:
        /// the first start creates a key and stores it with the data.
        #[bounds(each(signing_key()))]
        keys: Vec<Secret> = Vec::new(),
        /// Memory cost of Argon2id in KiB. The default is OWASP's first recommendation.
        #[bounds(at_least(8))]
        argon2_memory_kib: u32 = 19_456,
        /// Number of passes of Argon2id.
        #[bounds(more_than(0))]
        argon2_passes: u32 = 2,
    }
}

section! {
    /// Rate limits. Each gateway counts on its own. A rate limit is a rate per second with a burst; a client above it gets
    /// an error with the time to wait.
    Limits {
        /// Messages per second and user.
        #[bounds(more_than(0))]
        sends_per_second: u32 = 1_000,
        /// Burst of messages per user.
        #[bounds(more_than(0))]
        send_burst: u32 = 2_000,
        /// Changes of groups per second and user.
        #[bounds(more_than(0))]
        group_changes_per_second: u32 = 10,
        /// Burst of changes of groups per user.
        #[bounds(more_than(0))]
        group_change_burst: u32 = 100,
        /// Signals per second and user.
        #[bounds(more_than(0))]
        signals_per_second: u32 = 20,
        /// Burst of signals per user.
        #[bounds(more_than(0))]
        signal_burst: u32 = 100,
        /// Most users who receive a signal. Larger groups have no typing and no delivery receipts.
        #[bounds(more_than(0))]
        signal_audience: u32 = 100,
        /// Other requests per second: of a connection, and of a user over HTTP.
        #[bounds(more_than(0))]
        requests_per_second: u32 = 100,
        /// Burst of other requests of a connection, and of a user over HTTP.
        #[bounds(more_than(0))]
        request_burst: u32 = 400,
        /// Registrations, log-ins and token refreshes per second and client address. All addresses of an IPv6 /64 network
        /// count as one, here and below.
        #[bounds(more_than(0))]
        auth_per_second: u32 = 100,
        /// Burst of registrations, log-ins and token refreshes per client address.
        #[bounds(more_than(0))]
        auth_burst: u32 = 1_000,
        /// Registrations and log-ins per second and account, from all addresses together.
        #[bounds(more_than(0))]
        account_auth_per_second: u32 = 1,
        /// Burst of registrations and log-ins per account.
        #[bounds(more_than(0))]
        account_auth_burst: u32 = 50,
        /// New connections per second and client address. Further ones are closed without an answer, or refused with 429 if
        /// they come through a trusted proxy.
        #[bounds(more_than(0))]
        connects_per_second: u32 = 5_000,
        /// Burst of new connections per client address.
        #[bounds(more_than(0))]
        connect_burst: u32 = 10_000,
        /// Most connections per client address that are not WebSockets yet: in a TLS handshake, sending a request, or waiting
        /// for its answer. Further ones are closed. Trusted proxies are exempt.
        #[bounds(more_than(0))]
        http_connections_per_address: u32 = 4_000,
        /// Most open connections per user.
        #[bounds(more_than(0))]
        connections_per_user: u32 = 32,
    }
}
