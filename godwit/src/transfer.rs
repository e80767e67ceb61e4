//! Data as a whole, by the operator's hand: export, import, checksums, backup. See `docs/backup.md`.
//!
//! What is acknowledged and not stored yet is in the log, so the log is asked first: that of a folder is stored to its end, that
//! in Kafka has to be, and a backup copies it before the store.

use crate::{CALL_DEADLINE, GROUP, consume, open_log};
use abi::{MESSAGES_TOPIC, config::Config, dead_letter_topic};
use anyhow::{Context as _, bail, ensure};
use cache::MemoryCache;
use db_service::transfer::{Place, Source, Summary, Target, copy};
use kafka_runtime::{Archive as _, KafkaArchive, KafkaConfig, Log};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use utils::grpc;

/// The store has so long to take in what the log holds: at most `embedded.max_backlog` records and what is on its way.
const CATCH_UP: Duration = Duration::from_secs(120);
/// It is looked at this often.
const LOOK: Duration = Duration::from_millis(50);
/// The store's folder among the data, and the log's.
pub(crate) const STORE: &str = "store";
pub(crate) const LOG: &str = "log";

/// Which data a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `embedded.data`.
    Embedded,
    /// PostgreSQL, `db.postgres` and `db.schema`.
    Distributed,
}

/// Writes all data to a file, which must not exist, or to standard output if it is `-`. With `despite_lag` what the log in
/// Kafka has and PostgreSQL has not yet is left behind.
///
/// # Errors
/// A sentence: the data are in use, the consumers are behind, something can't be read or written.
pub async fn export(config: &Config, mode: Mode, file: &Path, despite_lag: bool) -> anyhow::Result<Summary> {
    let draft = file.with_added_extension("part");
    let is_file = file != Path::new("-");
    ensure!(!is_file || !file.exists(), "{} exists; it is not written over", file.display());
    let target: Box<dyn Write + Send> = if is_file {
        // It holds keys and hashes of passwords: its owner's alone.
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        Box::new(options.open(&draft).with_context(|| format!("{} can't be made", draft.display()))?)
    } else {
        Box::new(io::stdout())
    };
    let copied = match mode {
        Mode::Embedded => export_folder(config, target).await,
        Mode::Distributed => export_postgres(config, target, despite_lag).await,
    };
    if is_file {
        let kept = match &copied {
            Ok(_) => {
                File::open(&draft).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&draft, file))
            }
            Err(_) => fs::remove_file(&draft),
        };
        kept.with_context(|| format!("{} can't be written", file.display()))?;
    }
    copied
}

async fn export_folder(config: &Config, target: Box<dyn Write + Send>) -> anyhow::Result<Summary> {
    let data = Path::new(&config.embedded.data);
    has_data(data)?;
    // Held to the end: nobody else opens these data.
    let log = open_log(data, config)?;
    store_all(&log, data, config).await?;
    let summary = copy(Source::Place(Place::Folder(data.join(STORE))), Target::File(target)).await?;
    let topic = dead_letter_topic(MESSAGES_TOPIC);
    let letters: i64 = log.archive(&topic)?.bounds().await?.iter().map(|held| held.end - held.start).sum();
    if letters > 0 {
        tracing::warn!(data = %data.display(), "dead letters are not exported; godwit-cli dead-letters lists them");
    }
    Ok(summary)
}

