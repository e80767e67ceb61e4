//! What can go wrong outside of producing (see [`ProduceError`](crate::ProduceError) for that).

use crate::dead_letters::LetterId;
use crate::producer::ProduceError;
use crate::record::TopicPartition;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::path::PathBuf;

/// A failure of a source, of the embedded log or of Kafka's administration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address can't be used as it is.
    #[error("{}", faults.join("; "))]
    Address {
        /// Everything that is wrong with it, each a sentence without its full stop.
        faults: Vec<String>,
    },
    /// A Kafka client could not be made: a setting is wrong.
    #[error("cannot make a kafka client")]
    Client(#[source] KafkaError),
    /// Kafka refused, or could not be asked in time.
    #[error("kafka: cannot {action}")]
    Kafka {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// No broker answered in time.
    #[error(
        "kafka: no broker answers at {brokers}: {reason}; check the addresses, the network, and whether both sides use TLS"
    )]
    Unreachable {
        /// The brokers that were asked first.
        brokers: String,
        /// What happened last, in words for an operator.
        reason: String,
    },
    /// Brokers answer, and refuse this client, or it refuses them: the credentials or a certificate are wrong.
    #[error("kafka: {reason}")]
    Refused {
        /// Why, in words for an operator; holds no secrets.
        reason: String,
    },
    /// A consumer of a [`Runtime`](crate::Runtime) can't be made, or ended.
    #[error("consumer {name}")]
    Consumer {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A task panicked: a mistake in this crate, or in what a handler does beside its calls, such as being cloned.
    #[error("a task panicked: the log says which, and why")]
    Panicked,
    /// The topic is not as it was asked for, and that cannot be mended here.
    #[error("topic {topic}: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// The topic can't be used yet: replicas of it are away.
    #[error("topic {topic}: {reason}")]
    NotReady {
        /// The topic.
        topic: String,
        /// What is missing.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder of the embedded log cannot be used.
    #[error("{path}: cannot be used for the log")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the embedded log open.
    #[error("{path}: the log is open already")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error("log: cannot {action}")]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// The file of the embedded log was written by something else, or by a newer version.
    #[error("{path}: not a log of this version (found {found})")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found in it.
        found: i64,
    },
    /// The group reads the topic already: the embedded log has one consumer per group and topic.
    #[error("topic {topic} is being read by group {group} already")]
    Attached {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// The embedded log uses this name itself.
    #[error("group {group}: the embedded log keeps this name for itself, choose another")]
    ReservedGroup {
        /// The group.
        group: String,
    },
    /// An offset was committed that the partition does not have yet.
    #[error("{partition}: offset {offset} lies behind the end")]
    BeyondEnd {
        /// The partition.
        partition: TopicPartition,
        /// The offset.
        offset: i64,
    },
    /// The embedded log could not store offsets.
    #[error("offsets not stored: {reason}")]
    NotCommitted {
        /// Why.
        reason: String,
    },
    /// An output of a transaction could not be written; nothing of the transaction was.
    #[error("an output was not written")]
    Output(#[source] crate::producer::ProduceError),
    /// It was closed, or its thread is gone.
    #[error("closed")]
    Closed,
    /// It took longer than it may.
    #[error("timed out: {0}")]
    TimedOut(&'static str),
    /// The hook that runs before offsets are committed failed; nothing was committed.
    #[error("the hook before the commit failed")]
    Hook(#[source] crate::BoxError),
    /// A text that is no id of a dead letter.
    #[error("'{text}' is no id of a dead letter: that is PARTITION-OFFSET, such as 0-17")]
    LetterId {
        /// The text.
        text: String,
    },
    /// No open dead letter has this id.
    #[error("there is no dead letter {id}: it never was one, or it was replayed or dropped")]
    NoLetter {
        /// The id.
        id: LetterId,
    },
    /// A dead letter that can only be dropped.
    #[error("dead letter {id} can't be replayed: {reason}")]
    NotReplayable {
        /// The id.
        id: LetterId,
        /// Why.
        reason: &'static str,
    },
    /// The log did not confirm what replaying or dropping a dead letter writes. The letter stays; trying again is harmless.
    #[error("dead letter {id} stays: its {what} was not written")]
    NotWritten {
        /// The id.
        id: LetterId,
        /// `record` or `ending`.
        what: &'static str,
        /// Why.
        #[source]
        source: ProduceError,
    },
}

impl Error {
    /// Whether no further commit of what this member had can succeed: the group goes on without it.
    pub(crate) fn ends_commits(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Kafka { source, .. } => matches!(
                source.rdkafka_error_code(),
                Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::FencedInstanceId)
            ),
            _ => false,
        }
    }
}
