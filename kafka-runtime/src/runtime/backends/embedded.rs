//! Embedded logs by folder.

use crate::address::Address;
use crate::error::Error;
use crate::log::{Log, LogConfig};
use crate::producer::Producer;
use crate::source::Source;
use std::sync::Arc;

/// Each log with the settings that it was opened with, except its topics.
#[derive(Default)]
pub(super) struct Logs(Vec<(LogConfig, Log)>);

impl Logs {
    /// `None` for an address of Kafka.
    pub(super) fn source(&mut self, address: &Address) -> Result<Option<Arc<dyn Source>>, Error> {
        let (group, topics) = address.subscription()?;
        let Some(log) = self.open(address)? else { return Ok(None) };
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        Ok(Some(Arc::new(log.source(group, &topics)?.initial_offset(address.initial_offset()))))
    }

    /// `None` for an address of Kafka.
    pub(super) fn producer(&mut self, address: &Address) -> Result<Option<Arc<dyn Producer>>, Error> {
        Ok(self.open(address)?.map(|log| Arc::new(log) as Arc<dyn Producer>))
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = Arc<dyn Producer>> {
        self.0.iter().map(|(_, log)| Arc::new(log.clone()) as Arc<dyn Producer>)
    }

    fn open(&mut self, address: &Address) -> Result<Option<Log>, Error> {
        let Some(mut config) = address.log_config() else { return Ok(None) };
        let topics = std::mem::take(&mut config.topics);
        let path = config.directory.clone();
        config.directory = std::path::absolute(&path).map_err(|source| Error::File { path, source })?;
        let log = match self.0.iter().find(|(known, _)| known.directory == config.directory) {
            Some((known, log)) if *known == config => log.clone(),
            Some(_) => {
                let error = format!(
                    "{} is open with other options: `log.*` and `produce.*` must be the same in all addresses of a folder",
                    config.directory.display()
                );
                return Err(Error::Address { errors: vec![error] });
            }
            None => {
                let log = Log::open(config.clone())?;
                self.0.push((config, log.clone()));
                log
            }
        };
        log.add_topics(topics)?;
        Ok(Some(log))
    }
}
