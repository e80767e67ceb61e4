//! Transfer from and to PostgreSQL, for `--distributed`.

use abi::config::Config;
use anyhow::{Context as _, bail, ensure};
use db_service::transfer::{Place, Source, Summary, Target, copy};
use kafka_runtime::{Archive as _, KafkaArchive, KafkaConfig};
use std::{io::Write, ops::Range};

/// Exports the data in PostgreSQL. Refuses while Kafka has records that are not stored, unless `despite_lag`.
pub(super) async fn export(
    config: &Config,
    target: Box<dyn Write + Send>,
    despite_lag: bool,
) -> anyhow::Result<Summary> {
    let kafka =
        KafkaConfig::with_options(config.kafka.brokers.clone(), "godwit-export", &config.kafka.options())?;
    let topic = KafkaArchive::new(kafka, config.kafka.topic.as_str());
    let unreachable = "cannot check in Kafka whether all records are stored";
    let bounds = topic.bounds().await.context(unreachable)?;
    let committed = topic.committed(&config.kafka.group).await.context(unreachable)?;
    // A misspelled topic would have no lag.
    let name = &config.kafka.topic;
    ensure!(
        despite_lag || !bounds.is_empty(),
        "Kafka has no topic {name}; kafka.topic must be the same as for the gateways"
    );
    let lag = lag(&bounds, &committed);
    if lag > 0 && despite_lag {
        tracing::warn!(lag, "the export does not contain records in Kafka that are not stored yet");
    } else if lag > 0 {
        bail!(
            "{lag} records of {name} are acknowledged but not stored yet: stop the gateways, keep the consumers running, and \
             export again after some seconds; or export without these records with --despite-lag"
        );
    }
    let summary = copy(Source::Place(place(config)?), Target::File(target)).await?;
    let now = topic.bounds().await.context(unreachable)?;
    if now.iter().map(|offsets| offsets.end).ne(bounds.iter().map(|offsets| offsets.end)) {
        tracing::warn!(
            "messages arrived during the export and may be missing in it; to move the data, stop the gateways and export again"
        );
    }
    Ok(summary)
}

/// Records that a group has not committed.
fn lag(bounds: &[Range<i64>], committed: &[Option<i64>]) -> i64 {
    let of_partition = |(offsets, committed): (&Range<i64>, &Option<i64>)| {
        offsets.end - committed.unwrap_or(0).max(offsets.start)
    };
    bounds.iter().zip(committed).map(of_partition).map(|lag| lag.max(0)).sum()
}

/// The configured database.
pub(super) fn place(config: &Config) -> anyhow::Result<Place> {
    Ok(Place::Postgres(Box::new(config.db.clone())))
}

/// Starts a new generation of the data.
pub(super) async fn restored(config: &Config) -> anyhow::Result<()> {
    Ok(db_service::transfer::restored(&config.db).await?)
}
