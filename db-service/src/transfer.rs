//! All data from one place to another, as a stream of records: export, import, checksums. See `docs/backup.md`.
//!
//! - It is one state of the data: a transaction of the store that is read, one transaction of the store that is filled.
//! - It is all or nothing: what was cut off, changed on its way, or does not fit together is refused, and what was put down so
//!   far goes away. So a copy that failed is simply made again.
//! - Memory is bounded: a few batches of records are on their way, however much there is.
//!
//! What arrives in an empty place begins a new `generation` there, because it may be older than what devices have seen.
//!
//! - `file`: the format, written and read;
//! - `checksums`: a line for each conversation, the same wherever the data are;
//! - `flow`: records on their way, and whether they fit together.

mod checksums;
mod file;
mod flow;
#[cfg(test)]
#[cfg(all(feature = "postgres", feature = "sqlite"))]
mod tests;

pub(crate) use flow::{Feed, Intake};

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

/// Where data are kept.
#[derive(Debug)]
pub enum Place {
    /// The folder of an embedded store. Nobody else may use it while it is filled.
    #[cfg(feature = "sqlite")]
    Folder(PathBuf),
    /// A schema of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(Box<Db>),
}

/// Where a copy comes from.
pub enum Source {
    /// A store.
    Place(Place),
    /// A file, as [`Target::File`] writes it.
    File(Box<dyn Read + Send>),
}

/// Where a copy goes.
pub enum Target {
    /// A store without any data.
    Empty(Place),
    /// A file.
    File(Box<dyn Write + Send>),
    /// Only the checksums: a line for each conversation and each kind of account data, and one for all of it.
    Checksums(Box<dyn Write + Send>),
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Accounts.
    pub users: u64,
    /// Logged-in devices.
    pub sessions: u64,
    /// Conversations.
    pub conversations: u64,
    /// Members of conversations.
    pub members: u64,
    /// Entries.
    pub entries: u64,
}

/// Copies everything, or nothing.
///
/// # Errors
/// A sentence: what can't be read or written, does not fit together, or is not empty.
pub async fn copy(source: Source, target: Target) -> Result<Summary> {
    let (feed, intake) = flow::channel();
    let read = async {
        match source {
            #[cfg(feature = "sqlite")]
            Source::Place(Place::Folder(folder)) => {
                joined(spawn_blocking(move || sqlite::transfer::read(&folder, feed))).await
            }
            #[cfg(feature = "postgres")]
            Source::Place(Place::Postgres(db)) => postgres::transfer::read(&db, feed).await,
            Source::File(file) => joined(spawn_blocking(move || file::read(file, feed))).await,
        }
    };
    let written = async {
        match target {
            #[cfg(feature = "sqlite")]
            Target::Empty(Place::Folder(folder)) => {
                joined(spawn_blocking(move || sqlite::transfer::write(&folder, intake))).await
            }
            #[cfg(feature = "postgres")]
            Target::Empty(Place::Postgres(db)) => postgres::transfer::write(&db, intake).await,
            Target::File(file) => joined(spawn_blocking(move || file::write(file, intake))).await,
            Target::Checksums(file) => joined(spawn_blocking(move || checksums::write(file, intake))).await,
        }
    };
    // Each end sees only that the other one has gone; the other one knows why.
    match tokio::join!(read, written) {
        (Err(error), written) if !matches!(error, Error::Stopped) || written.is_ok() => Err(error),
        (_, written) => written,
    }
}

async fn joined<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    work.await.map_err(|_| Error::Stopped)?
}

/// Makes a copy of the embedded store in `folder`, which may be in use, in the folder `copy`. Whoever opens the copy first begins
/// a new generation of the data. Blocks for as long as the disk needs.
///
/// # Errors
/// A sentence: there is no store, there is one in `copy`, or a folder can't be used.
#[cfg(feature = "sqlite")]
pub fn back_up(folder: &Path, copy: &Path) -> Result<()> {
    sqlite::transfer::back_up(folder, copy)
}

/// Tells the data in PostgreSQL that they were restored by other means than [`copy`], such as `pg_restore`: a new generation
/// begins. No other program may use them meanwhile.
///
/// # Errors
/// PostgreSQL can't be reached, or has no data.
#[cfg(feature = "postgres")]
pub async fn restored(db: &Db) -> Result<()> {
    postgres::transfer::begin_generation(db).await
}
