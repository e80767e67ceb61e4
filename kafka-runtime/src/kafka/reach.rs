//! Checks whether brokers answer, before any other request.
//!
//! A refused password or certificate fails no call: librdkafka only logs it and retries forever. So this check
//! uses its own client and listens to these reports until a broker has answered.

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

const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// Waits until a broker answers, at most until `until`. Fails at once if a broker refuses this client.
pub(crate) async fn reach(kafka: &KafkaConfig, until: Instant) -> Result<(), Error> {
    let (config, brokers) = (kafka.with_properties(kafka.client()), kafka.brokers.join(", "));
    let cancel = CancellationToken::new();
    let cancelled = cancel.clone();
    // The thread must end when the caller stops waiting, because dropping the async runtime waits for it.
    let _guard = cancel.drop_guard();
    let check = move || {
        let client =
            BaseConsumer::from_config_and_context(&config, Listener::default()).map_err(Error::Client)?;
        while !cancelled.is_cancelled() {
            let answer = client.fetch_metadata(None, REQUEST_TIMEOUT);
            while client.poll(POLL_TIMEOUT).is_some() {}
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
    tokio::task::spawn_blocking(check).await.map_err(|_| Error::Closed)?
}

/// Keeps the last report that a broker refused this client, and the last report of another problem.
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
            // `AllBrokersDown` only states the number of brokers. The other reports give the reason.
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Listener {}
