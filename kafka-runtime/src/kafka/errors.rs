//! Kafka's errors in our words.

use crate::health::HealthCell;
use crate::producer::ProduceError;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What an error of a record means for whoever sent it.
pub(super) fn produce_error(error: &KafkaError) -> ProduceError {
    match error.rdkafka_error_code() {
        Some(Code::QueueFull) => ProduceError::QueueFull,
        Some(Code::MessageTimedOut) => ProduceError::TimedOut,
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => ProduceError::TooLarge,
        Some(
            code @ (Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidRecord
            | Code::PolicyViolation),
        ) => ProduceError::Refused { reason: code.to_string() },
        _ => ProduceError::Unavailable { reason: error.to_string() },
    }
}

/// Says why brokers and this client will not come together as they are configured, if that is what the error means.
pub(super) fn refusal(error: &KafkaError, reason: &str) -> Option<String> {
    match error.rdkafka_error_code()? {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            Some(format!("authentication failed: {reason}"))
        }
        Code::SSL if reason.contains("verif") => Some(format!("the certificate was refused: {reason}")),
        _ => None,
    }
}

/// Says why this client can't be a member of its group as it is configured, if that is what the error means.
pub(super) fn exclusion(error: &KafkaError) -> Option<String> {
    let advice = match error.rdkafka_error_code()? {
        Code::GroupAuthorizationFailed => "it needs the right to read the group",
        Code::TopicAuthorizationFailed => "it needs the right to read its topics",
        Code::InvalidSessionTimeout => "`session.timeout` must be one that the brokers allow",
        Code::InconsistentGroupProtocol => "`assignment` must be that of the other members",
        _ => return None,
    };
    Some(format!("{error}; {advice}"))
}

/// Notes what a client-wide error says about the brokers. A refused password never fails a call: it comes here, among
/// reports of lost connections, and is tried again for ever, so its reason is kept until something works.
pub(super) fn note(health: &HealthCell, error: &KafkaError, reason: &str) {
    if let Some(refusal) = refusal(error, reason) {
        tracing::error!(reason, "kafka refused this client");
        return health.failing(refusal);
    }
    match error.rdkafka_error_code() {
        Some(Code::AllBrokersDown) => {
            tracing::warn!(reason, "no kafka broker answers");
            health.failing_unless_known("no broker answers");
        }
        _ => tracing::warn!(%error, reason, "kafka client error"),
    }
}

/// Whether a line of librdkafka says that a partition goes on elsewhere than the group had left it. There is no other sign of it.
pub(super) fn is_offset_reset(level: RDKafkaLogLevel, facility: &str) -> bool {
    matches!(level, RDKafkaLogLevel::Warning) && facility == "OFFSET"
}

/// Sends librdkafka's own lines to our log.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        // What goes wrong for good also comes as an error of a client or of a record.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::info!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, message, "librdkafka");
        }
    }
}

/// For clients that report through their results.
pub(crate) struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}