/// Has the store take in what the log holds for it.
async fn store_all(log: &Log, data: &Path, config: &Config) -> anyhow::Result<()> {
    if is_stored(log).await? {
        return Ok(());
    }
    let store = db_service::embedded(&data.join(STORE), config)?;
    let db = grpc::local(Routes::new(store), CALL_DEADLINE);
    let cache = Arc::new(MemoryCache::default());
    // Nobody is connected, so no gateway is ever called.
    let nobody = grpc::local(Routes::default(), CALL_DEADLINE);
    let push = pusher::server(cache.clone(), Arc::new(move |_: &str| nobody.clone()), CALL_DEADLINE);
    let push = grpc::local(Routes::new(push), CALL_DEADLINE);
    let stop = CancellationToken::new();
    let running = consume(log, db, push, cache, config)?.run(stop.clone());
    let stored = async {
        while !is_stored(log).await? {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    let stored = async {
        let stored = tokio::time::timeout(CATCH_UP, stored).await;
        stop.cancel();
        stored.with_context(|| {
            format!(
                "the store did not take in what the log holds within {} s; see the lines above",
                CATCH_UP.as_secs()
            )
        })?
    };
    let (ended, stored) = tokio::join!(running, stored);
    stored?;
    Ok(ended?)
}

/// Whether the store has everything that the log holds.
async fn is_stored(log: &Log) -> anyhow::Result<bool> {
    let held = log.archive(MESSAGES_TOPIC)?.bounds().await?;
    for (partition, held) in (0..).zip(held) {
        if log.committed(GROUP, MESSAGES_TOPIC, partition)?.unwrap_or(held.start) < held.end {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn export_postgres(
    config: &Config,
    target: Box<dyn Write + Send>,
    despite_lag: bool,
) -> anyhow::Result<Summary> {
    let kafka =
        KafkaConfig::with_options(config.kafka.brokers.clone(), "godwit-export", &config.kafka.options())?;
    let topic = KafkaArchive::new(kafka, config.kafka.topic.as_str());
    let unreachable = "Kafka can't be asked whether everything is stored";
    let held = topic.bounds().await.context(unreachable)?;
    let committed = topic.committed(&config.kafka.group).await.context(unreachable)?;
    // A name that is spelled wrong has no lag.
    let name = &config.kafka.topic;
    ensure!(
        despite_lag || !held.is_empty(),
        "Kafka has no topic {name}: kafka.topic must be that of the gateways"
    );
    let lag = lag(&held, &committed);
    if lag > 0 && despite_lag {
        tracing::warn!(lag, "records that are in Kafka and not stored yet are left behind");
    } else if lag > 0 {
        bail!(
            "{lag} records of {name} are acknowledged and not stored yet: stop the gateways, leave the consumers running, and \
             export again in some seconds; or leave these records behind with --despite-lag"
        );
    }
    let db = Box::new(config.db.clone());
    let summary = copy(Source::Place(Place::Postgres(db)), Target::File(target)).await?;
    let now = topic.bounds().await.context(unreachable)?;
    if now.iter().map(|held| held.end).ne(held.iter().map(|held| held.end)) {
        tracing::warn!(
            "messages came in meanwhile, which may be missing: this is a backup, and no move; stop the gateways for that"
        );
    }
    Ok(summary)
}

/// Records that a group has not done.
fn lag(held: &[Range<i64>], committed: &[Option<i64>]) -> i64 {
    let of =
        |(held, committed): (&Range<i64>, &Option<i64>)| held.end - committed.unwrap_or(0).max(held.start);
    held.iter().zip(committed).map(of).map(|lag| lag.max(0)).sum()
}

/// Takes over all data of a file, or of standard input if it is `-`, where there are none.
///
/// # Errors
/// A sentence: the file is not whole, there are data already, something can't be written.
pub async fn import(config: &Config, mode: Mode, file: &Path) -> anyhow::Result<Summary> {
    let source = Source::File(open(file)?);
    if mode == Mode::Distributed {
        return Ok(copy(source, Target::Empty(Place::Postgres(Box::new(config.db.clone())))).await?);
    }
    let data = Path::new(&config.embedded.data);
    // Held to the end: nobody else opens these data.
    let log = open_log(data, config)?;
    let held = log.archive(MESSAGES_TOPIC)?.bounds().await?;
    ensure!(
        held.iter().all(|held| held.end == 0),
        "{} is not empty: its log holds messages; data are only put where there are none",
        data.display()
    );
    Ok(copy(source, Target::Empty(Place::Folder(data.join(STORE)))).await?)
}

/// Prints the checksums of a file, or of what is stored. Data that are in use may change meanwhile; what is printed is one state.
///
/// # Errors
/// A sentence: there are no data, or they can't be read.
pub async fn checksums(config: &Config, mode: Mode, file: Option<&Path>) -> anyhow::Result<Summary> {
    let source = match (file, mode) {
        (Some(file), _) => Source::File(open(file)?),
        (None, Mode::Distributed) => Source::Place(Place::Postgres(Box::new(config.db.clone()))),
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
        Box::new(File::open(file).with_context(|| format!("{} can't be read", file.display()))?)
    })
}

fn has_data(data: &Path) -> anyhow::Result<()> {
    ensure!(
        data.join(STORE).is_dir(),
        "there are no data of godwit in {}; name their folder with --data",
        data.display()
    );
    Ok(())
}

/// Copies the data of the one-process program, which may be running, into a folder that must not exist. Whoever starts on the
/// copy goes on from there. Blocks for as long as the disk needs.
///
/// The log comes first: what it gives up while the store is copied is in the store by then, and what both have is stored once.
///
/// # Errors
/// A sentence: there are no data, or a folder can't be used.
pub fn back_up(data: &Path, copy: &Path) -> anyhow::Result<()> {
    has_data(data)?;
    ensure!(!copy.exists(), "{} exists; it is not written over", copy.display());
    let draft = PathBuf::from(copy).with_added_extension("part");
    let unusable = || format!("{} can't be written", draft.display());
    if draft.exists() {
        // One that was interrupted.
        fs::remove_dir_all(&draft).with_context(unusable)?;
    }
    DirBuilder::new().mode(0o700).recursive(true).create(&draft).with_context(unusable)?;
    kafka_runtime::log::back_up(&data.join(LOG), &draft.join(LOG))?;
    db_service::transfer::back_up(&data.join(STORE), &draft.join(STORE))?;
    crate::operator::copy(data, &draft).with_context(unusable)?;
    fs::rename(&draft, copy).with_context(unusable)?;
    let parent = copy.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).with_context(unusable)
}

/// Tells the data in PostgreSQL that they were restored, by `pg_restore` or from a snapshot.
///
/// # Errors
/// PostgreSQL can't be reached or has no data.
pub async fn restored(config: &Config) -> anyhow::Result<()> {
    Ok(db_service::transfer::restored(&config.db).await?)
}
