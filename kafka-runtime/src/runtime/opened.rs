//! What addresses share: logs by folder, producers by what they are made from.

use crate::address::Address;
use crate::error::Error;
use crate::kafka::{KafkaConfig, KafkaProducer, KafkaProducerConfig};
use crate::log::{Log, LogConfig};
use crate::producer::Producer;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Opened {
    /// With the settings that they were opened with, but for the topics.
    logs: Vec<(LogConfig, Log)>,
    producers: Vec<(KafkaConfig, KafkaProducerConfig, Arc<dyn Producer>)>,
}

impl Opened {
    /// The log of an address, with its topics; `None` for Kafka.
    pub(super) fn log(&mut self, address: &Address) -> Result<Option<Log>, Error> {
        let Some(mut config) = address.log_config() else { return Ok(None) };
        let topics = std::mem::take(&mut config.topics);
        let path = config.directory.clone();
        config.directory = std::path::absolute(&path).map_err(|source| Error::File { path, source })?;
        let log = match self.logs.iter().find(|(known, _)| known.directory == config.directory) {
            Some((known, log)) if *known == config => log.clone(),
            Some(_) => {
                let faults = vec![format!(
                    "{} is open with other options: `log.*` and `produce.*` must be the same in all addresses of a folder",
                    config.directory.display()
                )];
                return Err(Error::Address { faults });
            }
            None => {
                let log = Log::open(config.clone())?;
                self.logs.push((config, log.clone()));
                log
            }
        };
        log.add_topics(topics)?;
        Ok(Some(log))
    }

    /// A producer to where the address is.
    pub(super) fn producer(&mut self, address: &Address) -> Result<Arc<dyn Producer>, Error> {
        if let Some(log) = self.log(address)? {
            return Ok(Arc::new(log));
        }
        // Without a log it is Kafka.
        let kafka = address.kafka_config()?.ok_or(Error::Closed)?;
        let config = address.producer_config();
        if let Some((_, _, known)) = self.producers.iter().find(|(k, c, _)| *k == kafka && *c == config) {
            return Ok(Arc::clone(known));
        }
        let producer: Arc<dyn Producer> = Arc::new(KafkaProducer::new(&kafka, config.clone())?);
        self.producers.push((kafka, config, Arc::clone(&producer)));
        Ok(producer)
    }

    /// All logs and producers.
    pub(super) fn producers(&self) -> Vec<Arc<dyn Producer>> {
        let logs = self.logs.iter().map(|(_, log)| Arc::new(log.clone()) as Arc<dyn Producer>);
        logs.chain(self.producers.iter().map(|(_, _, producer)| Arc::clone(producer))).collect()
    }
}
