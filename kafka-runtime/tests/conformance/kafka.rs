//! What only Kafka can do.
