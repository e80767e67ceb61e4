//! Kafka producers by their settings, and the topics to check before the start.

use crate::address::Address;
use crate::error::Error;
use crate::kafka::{KafkaConfig, KafkaProducer, KafkaProducerConfig, KafkaSource};
use crate::producer::Producer;
use crate::source::Source;
use crate::topics::{TopicSpec, ensure};
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Clients {
    producers: Vec<(KafkaConfig, KafkaProducerConfig, Arc<dyn Producer>)>,
    checks: Vec<TopicCheck>,
}

/// Topics of one cluster that are created or checked before any consumer runs.
struct TopicCheck {
    kafka: KafkaConfig,
    topics: Vec<TopicSpec>,
    timeout: Duration,
}

impl Clients {
    /// `None` for an address of the embedded log.
    pub(super) fn source(&mut self, address: &Address) -> Result<Option<Arc<dyn Source>>, Error> {
        let Some(config) = address.source_config()? else { return Ok(None) };
        self.add_check(config.kafka.clone(), address);
        Ok(Some(Arc::new(KafkaSource::new(config))))
    }

    /// `None` for an address of the embedded log.
    pub(super) fn producer(&mut self, address: &Address) -> Result<Option<Arc<dyn Producer>>, Error> {
        let Some(kafka) = address.kafka_config()? else { return Ok(None) };
        self.add_check(kafka.clone(), address);
        let config = address.producer_config();
        if let Some((_, _, known)) = self.producers.iter().find(|(k, c, _)| *k == kafka && *c == config) {
            return Ok(Some(Arc::clone(known)));
        }
        let producer: Arc<dyn Producer> = Arc::new(KafkaProducer::new(&kafka, config.clone())?);
        self.producers.push((kafka, config, Arc::clone(&producer)));
        Ok(Some(producer))
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = Arc<dyn Producer>> {
        self.producers.iter().map(|(_, _, producer)| Arc::clone(producer))
    }

    fn add_check(&mut self, kafka: KafkaConfig, address: &Address) {
        let timeout = address.start_timeout();
        let check = match self.checks.iter_mut().find(|check| check.kafka == kafka) {
            Some(check) => check,
            None => self.checks.push_mut(TopicCheck { kafka, topics: Vec::new(), timeout }),
        };
        check.timeout = check.timeout.max(timeout);
        for spec in address.topic_specs() {
            match check.topics.iter_mut().find(|known| known.name == spec.name) {
                Some(known) => known.merge(spec),
                None => check.topics.push(spec),
            }
        }
    }

    pub(super) async fn check_topics(&self) -> Result<(), Error> {
        for TopicCheck { kafka, topics, timeout } in &self.checks {
            ensure(kafka, topics, *timeout).await?;
        }
        Ok(())
    }
}
