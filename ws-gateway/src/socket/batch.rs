//! A batch of frames for one write, and what must be done once it is written.

use crate::{
    codec::Format,
    metrics,
    outbox::{Outgoing, SendId},
    websocket::put_message,
};
use abi::{
    ApiError,
    v1::{ServerFrame, server_frame::Frame},
};
use std::collections::VecDeque;
use utils::{clock::now_ms, trace::Spans};

/// The contents of a batch, as far as they matter after the write.
#[derive(Default)]
pub(super) struct Batch {
    /// The sends whose answers are in it.
    pub(super) answered: Vec<SendId>,
    /// The sends among them that the log refused.
    pub(super) refused: Vec<(SendId, ApiError)>,
    /// For each delivery: when its oldest entry was sent, and the spans of the write.
    deliveries: Vec<(i64, Spans)>,
}

impl Batch {
    /// Appends frames to `bytes`.
    pub(super) fn encode(frames: VecDeque<Outgoing>, format: Format, bytes: &mut Vec<u8>) -> Self {
        let mut batch = Self::default();
        for outgoing in frames {
            match outgoing {
                Outgoing::Encoded(frame) => put_message(bytes, frame.message()),
                Outgoing::Delivery { frame, sent_at_ms, writing } => {
                    put_message(bytes, frame.message());
                    batch.deliveries.push((sent_at_ms, writing));
                }
                Outgoing::Sent { id, result } => {
                    batch.answered.push(id);
                    match result {
                        // The device wants no ack.
                        Ok(_) if id.id == 0 => {}
                        Ok(ack) => put_answer(bytes, format, id, Frame::Ack(ack)),
                        Err(error) => put_error(bytes, format, id, error),
                    }
                }
                Outgoing::Refused { id, error } => {
                    batch.answered.push(id);
                    batch.refused.push((id, error.clone()));
                    put_error(bytes, format, id, error);
                }
            }
        }
        batch
    }

    /// Records the latency of the deliveries, which are written now, and ends their spans.
    pub(super) fn record_deliveries(self) {
        if self.deliveries.is_empty() {
            return;
        }
        let (latency, now) = (metrics::delivery(), now_ms());
        for (sent_at_ms, writing) in self.deliveries {
            // Clocks of gateways differ: the difference may be negative.
            latency.record((now - sent_at_ms).max(0) as f64 / 1_000.0);
            writing.finish();
        }
    }
}

fn put_answer(bytes: &mut Vec<u8>, format: Format, id: SendId, frame: Frame) {
    let frame = ServerFrame { id: id.id, frame: Some(frame), more_parts: false };
    put_message(bytes, &format.encode(&frame));
}

fn put_error(bytes: &mut Vec<u8>, format: Format, id: SendId, error: ApiError) {
    metrics::refused(error.code);
    put_answer(bytes, format, id, Frame::Error(error.into()));
}
