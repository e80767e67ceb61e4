//! Metrics of the gateway. No label names a user or a conversation.

use crate::admission::Refusal;
use abi::error::ErrorCode;
use metrics::{
    Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Registers the help texts of this crate's metrics. Call it once at program start, after the recorder is installed.
pub fn describe_metrics() {
    describe_gauge!("godwit_ws_gateway_connections", "Open WebSocket connections.");
    describe_counter!(
        "godwit_ws_gateway_refused_connections_total",
        "Connections that were closed before their first request, by the limit that they exceeded."
    );
    describe_counter!(
        "godwit_ws_gateway_sends_total",
        "Messages that devices sent, both accepted and refused."
    );
    describe_counter!(
        "godwit_ws_gateway_acks_total",
        "Messages that were acknowledged: the log has them durably."
    );
    describe_counter!(
        "godwit_ws_gateway_errors_total",
        "Requests and messages that were answered with an error."
    );
    describe_counter!("godwit_ws_gateway_closes_total", "Connections that the gateway closed, by reason.");
    describe_counter!(
        "godwit_ws_gateway_deliveries_total",
        "Frames that were queued for devices by the pusher."
    );
    describe_histogram!(
        "godwit_ws_gateway_delivery_seconds",
        "Age of the oldest message of a frame when it was written to a device's socket, counted from when a gateway accepted the message."
    );
    describe_gauge!(
        "godwit_ws_gateway_drain_connections",
        "Connections that a draining gateway has not closed yet."
    );
    // Start at 0. Otherwise an alert on an increase would miss the first event.
    to_drain(0);
    for limit in [Refusal::Capacity, Refusal::Rate, Refusal::Http] {
        counter!("godwit_ws_gateway_refused_connections_total", "limit" => limit.name()).increment(0);
    }
    for code in [ErrorCode::Internal, ErrorCode::Unavailable] {
        counter!("godwit_ws_gateway_errors_total", "code" => code.name()).increment(0);
    }
    for code in [ErrorCode::TooSlow, ErrorCode::GoingAway] {
        counter!("godwit_ws_gateway_closes_total", "code" => code.name()).increment(0);
    }
}

/// A connection was refused because it exceeded a limit.
pub(crate) fn connection_refused(limit: &'static str) {
    counter!("godwit_ws_gateway_refused_connections_total", "limit" => limit).increment(1);
}

/// A device sent a message.
pub(crate) fn sent() {
    counter!("godwit_ws_gateway_sends_total").increment(1);
}

/// Seconds from the acceptance of a message to the write to a device's socket.
pub(crate) fn delivery() -> Histogram {
    histogram!("godwit_ws_gateway_delivery_seconds")
}

/// Number of connections that the drain has not closed yet.
pub(crate) fn to_drain(connections: u32) {
    gauge!("godwit_ws_gateway_drain_connections").set(connections);
}

/// Open WebSocket connections.
pub(crate) fn connections() -> Gauge {
    gauge!("godwit_ws_gateway_connections")
}

/// A message was acknowledged.
pub(crate) fn acknowledged() {
    counter!("godwit_ws_gateway_acks_total").increment(1);
}

/// A request or a message was answered with an error.
pub(crate) fn refused(code: ErrorCode) {
    counter!("godwit_ws_gateway_errors_total", "code" => code.name()).increment(1);
}

/// The gateway closed a connection.
pub(crate) fn closed(code: ErrorCode) {
    counter!("godwit_ws_gateway_closes_total", "code" => code.name()).increment(1);
}

/// Frames with entries were queued for devices.
pub(crate) fn delivered(frames: u32) {
    counter!("godwit_ws_gateway_deliveries_total").increment(frames.into());
}
