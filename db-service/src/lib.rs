//! `db-service`: owns all durable data and serves them through the gRPC service `DbService`.
//!
//! The data are conversations with their numbered entries, members with their read positions, accounts, sessions, and the keys
//! that sign tokens. The crate promises:
//! - saving is idempotent: an entry is stored once, even if several instances save it repeatedly (P2);
//! - `conversation_seq` is gapless and follows the order of saving. The transaction that stores an entry assigns it, so a reader
//!   who sees an entry can also read all earlier ones (P3, P4);
//! - users read only the conversations of which they are members, and cannot find out which others exist (P8);
//! - while the database is unavailable, calls fail with `UNAVAILABLE`; service resumes with the database (P6).
//!
//! [`Service`] validates a call and translates between gRPC and a store. A store implements a small object-safe trait. There are
//! two, and one conformance suite tests both:
//! - PostgreSQL, shared by any number of instances (feature `postgres`): `build` makes the program `db-service`;
//! - SQLite in a folder, for a single process (feature `sqlite`): [`embedded`].
//!
//! The modules:
//! - `service`: validation of requests, translation of results;
//! - `store`: the trait; `postgres` and `sqlite` implement it;
//! - `statements`: the SQL that both stores share;
//! - `item`: conversion between entries and rows;
//! - `rules`: which group changes are allowed, and their effects;
//! - `sessions`: which refresh tokens are accepted;
//! - [`transfer`]: export, import, checksums and backup of all data;
//! - `generation`: how devices learn that the data were restored or moved;
//! - `error`, `metrics`, `app`.

#[cfg(feature = "postgres")]
mod app;
#[cfg(test)]
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod conformance;
mod disk;
mod error;
mod generation;
mod item;
mod metrics;
#[cfg(feature = "postgres")]
mod postgres;
mod rules;
mod service;
mod sessions;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
mod store;
pub mod transfer;

#[cfg(feature = "postgres")]
pub use app::{App, PROGRAM, build};
pub use error::Error;
pub use metrics::describe_metrics;
pub use service::{Server, Service};

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("db-service has no store: enable the feature `postgres`, `sqlite` or both");

/// Opens the embedded store in a folder, which is created if it is missing, and returns a service for use in this process.
/// Blocks until the store is open. Dropping the last clone blocks until all accepted calls are written.
///
/// # Errors
/// The folder can't be used, or its data are corrupt or belong to a newer release.
#[cfg(feature = "sqlite")]
pub fn embedded(folder: &std::path::Path, config: &abi::config::Config) -> Result<Service, Error> {
    let store = sqlite::SqliteStore::open(folder, rules::Limits::new(&config.db))?;
    Ok(Service::new(std::sync::Arc::new(store)))
}
