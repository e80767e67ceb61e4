//! Commands of `godwit` besides the service.

use abi::config::Config;
use clap::{Args, Subcommand};
use godwit::transfer::{self, Mode};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use utils::cli::Options;

/// A command to run instead of the service.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Export all data to a file. A data folder must not be in use by a running godwit
    Export {
        /// The new file, or - for standard output; an existing file is not overwritten
        file: PathBuf,
        /// Export even if records in Kafka are not stored yet; they are missing in the file
        #[arg(long, requires = "distributed")]
        despite_lag: bool,
        #[command(flatten)]
        location: Location,
    },
    /// Import all data from a file into an empty data folder or database
    Import {
        /// A file written by export, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        location: Location,
    },
    /// Print a checksum per conversation and of all data, to compare two copies
    Checksum {
        /// A file written by export. Default: the stored data, which may be in use
        file: Option<PathBuf>,
        #[command(flatten)]
        location: Location,
    },
    /// Copy the data folder, also of a running godwit, to a new folder that godwit can start from
    Backup {
        /// The new folder; an existing folder is not overwritten
        folder: PathBuf,
        #[command(flatten)]
        location: Location,
    },
    /// Mark the data in PostgreSQL as restored, after pg_restore or a snapshot; import does this by itself
    Restored {
        #[command(flatten)]
        location: Location,
    },
}

/// The location of the data.
#[derive(Args)]
pub(crate) struct Location {
    /// Use the data in PostgreSQL (db.postgres, db.schema) instead of a data folder
    #[arg(long, conflicts_with = "data")]
    distributed: bool,
    /// Data folder; same as --set embedded.data=FOLDER [default: godwit-data]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
}

impl Command {
    /// The location of the data, and the configuration options.
    pub(crate) fn location(&mut self) -> &mut Location {
        match self {
            Self::Export { location, .. }
            | Self::Import { location, .. }
            | Self::Checksum { location, .. }
            | Self::Backup { location, .. }
            | Self::Restored { location } => location,
        }
    }

    /// Runs the command, and prints its outcome to standard error.
    pub(crate) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let mode =
            |location: &Location| if location.distributed { Mode::Distributed } else { Mode::Embedded };
        let (outcome, summary) = match self {
            Self::Export { file, despite_lag, location } => {
                ("exported", transfer::export(config, mode(&location), &file, despite_lag).await?)
            }
            Self::Import { file, location } => {
                ("imported", transfer::import(config, mode(&location), &file).await?)
            }
            Self::Checksum { file, location } => {
                ("computed checksums", transfer::checksums(config, mode(&location), file.as_deref()).await?)
            }
            Self::Backup { folder, location } => {
                anyhow::ensure!(
                    !location.distributed,
                    "backup copies only a data folder; for PostgreSQL use export --distributed or pg_dump"
                );
                transfer::back_up(Path::new(&config.embedded.data), &folder)?;
                writeln!(io::stderr(), "copied to {}", folder.display())?;
                return Ok(());
            }
            Self::Restored { location } => {
                anyhow::ensure!(
                    location.distributed,
                    "restored needs --distributed; godwit recognises a data folder copied by backup by itself"
                );
                transfer::restored(config).await?;
                writeln!(io::stderr(), "the data in PostgreSQL have a new generation")?;
                return Ok(());
            }
        };
        writeln!(
            io::stderr(),
            "{outcome}: {} accounts, {} sessions, {} conversations, {} members, {} entries",
            summary.users,
            summary.sessions,
            summary.conversations,
            summary.members,
            summary.entries
        )?;
        Ok(())
    }
}
