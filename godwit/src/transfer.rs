//! Export, import, checksums and backup of all data. See `docs/backup.md`.
//!
//! Acknowledged messages that are not stored yet are in the log, so the log is handled first. An export of a data
//! folder stores all records of the embedded log. An export of PostgreSQL requires that the consumers have stored all
//! records in Kafka. A backup copies the log before the store.

#[cfg(feature = "distributed")]
mod postgres;
#[cfg(not(feature = "distributed"))]
mod without_postgres;

#[cfg(not(feature = "distributed"))]
use without_postgres as postgres;

use crate::data::{CALL_DEADLINE, GROUP, LOG, STORE, consume, open_log};
use abi::{EMBEDDED_TOPIC, config::Config, dead_letter_topic};
use anyhow::{Context as _, ensure};
use cache::MemoryCache;
use db_service::transfer::{Place, Source, Summary, Target, copy};
use kafka_runtime::{Archive as _, Log};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use utils::grpc;

/// Deadline for storing the records of the log: at most `embedded.max_backlog`, and those in flight.
const STORE_TIMEOUT: Duration = Duration::from_secs(120);
/// Interval between checks whether all records are stored.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The data that a command works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The data folder, `embedded.data`.
    Embedded,
    /// PostgreSQL, `db.postgres` and `db.schema`.
    Distributed,
}

/// Exports all data to a new file, or to standard output if `file` is `-`. With `despite_lag`, records in Kafka that are
/// not stored in PostgreSQL yet are missing in the export.
///
/// # Errors
/// The data are in use, the consumers lag behind, or the data or the file cannot be read or written.
pub async fn export(config: &Config, mode: Mode, file: &Path, despite_lag: bool) -> anyhow::Result<Summary> {
    let draft = file.with_added_extension("part");
    let is_file = file != Path::new("-");
    ensure!(!is_file || !file.exists(), "{} exists; choose another file", file.display());
    let target: Box<dyn Write + Send> = if is_file {
        // The file holds keys and password hashes: only its owner may read it.
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        Box::new(options.open(&draft).with_context(|| format!("cannot create {}", draft.display()))?)
    } else {
        Box::new(io::stdout())
    };
    let copied = match mode {
        Mode::Embedded => export_folder(config, target).await,
        Mode::Distributed => postgres::export(config, target, despite_lag).await,
    };
    if is_file {
        let finished = match &copied {
            Ok(_) => {
                File::open(&draft).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&draft, file))
            }
            Err(_) => fs::remove_file(&draft),
        };
        finished.with_context(|| format!("cannot write {}", file.display()))?;
    }
    copied
}

async fn export_folder(config: &Config, target: Box<dyn Write + Send>) -> anyhow::Result<Summary> {
    let data = Path::new(&config.embedded.data);
    has_data(data)?;
    // The open log locks the data folder until the end.
    let log = open_log(data, config)?;
    store_all(&log, data, config).await?;
    let summary = copy(Source::Place(Place::Folder(data.join(STORE))), Target::File(target)).await?;
    let topic = dead_letter_topic(EMBEDDED_TOPIC);
    let letters: i64 =
        log.archive(&topic)?.bounds().await?.iter().map(|offsets| offsets.end - offsets.start).sum();
    if letters > 0 {
        tracing::warn!(data = %data.display(), "the export does not contain dead letters; `godwit-cli dead-letters list` shows them");
    }
    Ok(summary)
}

