//! The errors of this crate, and their translation for callers.

use abi::{ApiError, error::ErrorCode};
#[cfg(feature = "sqlite")]
use rusqlite::ErrorCode as SqliteCode;
use std::path::PathBuf;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A refusal that the caller gets as it is.
    #[error(transparent)]
    ApiError(#[from] ApiError),
    /// SQLite.
    #[cfg(feature = "sqlite")]
    #[error("sqlite failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file of the embedded store can't be opened.
    #[cfg(feature = "sqlite")]
    #[error("{} cannot be opened: {source}{}", path.display(), remedy(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
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
    /// The queue of the embedded store is full.
    #[error("the store's queue is full")]
    Busy,
    /// A thread or the other end of a copy has ended.
    #[error("the store has stopped")]
    Stopped,
    /// A newer release has changed the schema.
    #[error(
        "the data have schema {found}, and this program works with {known}: a newer release wrote them; run that release"
    )]
    TooNew {
        /// Schema of the data.
        found: i64,
        /// The newest schema that this release supports.
        known: i64,
    },
    /// The schema is that of an older release.
    #[error(
        "the data have schema {found}, this program needs {known}: start this release on them once to migrate them"
    )]
    TooOld {
        /// Schema of the data.
        found: i64,
        /// Schema of this release.
        known: i64,
    },
    /// The data were made by a release whose schema can't be migrated.
    #[error(
        "the data have schema {found}, which this program (schema {known}) cannot migrate: start with an empty data folder or \
         database schema, or run the release that made them"
    )]
    Obsolete {
        /// Schema of the data.
        found: i64,
        /// Schema of this release.
        known: i64,
    },
    /// The source of a copy does not exist.
    #[error("no data of godwit were found here")]
    NoData,
    /// The target of a copy already contains data.
    #[error("{place} is not empty: {found}; the target of an import or a backup must be empty")]
    NotEmpty {
        /// The folder or the schema.
        place: String,
        /// The data that were found.
        found: String,
    },
    /// The file does not have the format of an export.
    #[error("this file is not an export that this program can read: {0}")]
    NotAnExport(&'static str),
    /// The file has no end record.
    #[error("the file is cut off: it has no end record; export again")]
    Truncated,
    /// The bytes of the file have changed.
    #[error("the file is damaged: {0}; copy or export it again")]
    CorruptFile(&'static str),
    /// A file can't be read or written.
    #[error("the file cannot be read or written: {0}")]
    File(std::io::Error),
    /// The stored data are inconsistent.
    #[error("the stored data are corrupt: {0}")]
    Corrupt(&'static str),
    /// The folder of the data can't be used.
    #[error("the data folder {path} cannot be used: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program can't listen on a configured address.
    #[error(transparent)]
    Host(#[from] utils::Error),
}

/// Result of this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Names the file in an error of SQLite.
    #[cfg(feature = "sqlite")]
    pub(crate) fn in_file(self, path: &std::path::Path) -> Self {
        match self {
            Self::Sqlite(source) => Self::Open { path: path.to_owned(), source },
            error => error,
        }
    }

    /// Whether a retry may succeed.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => is_sqlite_outage(error),
            #[cfg(feature = "postgres")]
            Self::Postgres(error) => is_postgres_outage(error) || is_conflict(error),
            Self::Timeout { .. } | Self::Busy => true,
            _ => false,
        }
    }

    /// Why the disk of the store refused to read or write, if it did.
    pub(crate) fn disk_failure(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => match error.sqlite_error_code()? {
                SqliteCode::DiskFull => Some("the disk of the data folder is full; make room"),
                SqliteCode::SystemIoFailure | SqliteCode::CannotOpen | SqliteCode::ReadOnly => {
                    Some("the files of the store cannot be written; check the disk and the permissions")
                }
                _ => None,
            },
            // 53100: disk full.
            #[cfg(feature = "postgres")]
            Self::Postgres(sqlx::Error::Database(error)) if error.code().as_deref() == Some("53100") => {
                Some("the disk of PostgreSQL is full; make room")
            }
            _ => None,
        }
    }

    /// The text of an outage for the caller.
    fn outage(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) if error.sqlite_error_code() == Some(SqliteCode::DiskFull) => {
                "the disk of the store is full"
            }
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "the store cannot read or write its files",
            Self::Busy => "the store is overloaded",
            error if error.disk_failure().is_some() => "the disk of the store is full",
            _ => "the database cannot be reached",
        }
    }
}

/// What to do about a file that can't be opened.
#[cfg(feature = "sqlite")]
fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(SqliteCode::NotADatabase | SqliteCode::DatabaseCorrupt) => {
            "; the file is damaged: restore the data folder from a backup"
        }
        _ => "",
    }
}

/// Disk full, I/O error, locked file, or a conflict with another process.
#[cfg(feature = "sqlite")]
fn is_sqlite_outage(error: &rusqlite::Error) -> bool {
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
                // Another process has assigned this conversation_seq. The retry reads the conversation again.
                | SqliteCode::ConstraintViolation
        )
    )
}

/// Connection lost, server starting or stopping, pool exhausted, server out of resources, read-only standby.
#[cfg(feature = "postgres")]
fn is_postgres_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "28", "3D", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                // 25006: the server is a read-only standby. 25P03: it ended an idle transaction.
                || matches!(code.as_ref(), "25006" | "25P03")
        }),
        _ => false,
    }
}

/// A conflict with a concurrent transaction. A retry sees the result of the other one.
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
            tracing::warn!(%error, "the store is unavailable");
            return Self::unavailable(format!("{}; try again", error.outage()));
        }
        tracing::error!(%error, "a call failed");
        Self::new(ErrorCode::Internal, "the store failed; its log says why")
    }
}
