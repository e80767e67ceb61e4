//! What can go wrong here, and what the caller is told.

use abi::{ApiError, error::ErrorCode};
#[cfg(feature = "sqlite")]
use rusqlite::ErrorCode as SqliteCode;
use std::path::PathBuf;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's to know: a refusal, in the terms of the contract.
    #[error(transparent)]
    ApiError(#[from] ApiError),
    /// SQLite.
    #[cfg(feature = "sqlite")]
    #[error("sqlite failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    #[error("postgres failed: {0}")]
    Postgres(#[from] sqlx::Error),
    /// PostgreSQL did not answer in time.
    #[error("postgres did not answer within {seconds} s")]
    Timeout {
        /// Seconds waited.
        seconds: u64,
    },
    /// More calls are waiting than the store takes.
    #[error("the store's queue is full")]
    Busy,
    /// The store's thread has ended.
    #[error("the store has stopped")]
    Stopped,
    /// The data were written by a newer release.
    #[error("the data have schema {found}, this program knows {known}: run a newer release")]
    TooNew {
        /// Schema of the data.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The data were written by an older release.
    #[error(
        "the data have schema {found}, this program needs {known}: start this release on them once, it brings them up to date"
    )]
    TooOld {
        /// Schema of the data.
        found: i64,
        /// The schema of this release.
        known: i64,
    },
    /// There is nothing to take data from.
    #[error("there are no data of godwit")]
    NoData,
    /// Data are only put where there are none.
    #[error("{place} is not empty: {what}; data are only put where there are none")]
    NotEmpty {
        /// The folder or the schema.
        place: String,
        /// What is there.
        what: String,
    },
    /// The file is not what an export writes.
    #[error("this is no file of `godwit export` of format 1: {0}")]
    NotAnExport(&'static str),
    /// The file ends too early.
    #[error("the file is cut off: it has no end record; export again")]
    CutOff,
    /// The file is not what was written.
    #[error("the file is damaged: {0}; copy or export it again")]
    DamagedFile(&'static str),
    /// A file can't be read or written.
    #[error("the file can't be read or written: {0}")]
    File(std::io::Error),
    /// What is stored does not fit together.
    #[error("stored data can't be read: {0}")]
    Damaged(&'static str),
    /// The folder of the data can't be used.
    #[error("the data folder {path} can't be used: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program can't be reached under the addresses of the configuration.
    #[error(transparent)]
    Host(#[from] utils::Error),
}

/// Result of this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The same call may succeed later.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => sqlite_is_unavailable(error),
            #[cfg(feature = "postgres")]
            Self::Postgres(error) => postgres_is_unavailable(error) || is_conflict(error),
            Self::Timeout { .. } | Self::Busy => true,
            _ => false,
        }
    }

    /// What the caller reads of an outage.
    fn outage(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) if error.sqlite_error_code() == Some(SqliteCode::DiskFull) => {
                "the disk of the store is full"
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "the store can't read or write its files",
            Self::Busy => "the store is overloaded",
            _ => "the database can't be reached",
        }
    }
}

/// Disk full, I/O error, locked files, and a lost race with another process.
#[cfg(feature = "sqlite")]
fn sqlite_is_unavailable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            SqliteCode::DiskFull
                | SqliteCode::SystemIoFailure
                | SqliteCode::CannotOpen
                | SqliteCode::ReadOnly
                | SqliteCode::DatabaseBusy
                | SqliteCode::DatabaseLocked
                | SqliteCode::OutOfMemory
                // Another process took this conversation_seq. The retry reads the head again.
                | SqliteCode::ConstraintViolation
        )
    )
}

/// Connection lost, starting or stopping server, no connection free, no resources, read-only standby.
#[cfg(feature = "postgres")]
fn postgres_is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "28", "3D", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                // 25006: read-only standby. 25P03: the transaction was idle for too long.
                || matches!(code.as_ref(), "25006" | "25P03")
        }),
        _ => false,
    }
}

/// Two transactions conflicted. A retry sees the result of the other one.
#[cfg(feature = "postgres")]
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| matches!(code.as_ref(), "23505" | "40001" | "40P01"))
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        if let Error::ApiError(error) = error {
            return error;
        }
        if error.is_outage() {
            tracing::warn!(%error, "the store can't serve a call now");
            return Self::unavailable(format!("{}; try again", error.outage()));
        }
        tracing::error!(%error, "a call failed");
        Self::new(ErrorCode::Internal, "the store failed; its log says why")
    }
}
