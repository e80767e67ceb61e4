//! Whether brokers answer, before anything is asked of them.
//!
//! A refused password or certificate fails no call: librdkafka reports it beside them and tries again for ever. So a client
//! of its own listens to those reports until a broker has answered.

use super::config::KafkaConfig;
use super::errors;
use crate::error::Error;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const ASK: Duration = Duration::from_millis(500);
const LISTEN: Duration = Duration::from_millis(50);

/// Waits until a broker answers, at most until `until`; fails at once when one refuses this client.
pub(crate) async fn reach(kafka: &KafkaConfig, until: Instant) -> Result<(), Error> {
    let (config, brokers) = (kafka.with_properties(kafka.client()), kafka.brokers.join(", "));
    let wanted = CancellationToken::new();
    let given_up = wanted.clone();
    // When nobody waits any more the thread must end: an async runtime waits for it as it is dropped.
    let _guard = wanted.drop_guard();
    let ask = move || {
        let client =
            BaseConsumer::from_config_and_context(&config, Listener::default()).map_err(Error::Client)?;
        while !given_up.is_cancelled() {
            let answer = client.fetch_metadata(None, ASK);
            while client.poll(LISTEN).is_some() {}
            match (answer, client.context().refusal()) {
                (Ok(_), _) => return Ok(()),
                (Err(_), Some(reason)) => return Err(Error::Refused { reason }),
                (Err(source), None) if Instant::now() >= until => {
                    let reason = client.context().reason().unwrap_or_else(|| source.to_string());
                    return Err(Error::Unreachable { brokers, reason });
                }
                (Err(_), None) => {}
            }
        }
        Err(Error::Closed)
    };
    tokio::task::spawn_blocking(ask).await.map_err(|_| Error::Closed)?
}

/// Keeps the last report that says that this client is refused, and the last one that says what else is wrong.
#[derive(Default)]
struct Listener {
    refusal: Mutex<Option<String>>,
    reason: Mutex<Option<String>>,
}

impl Listener {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        errors::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
        if let Some(refusal) = errors::refusal(&error, reason) {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        } else if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            // That one only counts them; the others say what happened to each.
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Listener {}
