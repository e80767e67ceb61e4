//! `db-service`: the owner of everything durable.

#[cfg(test)]
mod conformance;
mod error;
mod item;
mod metrics;
mod postgres;
mod rules;
mod service;
mod sessions;
mod sqlite;
mod store;

pub use error::Error;
pub use service::{Server, Service};

use abi::config::Config;
use std::{path::Path, sync::Arc};

/// Opens the embedded store in a folder, which is made if it is missing, and returns its service for use in this
/// process. Blocks while it opens; the last clone that is dropped waits for what was being written.
///
/// # Errors
/// The folder can't be used, or its data are damaged or of a newer release.
pub fn embedded(folder: &Path, config: &Config) -> Result<Server, Error> {
    let store = sqlite::SqliteStore::open(folder, max_members(config))?;
    Ok(Service::new(Arc::new(store)).server())
}

fn max_members(config: &Config) -> usize {
    usize::try_from(config.db.max_group_members).unwrap_or(usize::MAX)
}
