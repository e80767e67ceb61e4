//! Requests of a raw device.

use super::read_positions::ReadPositions;
use crate::workload::command::{SendJob, SettingsJob, SignalJob};
use abi::v1::{GetChanges, GetHistory, MarkRead, Ping, ReceiverSeq, Signal, client_frame::Frame};

/// A request that waits for its answer.
pub(super) enum Request {
    Send(SendJob),
    /// An acknowledged message, sent again.
    Resend(SendJob),
    /// With the read positions that had been answered when it was sent.
    Changes(ReadPositions),
    History(String),
    /// Marks a conversation as read up to a position.
    MarkRead(String, u64),
    /// Changes settings; with the number of the change.
    Settings(u32),
    /// Sends a signal, which is not repeated.
    Signal,
    /// Reads an entry directly after its delivery.
    LookUp(LookUp),
    Ping {
        final_phase: bool,
        at: u32,
    },
}

/// An entry to read.
#[derive(Debug)]
pub(super) struct LookUp {
    pub(super) conversation: String,
    pub(super) conversation_seq: u64,
    pub(super) message_id: String,
}

pub(super) fn send(job: &SendJob) -> Frame {
    Frame::Send(job.draft.clone().into_send(&job.conversation, job.client_msg_id.clone()))
}

pub(super) fn look_up(look_up: &LookUp) -> Frame {
    Frame::History(GetHistory {
        conversation: look_up.conversation.clone(),
        after: look_up.conversation_seq - 1,
        limit: 1,
        ..GetHistory::default()
    })
}

pub(super) fn mark_read(conversation: &str, conversation_seq: u64) -> Frame {
    Frame::Read(MarkRead { conversation: conversation.to_owned(), conversation_seq })
}

pub(super) fn changes(have: Option<ReceiverSeq>, cursor: String) -> Frame {
    Frame::Changes(GetChanges { have, cursor, limit: abi::MAX_PAGE })
}

pub(super) fn history(conversation: String, after: u64) -> Frame {
    Frame::History(GetHistory { conversation, after, ..GetHistory::default() })
}

pub(super) fn settings(job: &SettingsJob) -> Frame {
    Frame::Settings(job.request())
}

pub(super) fn signal(job: SignalJob) -> Frame {
    let SignalJob { conversation, kind } = job;
    Frame::Signal(Signal { conversation, kind: Some(kind), ..Signal::default() })
}

pub(super) fn ping() -> Frame {
    Frame::Ping(Ping {})
}