/// Stores all records of the log.
async fn store_all(log: &Log, data: &Path, config: &Config) -> anyhow::Result<()> {
    if is_stored(log).await? {
        return Ok(());
    }
    let store = db_service::embedded(&data.join(STORE), config)?;
    let db = grpc::local(Routes::new(store.server()), CALL_DEADLINE);
    let cache = Arc::new(MemoryCache::default());
    // No device is connected, so the pusher never calls a gateway.
    let no_gateway = grpc::local(Routes::default(), CALL_DEADLINE);
    let push = pusher::server(cache.clone(), Arc::new(move |_: &str| no_gateway.clone()), CALL_DEADLINE);
    let push = grpc::local(Routes::new(push), CALL_DEADLINE);
    let stop = CancellationToken::new();
    let running = consume(log, db, push, cache, config)?.run(stop.clone());
    let stored = async {
        while !is_stored(log).await? {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        anyhow::Ok(())
    };
    let stored = async {
        let stored = tokio::time::timeout(STORE_TIMEOUT, stored).await;
        stop.cancel();
        stored.with_context(|| {
            format!(
                "the records of the log were not stored within {} s; see the errors above",
                STORE_TIMEOUT.as_secs()
            )
        })?
    };
    let (ended, stored) = tokio::join!(running, stored);
    stored?;
    Ok(ended?)
}

/// Whether all records of the log are stored.
async fn is_stored(log: &Log) -> anyhow::Result<bool> {
    let bounds = log.archive(EMBEDDED_TOPIC)?.bounds().await?;
    for (partition, offsets) in (0..).zip(bounds) {
        if log.committed(GROUP, EMBEDDED_TOPIC, partition)?.unwrap_or(offsets.start) < offsets.end {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Imports all data from a file, or from standard input if it is `-`, into an empty data folder or database.
///
/// # Errors
/// The file is incomplete, the target is not empty, or the data cannot be written.
pub async fn import(config: &Config, mode: Mode, file: &Path) -> anyhow::Result<Summary> {
    let source = Source::File(open(file)?);
    if mode == Mode::Distributed {
        return Ok(copy(source, Target::Empty(postgres::place(config)?)).await?);
    }
    let data = Path::new(&config.embedded.data);
    // The open log locks the data folder until the end.
    let log = open_log(data, config)?;
    let bounds = log.archive(EMBEDDED_TOPIC)?.bounds().await?;
    ensure!(
        bounds.iter().all(|offsets| offsets.end == 0),
        "{} is not empty: its log holds messages; import into an empty folder",
        data.display()
    );
    Ok(copy(source, Target::Empty(Place::Folder(data.join(STORE)))).await?)
}

/// Prints the checksums of a file or of the stored data. The checksums are those of one consistent snapshot, even if the
/// data are in use.
///
/// # Errors
/// There are no data, or they cannot be read.
pub async fn checksums(config: &Config, mode: Mode, file: Option<&Path>) -> anyhow::Result<Summary> {
    let source = match (file, mode) {
        (Some(file), _) => Source::File(open(file)?),
        (None, Mode::Distributed) => Source::Place(postgres::place(config)?),
        (None, Mode::Embedded) => {
            let data = Path::new(&config.embedded.data);
            has_data(data)?;
            Source::Place(Place::Folder(data.join(STORE)))
        }
    };
    Ok(copy(source, Target::Checksums(Box::new(io::stdout()))).await?)
}

fn open(file: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    Ok(if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    })
}

fn has_data(data: &Path) -> anyhow::Result<()> {
    ensure!(
        data.join(STORE).is_dir(),
        "{} is not a data folder of godwit; select it with --data",
        data.display()
    );
    Ok(())
}

/// Copies the data folder, also of a running `godwit`, to a new folder that `godwit` can start from. Blocking.
///
/// The log is copied first. Records that the log discards during the copy of the store are in the store by then; records
/// in both are stored once.
///
/// # Errors
/// There are no data, or a folder cannot be read or written.
pub fn back_up(data: &Path, copy: &Path) -> anyhow::Result<()> {
    has_data(data)?;
    ensure!(!copy.exists(), "{} exists; choose another folder", copy.display());
    let draft = PathBuf::from(copy).with_added_extension("part");
    let unwritable = || format!("cannot write {}", draft.display());
    if draft.exists() {
        // Left over from an interrupted backup.
        fs::remove_dir_all(&draft).with_context(unwritable)?;
    }
    DirBuilder::new().mode(0o700).recursive(true).create(&draft).with_context(unwritable)?;
    kafka_runtime::log::back_up(&data.join(LOG), &draft.join(LOG))?;
    db_service::transfer::back_up(&data.join(STORE), &draft.join(STORE))?;
    crate::operator::copy(data, &draft).with_context(unwritable)?;
    fs::rename(&draft, copy).with_context(unwritable)?;
    let parent = copy.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).with_context(unwritable)
}

/// Starts a new generation of the data in PostgreSQL after a restore by `pg_restore` or from a snapshot.
///
/// # Errors
/// PostgreSQL is unreachable or has no data, or this program was built without the feature `distributed`.
pub async fn restored(config: &Config) -> anyhow::Result<()> {
    postgres::restored(config).await
}
