//! Errors outside of producing (for those see [`ProduceError`]).

use crate::dead_letters::LetterId;
use crate::producer::ProduceError;
use crate::record::TopicPartition;
#[cfg(feature = "kafka")]
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::path::PathBuf;

/// An error of a source, of the embedded log or of Kafka's administration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Config errors of an address.
    #[error("{}", errors.join("; "))]
    Address {
        /// All config errors of the address, each a sentence without its full stop.
        errors: Vec<String>,
    },
    /// A Kafka client could not be created: a setting is wrong.
    #[cfg(feature = "kafka")]
    #[error("cannot create a kafka client")]
    Client(#[source] KafkaError),
    /// Kafka refused a request, or did not answer it in time.
    #[cfg(feature = "kafka")]
    #[error("kafka: cannot {action}")]
    Kafka {
        /// The request.
        action: &'static str,
        /// The answer of the client or of the broker.
        #[source]
        source: KafkaError,
    },
    /// No broker answered in time.
    #[error(
        "kafka: no broker answers at {brokers}: {reason}; check the addresses, the network, and whether both sides use TLS"
    )]
    Unreachable {
        /// The configured brokers.
        brokers: String,
        /// The last connection error, worded for an operator.
        reason: String,
    },
    /// Brokers answer but refuse this client, or this client refuses them: the credentials or a certificate are wrong.
    #[error("kafka: {reason}")]
    Refused {
        /// The cause, worded for an operator; holds no secrets.
        reason: String,
    },
    /// A consumer of a [`Runtime`](crate::Runtime) can't be created, or ended with an error.
    #[error("consumer {name}")]
    Consumer {
        /// Its name.
        name: String,
        /// Its error.
        #[source]
        source: Box<Error>,
    },
    /// A task panicked. The cause is a bug in this crate, or in a handler outside of its calls, for example while it is cloned.
    #[error("a task panicked; the log has the panic message")]
    Panicked,
    /// The topic differs from its specification, and only an operator can correct that.
    #[error("topic {topic}: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// The difference.
        reason: String,
    },
    /// The topic can't be used yet: too few of its replicas are in sync.
    #[error("topic {topic}: {reason}")]
    NotReady {
        /// The topic.
        topic: String,
        /// The condition that is not met.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder of the embedded log can't be used.
    #[error("{path}: cannot be used for the log")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// This or another process has the embedded log open.
    #[error("{path}: the log is open already")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// SQLite failed.
    #[cfg(feature = "embedded")]
    #[error("log: cannot {action}")]
    Sqlite {
        /// The operation.
        action: &'static str,
        /// The error of SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// The file of the embedded log can't be opened.
    #[cfg(feature = "embedded")]
    #[error("{} cannot be opened{}", path.display(), remedy(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// Another release wrote the file of the embedded log.
    #[error("{} has version {found}, and this program works with version {known}: {}", path.display(), version_remedy(*found, *known))]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found in it.
        found: i64,
        /// The version of this release.
        known: i64,
    },
    /// A handler needs records again that are done ([`HandlerError::restart`](crate::HandlerError::restart)).
    #[error(
        "partition {partition} must be read again from an earlier offset; start the consumer again: {reason}"
    )]
    Restart {
        /// The partition.
        partition: TopicPartition,
        /// The error of the handler.
        reason: String,
    },
    /// The hook that chooses the start offset of a partition failed.
    #[error("cannot choose the start offset of {partition}")]
    StartOffset {
        /// The partition.
        partition: TopicPartition,
        /// The error of the hook.
        #[source]
        source: crate::BoxError,
    },
    /// The embedded log allows one consumer per group and topic, and there is one already.
    #[error("topic {topic} is being read by group {group} already")]
    Attached {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// The embedded log uses this group name internally.
    #[error("group {group}: the embedded log reserves this name, choose another")]
    ReservedGroup {
        /// The group.
        group: String,
    },
    /// The offset to commit is beyond the end of the partition.
    #[error("{partition}: offset {offset} is beyond the end")]
    BeyondEnd {
        /// The partition.
        partition: TopicPartition,
        /// The offset.
        offset: i64,
    },
    /// The embedded log could not store offsets.
    #[error("offsets not stored: {reason}")]
    NotCommitted {
        /// The cause.
        reason: String,
    },
    /// An output of a transaction could not be written, so the transaction was aborted.
    #[error("an output was not written")]
    Output(#[source] ProduceError),
    /// The source, producer or log was closed, or its thread has ended.
    #[error("closed")]
    Closed,
    /// The operation exceeded its time limit.
    #[error("timed out: {0}")]
    TimedOut(&'static str),
    /// The hook that runs before a commit failed; nothing was committed.
    #[error("the hook before the commit failed")]
    Hook(#[source] crate::BoxError),
    /// No open dead letter has this id.
    #[error("there is no dead letter {id}: it never existed, or it was replayed or dropped")]
    NoLetter {
        /// The id.
        id: LetterId,
    },
    /// The dead letter can only be dropped.
    #[error("dead letter {id} cannot be replayed: {reason}")]
    NotReplayable {
        /// The id.
        id: LetterId,
        /// The part of the record that is missing.
        reason: &'static str,
    },
    /// The log did not confirm a record that replays or ends a dead letter. The letter stays open; trying again is harmless.
    #[error("dead letter {id} stays open: its {what} was not written")]
    NotWritten {
        /// The id.
        id: LetterId,
        /// `record` or `ending`.
        what: &'static str,
        /// The error of the producer.
        #[source]
        source: ProduceError,
    },
}

/// What to do about a file that can't be opened.
#[cfg(feature = "embedded")]
fn remedy(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(NotADatabase | DatabaseCorrupt) => " because it is damaged; restore it from a backup",
        _ => "",
    }
}

/// What to do about a file of another release.
fn version_remedy(found: i64, known: i64) -> &'static str {
    if found > known {
        "a newer release wrote it; run that release"
    } else {
        "an older release wrote it; run that release, or use an empty folder"
    }
}

impl Error {
    /// The error and its cause in one line, for operators.
    pub(crate) fn describe(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// Whether every further commit of this group member will fail too: the group continues without it.
    pub(crate) fn is_fenced(&self) -> bool {
        match self {
            Self::Closed => true,
            #[cfg(feature = "kafka")]
            Self::Kafka { source, .. } => matches!(
                source.rdkafka_error_code(),
                Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::FencedInstanceId)
            ),
            _ => false,
        }
    }
}
