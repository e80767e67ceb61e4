//! The configuration of all programs. Every program reads the same file and uses the keys that concern it.
//!
//! A key is defined once, in a `section!` of `gateway.rs`, `services.rs`, `backends.rs` or `operations.rs`: its
//! documentation, bounds and default. `deploy/godwit.toml` and `docs/configuration.md` are generated from the
//! definitions ([`reference`](mod@reference)) by `cargo run -p abi --example configuration`.
//!
//! Lists are TOML lists, or comma-separated text in environment variables and on the command line. An empty text
//! means "not set".

#[macro_use]
mod section;

mod address;
mod backends;
mod bounds;
mod gateway;
mod network;
mod operations;
pub mod reference;
mod relations;
mod services;
mod units;
mod value;

pub use address::{InvalidAddress, ListenAddress};
pub use backends::{Discovery, DiscoveryKind, Kafka, Redis, Tls};
pub use gateway::{Auth, Gateway, Limits};
pub use network::Network;
pub use operations::{Log, Operator, Trace};
pub use section::{Key, Section};
pub use services::{Consumer, Db, Embedded, Messages, Pusher, Receipts};
pub use units::{ByteSize, Secret};

use bounds::id;

section! {
    /// The configuration of all programs.
    Config {
        /// Name of the application. It is part of every cache key, token and database row.
        #[bounds(id())]
        app: String = crate::DEFAULT_APP.into(),
    }
    sections {
        gateway: Gateway,
        consumer: Consumer,
        db: Db,
        messages: Messages,
        receipts: Receipts,
        pusher: Pusher,
        auth: Auth,
        limits: Limits,
        kafka: Kafka,
        redis: Redis,
        discovery: Discovery,
        tls: Tls,
        embedded: Embedded,
        operator: Operator,
        log: Log,
        trace: Trace,
    }
}

impl Config {
    /// All config errors, each as `section.key: a sentence`.
    pub fn errors(&self) -> Vec<String> {
        let mut errors = bound_errors("", self);
        errors.extend(self.relation_errors());
        errors
    }
}

fn bound_errors(path: &str, section: &dyn Section) -> Vec<String> {
    let mut errors = Vec::new();
    for Key { name, violations, .. } in section.keys() {
        let to_error = |(suffix, allowed)| format!("{path}{name}{suffix}: must be {allowed}");
        errors.extend(violations.into_iter().map(to_error));
    }
    for (name, section) in section.sections() {
        errors.extend(bound_errors(&format!("{path}{name}."), section));
    }
    errors
}
