//! TLS between the services ([`MutualTls`]) and towards devices ([`ServerTls`]).
//!
//! The configuration names the PEM files of certificates, keys and authorities. Errors in them are reported before
//! anything starts. Files that change are read again: new connections use the new files. If the new files are not
//! valid, the last valid ones stay in use.

pub mod checks;
mod files;
mod handshake;
mod mutual;
mod reload;
mod server;
mod trust;

pub use mutual::MutualTls;
pub use server::ServerTls;
pub use trust::{trust_authorities, trust_nothing};

pub(crate) use handshake::incoming;

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, LazyLock};

/// The cryptography provider. It is passed explicitly wherever rustls would use the default of the process.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

#[cfg(test)]
mod tests;
