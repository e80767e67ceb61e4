//! Services that read and write a durable log: records go in through a [`Producer`], and come out through a [`Consumer`]
//! that hands single records or batches to a tower service. It knows nothing of what the records say.
//!
//! Behind two seams, [`Producer`] and [`Source`], lie Apache Kafka ([`kafka`]) and an embedded log in one SQLite file
//! ([`log`]). One suite of tests (`tests/`) holds both to the same promises:
//!
//! - What was acknowledged is durable, and is handled at least once, whatever crashes in between.
//! - Records of one key are handled in the order in which they were enqueued, also when some fail. What is worth it is tried
//!   again, with backoff and for ever unless configured otherwise; a panic is a failure like others. Nothing after it in its
//!   partition (or of its key, see [`Ordering`]) is handled before; other partitions go on.
//! - An offset is committed only when it and all before it are done: handled, or confirmed in the dead-letter topic.
//! - A partition is given away after what is in flight is finished and committed; of a lost one nothing is committed.
//! - Every delivery callback is called exactly once.
//! - What a [transformation](Consumer::transform) makes of a record is there exactly once.
//! - Every queue is bounded.
//!
//! The README of the crate is its guide: a quick start, handlers, layers, order, failures, rebalances, addresses.
//!
//! # Modules
//! - [`address`]: where records are read and written, and how, in one line or one section
//! - [`runtime`]: several consumers and producers in one process, checked, started and stopped together
//! - [`producer`]: the seam for writing, its errors and callbacks
//! - [`source`]: the seam for reading: partitions come and go, each with its bounded queue
//! - [`consumer`]: workers, retries, dead letters, commits; [`layers`]: what handlers have in common; [`observer`]: who hears of it
//! - [`codec`]: what records say, as types
//! - [`dead_letters`]: listing, replaying and dropping what could not be handled; [`archive`]: reading a topic as a whole
//! - [`log`]: the embedded log; [`kafka`]: Apache Kafka; [`topics`]: making and checking Kafka's topics

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

/// Whether this build can do TLS and SCRAM to Kafka's brokers: the cargo feature `ssl`.
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
pub use source::{Event, InitialOffset, QueueLimits, Source};

/// Any error, as a cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
