//! Apache Kafka through rdkafka: a producer with delivery callbacks, and a source with its own polling thread.

mod archive;
mod assignment;
mod config;
mod errors;
mod owned;
mod poll;
mod producer;
mod reach;
mod run;
mod source;
mod start;
mod transactions;

pub use archive::KafkaArchive;
pub use config::{KafkaConfig, KafkaProducerConfig, KafkaSourceConfig};
pub use producer::KafkaProducer;
pub use source::KafkaSource;

pub(crate) use errors::QuietContext;
pub(crate) use reach::reach;
