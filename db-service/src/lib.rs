//! `db-service`: owns all durable data and serves them through the gRPC service `DbService`.
//!
//! The data are conversations with their numbered entries, members with their read positions, accounts, sessions, and the keys
//! that sign tokens. The crate promises:
//! - saving is idempotent: an entry is stored once, even if several instances save it repeatedly (P2);
//! - `conversation_seq` is gapless and follows the order of saving. The transaction that stores an entry assigns it, so a reader
//!   who sees an entry can also read all earlier ones (P3, P4);
//! - the position of the log is stored with the entries, so a store that lost transactions catches up from the log, and an entry that
//!   was rejected is never stored later (P1, P4);
//! - users read only the conversations of which they are members, and cannot find out which others exist (P8);
//! - while the database is unavailable, calls fail with `UNAVAILABLE`; service resumes with the database (P6).
//!
//! [`Service`] validates a call and translates between gRPC and a store. A store implements three object-safe traits, by the key of the
//! data. There are two stores, and one conformance suite tests both:
//! - PostgreSQL, shared by any number of instances (feature `postgres`): `build` makes the program `db-service`;
//! - SQLite in a folder, for a single process (feature `sqlite`): [`embedded`].
//!
//! The modules:
//! - `service`: validation of requests, translation of results;
//! - `store`: the traits; `postgres` and `sqlite` implement them;
//! - `statements`: the SQL that both stores share;
//! - `item`: conversion between entries and rows;
//! - `visibility`, `entries`, `heads`: which entries a user sees, with their current content and in lists of conversations;
//! - `user_state`: checks of settings, blocks and profiles;
//! - `position`: the position in the log, which travels with the saves;
//! - `rules`: which changes of groups and of entries are allowed, and their effects;
//! - `outcome`: the results of saving and checking;
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
mod entries;
mod error;
mod generation;
mod heads;
mod item;
mod metrics;
mod outcome;
mod position;
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
mod user_state;
mod visibility;

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
    let store = sqlite::SqliteStore::open(folder, rules::Limits::new(config))?;
    Ok(Service::new(std::sync::Arc::new(store)))
}
