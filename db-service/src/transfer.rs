//! Copying all data from one place to another: export, import, checksums, backup. See `docs/backup.md`.
//!
//! - A copy is consistent: one transaction reads the source, one transaction fills the target.
//! - A copy is all or nothing. A truncated, changed or inconsistent source is refused and leaves no data in the target, so a
//!   failed copy can be repeated.
//! - Memory is bounded: only a few batches of records are in flight.
//!
//! An empty place that receives a copy begins a new `generation`, because the copy may be older than the entries that devices
//! have seen.
//!
//! - `file`: the format of an exported file;
//! - `checksums`: one line for each conversation, independent of the store;
//! - `tables`: the tables and columns of a copy;
//! - `channel`: records between reader and writer, and their validation.

pub(crate) mod channel;
mod checksums;
mod file;
pub(crate) mod tables;
#[cfg(test)]
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod tests;

pub use channel::Summary;

#[cfg(feature = "postgres")]
use crate::postgres;
#[cfg(feature = "sqlite")]
use crate::sqlite;
use crate::{Error, error::Result};
#[cfg(feature = "postgres")]
use abi::config::Db;
use std::io::{Read, Write};
#[cfg(feature = "sqlite")]
use std::path::{Path, PathBuf};
use tokio::task::{JoinHandle, spawn_blocking};

/// A store.
#[derive(Debug)]
pub enum Place {
    /// The folder of an embedded store. No other process may use it while a copy fills it.
    #[cfg(feature = "sqlite")]
    Folder(PathBuf),
    /// A schema of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(Box<Db>),
}

/// The source of a copy.
pub enum Source {
    /// A store.
    Place(Place),
    /// A file that [`Target::File`] wrote.
    File(Box<dyn Read + Send>),
}

/// The target of a copy.
pub enum Target {
    /// A store without any data.
    Empty(Place),
    /// A file.
    File(Box<dyn Write + Send>),
    /// Only checksums: a line for each conversation and each table of user data, and one for everything.
    Checksums(Box<dyn Write + Send>),
}

/// Copies everything, or nothing.
///
/// # Errors
/// The source can't be read or is inconsistent; the target can't be written or is not empty.
pub async fn copy(source: Source, target: Target) -> Result<Summary> {
    let (sender, receiver) = channel::channel();
    let read = async {
        match source {
            #[cfg(feature = "sqlite")]
            Source::Place(Place::Folder(folder)) => {
                join(spawn_blocking(move || sqlite::transfer::read(&folder, sender))).await
            }
            #[cfg(feature = "postgres")]
            Source::Place(Place::Postgres(db)) => postgres::transfer::read(&db, sender).await,
            Source::File(file) => join(spawn_blocking(move || file::read(file, sender))).await,
        }
    };
    let written = async {
        match target {
            #[cfg(feature = "sqlite")]
            Target::Empty(Place::Folder(folder)) => {
                join(spawn_blocking(move || sqlite::transfer::write(&folder, receiver))).await
            }
            #[cfg(feature = "postgres")]
            Target::Empty(Place::Postgres(db)) => postgres::transfer::write(&db, receiver).await,
            Target::File(file) => join(spawn_blocking(move || file::write(file, receiver))).await,
            Target::Checksums(file) => join(spawn_blocking(move || checksums::write(file, receiver))).await,
        }
    };
    // An end whose peer has failed reports only `Stopped`: return the peer's error.
    match tokio::join!(read, written) {
        (Err(error), written) if !matches!(error, Error::Stopped) || written.is_ok() => Err(error),
        (_, written) => written,
    }
}

async fn join<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    work.await.map_err(|_| Error::Stopped)?
}

/// Copies the embedded store in `folder`, which may be in use, to the folder `copy`. The first program that opens the copy
/// begins a new generation of the data. Blocks until the copy is on the disk.
///
/// # Errors
/// `folder` has no store, `copy` has one, or a folder can't be used.
#[cfg(feature = "sqlite")]
pub fn back_up(folder: &Path, copy: &Path) -> Result<()> {
    sqlite::transfer::back_up(folder, copy)
}

/// Begins a new generation of the data in PostgreSQL. To be called after a restore by other means than [`copy`], such as
/// `pg_restore`, and before any other program uses the data.
///
/// # Errors
/// PostgreSQL can't be reached, or has no data.
#[cfg(feature = "postgres")]
pub async fn restored(db: &Db) -> Result<()> {
    postgres::transfer::begin_generation(db).await
}
