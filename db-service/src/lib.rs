//! `db-service`: the owner of everything durable, behind the gRPC service `DbService`.
//!
//! It owns conversations with their numbered entries, members with their read positions, accounts, sessions and the keys that
//! sign tokens. It promises:
//! - an entry is stored once, however often and by however many it is saved (P2);
//! - `conversation_seq` is 1, 2, 3, … in the order in which entries were saved, taken in the transaction that stores them: a
//!   number that can be read has all below it (P3, P4);
//! - nobody sees what is not theirs, nor learns whether it exists (P8);
//! - an outage of the database is an `UNAVAILABLE`, and over when the outage is (P6).
//!
//! The way of a call: [`Service`] checks it and speaks gRPC; a store, which is a small object-safe trait, does it. There
//! are two stores, held to the same promises by one suite of tests:
//! - PostgreSQL, shared by any number of instances: [`build`] makes the program `db-service` of it;
//! - SQLite in a folder, for one process: [`embedded`].
//!
//! The modules:
//! - `service`: what is taken, and what the store's answers mean;
//! - `store`: the seam; `postgres` and `sqlite` implement it;
//! - `item`: entries on their way in and out, columns apart from payload;
//! - `rules`: what may be changed in a group, and by whom;
//! - `sessions`: which refresh token is taken;
//! - [`transfer`]: all data from one place to another: export, import, checksums, backup;
//! - `generation`: how devices learn of that;
//! - `error`, `metrics`, `app`.

#[cfg(feature = "postgres")]
mod app;
#[cfg(test)]
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod conformance;
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
mod store;
pub mod transfer;

#[cfg(feature = "postgres")]
pub use app::{App, PROGRAM, build};
pub use error::Error;
pub use metrics::describe_metrics;
pub use service::{Server, Service};

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("db-service has no store: enable the feature `postgres`, `sqlite` or both");

use abi::config::Config;

/// Opens the embedded store in a folder, which is made if it is missing, and returns its service for use in this
/// process. Blocks while it opens; dropping the last clone waits for what was being written.
///
/// # Errors
/// The folder can't be used, or its data are damaged or of a newer release.
#[cfg(feature = "sqlite")]
pub fn embedded(folder: &std::path::Path, config: &Config) -> Result<Server, Error> {
    let store = sqlite::SqliteStore::open(folder, max_members(config))?;
    Ok(Service::new(std::sync::Arc::new(store)).server())
}

fn max_members(config: &Config) -> usize {
    usize::try_from(config.db.max_group_members).unwrap_or(usize::MAX)
}
