//! The commands of the program `godwit` beside its service.

use abi::config::Config;
use clap::{Args, Subcommand};
use godwit::transfer::{self, Mode};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use utils::cli::Options;

/// What to do instead of serving.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write all data to a file; of a folder only while no godwit is running on it
    Export {
        /// A file that does not exist, or - for standard output
        file: PathBuf,
        /// Leave behind what is in Kafka and not stored yet
        #[arg(long, requires = "distributed")]
        despite_lag: bool,
        #[command(flatten)]
        at: At,
    },
    /// Take over all data of a file, where there are none
    Import {
        /// What export wrote, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Print a checksum of every conversation, and of all data, to compare two places
    Checksum {
        /// What export wrote; without it the stored data, which may be in use
        file: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Copy the data of a godwit, which may be running, into a folder to start from
    Backup {
        /// A folder that does not exist
        folder: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Tell the data in PostgreSQL that they were restored by other means than import, such as pg_restore
    Restored {
        #[command(flatten)]
        at: At,
    },
}

/// Which data.
#[derive(Args)]
pub(crate) struct At {
    /// The data in PostgreSQL (db.postgres, db.schema) instead of those in a folder
    #[arg(long, conflicts_with = "data")]
    distributed: bool,
    /// Folder of all data; the same as --set embedded.data=FOLDER [default: godwit-data]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
}

impl Command {
    /// Where its data and its configuration are.
    pub(crate) fn at(&mut self) -> &mut At {
        match self {
            Self::Export { at, .. }
            | Self::Import { at, .. }
            | Self::Checksum { at, .. }
            | Self::Backup { at, .. }
            | Self::Restored { at } => at,
        }
    }

    /// Does it, and says on standard error what was done.
    pub(crate) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let mode = |at: &At| if at.distributed { Mode::Distributed } else { Mode::Embedded };
        let (what, summary) = match self {
            Self::Export { file, despite_lag, at } => {
                ("exported", transfer::export(config, mode(&at), &file, despite_lag).await?)
            }
            Self::Import { file, at } => ("imported", transfer::import(config, mode(&at), &file).await?),
            Self::Checksum { file, at } => {
                ("summed up", transfer::checksums(config, mode(&at), file.as_deref()).await?)
            }
            Self::Backup { folder, at } => {
                anyhow::ensure!(
                    !at.distributed,
                    "a backup of PostgreSQL is made with export --distributed, or pg_dump"
                );
                transfer::back_up(Path::new(&config.embedded.data), &folder)?;
                writeln!(io::stderr(), "copied to {}", folder.display())?;
                return Ok(());
            }
            Self::Restored { at } => {
                anyhow::ensure!(
                    at.distributed,
                    "say --distributed; a copy that backup made needs no telling"
                );
                transfer::restored(config).await?;
                writeln!(io::stderr(), "a new generation of the data begins")?;
                return Ok(());
            }
        };
        writeln!(
            io::stderr(),
            "{what}: {} accounts, {} sessions, {} conversations, {} members, {} entries",
            summary.users,
            summary.sessions,
            summary.conversations,
            summary.members,
            summary.entries
        )?;
        Ok(())
    }
}
