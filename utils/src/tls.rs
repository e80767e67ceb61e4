//! TLS: between the services ([`MutualTls`]), and towards devices ([`ServerTls`]).
//!
//! Certificates, keys and authorities are PEM files that the configuration names. What is wrong with them is told in sentences
//! before anything starts. They are read again when they change: connections that are made from then on use the new ones,
//! and if those are faulty the last good ones stay.

pub mod checks;
mod files;
mod handshake;
mod mutual;
mod reload;
mod server;
mod trust;

pub use mutual::MutualTls;
pub use server::ServerTls;
pub use trust::{nobody, trust};

pub(crate) use handshake::incoming;

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, LazyLock};

/// The one provider of cryptography; it is named wherever rustls would look for that of the process.
fn provider() -> Arc<CryptoProvider> {
    static RING: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    RING.clone()
}

#[cfg(test)]
mod tests;
