//! What the edge tells operators. No label names a user or a conversation.

use abi::error::ErrorCode;
use metrics::{Gauge, counter, gauge};

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

/// A connection was closed by this side.
pub(crate) fn closed(code: ErrorCode) {
    counter!("godwit_ws_gateway_closes_total", "code" => code.name()).increment(1);
}

/// Frames with entries were queued for devices.
pub(crate) fn delivered(frames: u32) {
    counter!("godwit_ws_gateway_deliveries_total").increment(frames.into());
}
