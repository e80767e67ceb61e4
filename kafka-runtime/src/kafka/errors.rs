//! Translates Kafka's errors into the errors of this crate.

use crate::health::HealthCell;
use crate::producer::ProduceError;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The error of a record, for its sender.
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

/// Whether the error means that the brokers refuse this client, or it refuses them. Returns the reason.
pub(super) fn refusal(error: &KafkaError, reason: &str) -> Option<String> {
    match error.rdkafka_error_code()? {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            Some(format!("authentication failed: {reason}"))
        }
        Code::SSL if reason.contains("verif") => Some(format!("the certificate was refused: {reason}")),
        _ => None,
    }
}

/// Whether the error means that this client cannot be a member of its group as configured. Returns the reason
/// and advice.
pub(super) fn membership_error(error: &KafkaError) -> Option<String> {
    let advice = match error.rdkafka_error_code()? {
        Code::GroupAuthorizationFailed => "grant this client the right to read the group",
        Code::TopicAuthorizationFailed => "grant this client the right to read its topics",
        Code::InvalidSessionTimeout => "set `session.timeout` to a value that the brokers allow",
        Code::InconsistentGroupProtocol => "set `assignment` to the value that the other members use",
        _ => return None,
    };
    Some(format!("{error}; {advice}"))
}

/// Updates the health after an error of the client. A refused password never fails a call. It is reported here,
/// among lost connections, and librdkafka retries forever; so the reason is kept until a request succeeds.
pub(super) fn update_health(health: &HealthCell, error: &KafkaError, reason: &str) {
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

/// Whether a log line of librdkafka reports an offset reset: a partition does not resume at the committed
/// offset. There is no other sign of it.
pub(super) fn is_offset_reset(level: RDKafkaLogLevel, facility: &str) -> bool {
    matches!(level, RDKafkaLogLevel::Warning) && facility == "OFFSET"
}

/// Forwards log lines of librdkafka to `tracing`.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        // Permanent failures are also reported as an error of the client or of a record.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::info!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, message, "librdkafka");
        }
    }
}

/// A context for clients whose errors are returned by their calls.
pub(crate) struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}
