//! A runtime for services on a durable log: a [`Producer`] writes records, and a [`Consumer`] hands single records or batches
//! to a tower service. The crate does not interpret the content of records.
//!
//! Two traits, [`Producer`] and [`Source`], have two implementations: Apache Kafka (`kafka`) and an embedded log in one SQLite
//! file (`log`). One test suite (`tests/`) checks both for the same guarantees:
//!
//! - An acknowledged record is durable, and is handled at least once despite crashes.
//! - Records of one key are handled in the order in which they were enqueued, also if some fail. Retryable failures, panics
//!   included, are retried with backoff, without limit unless configured otherwise. Later records of the partition (or of the
//!   key, see [`Ordering`]) wait; other partitions continue.
//! - An offset is committed only when its record and all earlier ones are done: handled, or confirmed in the dead-letter topic.
//! - A revoked partition is released after its records in flight are finished and committed. Nothing of a lost partition is
//!   committed.
//! - Every delivery callback is called exactly once.
//! - The outputs of a [transformation](Consumer::transform) are written exactly once.
//! - Every queue is bounded.
//!
//! The README of the crate is its guide: a quick start, handlers, layers, order, failures, rebalances, addresses.
//!
//! # Features
//! `kafka` and `embedded`, both on by default, select the implementations; at least one is needed. `ssl` adds TLS and SCRAM for
//! Kafka.
//!
//! # Modules
//! - [`address`]: where records are read and written, and how, in one line or one section of a configuration file
//! - [`runtime`]: several consumers and producers in one process, checked, started and stopped together
//! - [`producer`]: the interface for writing, its errors and callbacks
//! - [`source`]: the interface for reading: assigned partitions, each with a bounded queue
//! - [`consumer`]: workers, retries, commits; [`layers`]: tower layers for handlers; [`observer`]: callbacks
//! - [`codec`]: typed records
//! - [`dead_letters`]: writing, listing, replaying and dropping dead letters; [`archive`]: all records of a topic
//! - `log`: the embedded log; `kafka`: Apache Kafka; `topics`: creating and checking Kafka's topics

#[cfg(not(any(feature = "embedded", feature = "kafka")))]
compile_error!("enable the feature `embedded`, `kafka` or both");

#[cfg(all(doctest, feature = "embedded", feature = "kafka"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod address;
pub mod archive;
pub mod backoff;
pub mod codec;
pub mod consumer;
pub mod dead_letters;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod layers;
#[cfg(feature = "embedded")]
pub mod log;
pub mod observer;
pub mod producer;
pub mod runtime;
pub mod source;
#[cfg(feature = "kafka")]
pub mod topics;

mod error;
mod health;
mod metrics;
mod panic;
mod record;

/// Whether this build supports TLS and SCRAM to Kafka's brokers: the cargo feature `ssl`.
pub const TLS: bool = cfg!(feature = "ssl");

pub use address::Address;
pub use archive::Archive;
pub use backoff::Backoff;
pub use consumer::{
    BatchHandler, Consumer, ConsumerConfig, HandlerError, Ordering, Outcome, RecordHandler, Rejected,
    RetryPolicy, TransformHandler,
};
pub use dead_letters::{DeadLetters, Letter, LetterId, Letters};
pub use error::Error;
pub use health::Health;
#[cfg(feature = "kafka")]
pub use kafka::{
    KafkaArchive, KafkaConfig, KafkaProducer, KafkaProducerConfig, KafkaSource, KafkaSourceConfig,
};
#[cfg(feature = "embedded")]
pub use log::{Log, LogArchive, LogConfig, LogSource, LogTopic};
pub use metrics::describe_metrics;
pub use observer::{LogObserver, Observer, observed};
pub use producer::{OnDelivery, ProduceError, Producer};
pub use record::{
    Batch, Delivered, Headers, Message, Position, ProducerRecord, Record, Records, TopicPartition,
};
pub use runtime::Runtime;
pub use source::{Event, InitialOffset, PartitionStart, QueueLimits, Source, StartOffsets};

/// Any error, as the cause of another one.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
