//! Handles the frames that a raw device receives.

use super::{
    device::RawDevice,
    request::{LookUp, Request},
};
use crate::{
    ledger::{self, FailedRead, Id, Observation},
    workload::{command::SendJob, device::DeviceContext},
};
use abi::{
    ApiError,
    v1::{Ack, Changes, Deliver, Entry, HistoryPage, Pong, ReceiverSeq, server_frame::Frame},
};
use rand::RngExt as _;
use std::time::Duration;
use tokio::time::Instant;

/// Probability that an acknowledged message is sent again.
const RESEND: f64 = 0.03;
/// Probability that a live entry is looked up directly after its delivery.
const LOOK_UP: f64 = 0.02;
/// Probability that a live entry is marked as read.
const MARK_READ: f64 = 0.01;

/// Requests that follow from received frames.
#[derive(Debug, Default)]
pub(super) struct FollowUps {
    pub(super) look_ups: Vec<LookUp>,
    /// Conversations with the position up to which to mark them as read.
    pub(super) read_marks: Vec<(String, u64)>,
}

/// Handles a frame, which is the answer to `request` if there is one.
pub(super) fn handle(
    device: &mut RawDevice,
    follow_ups: &mut FollowUps,
    frame: Option<Frame>,
    request: Option<Request>,
) {
    match (frame, request) {
        (Some(Frame::Ack(ack)), Some(Request::Send(job))) => acked(device, &ack, job),
        (Some(Frame::Ack(ack)), Some(Request::Resend(job))) => device.context.recorder.acked(job.send, &ack),
        (Some(Frame::Error(error)), Some(request)) => failed(device, request, &error.into()),
        (Some(Frame::Changes(page)), Some(Request::Changes(known))) => {
            for head in &page.heads {
                if let Err(known) = known.check(&head.conversation, head.read_seq) {
                    regressed(&device.context, &head.conversation, head.read_seq, known);
                }
            }
            changes(device, page);
        }
        (Some(Frame::History(page)), Some(Request::History(conversation))) => {
            for entry in device.catch_up.history(&conversation, page) {
                device.context.recorder.shown(device.context.id, &entry, false);
            }
        }
        (Some(Frame::History(page)), Some(Request::LookUp(look_up))) => {
            looked_up(&device.context, &page, &look_up);
        }
        (Some(Frame::Read(read)), Some(Request::MarkRead(conversation, marked))) => {
            if let Err(known) = device.read_positions.answered(&conversation, marked, read.read_seq) {
                regressed(&device.context, &conversation, read.read_seq, known);
            }
            let DeviceContext { id, recorder, .. } = &device.context;
            let (conversation, read) = (recorder.conversation(&conversation), ledger::narrow(read.read_seq));
            recorder.observed(*id, Observation::ReadPosition { conversation, read });
        }
        (Some(Frame::Done(_)), Some(Request::Settings(number))) => {
            device.context.recorder.settings_changed(number);
        }
        (Some(Frame::Pong(pong)), Some(Request::Ping { final_phase, at })) => {
            ponged(device, pong, final_phase, at);
        }
        (Some(Frame::Signal(signal)), _) => device.context.recorder.signalled(device.context.id, &signal),
        (Some(Frame::Deliver(deliver)), _) => delivered(device, follow_ups, deliver),
        _ => {}
    }
}

fn acked(device: &mut RawDevice, ack: &Ack, job: SendJob) {
    device.context.recorder.acked(job.send, ack);
    device.queues.complete(&job);
    if !device.context.is_probe && device.random.random_bool(RESEND) {
        let pause = Duration::from_millis(device.random.random_range(0..20_000));
        device.resends.push_back((Instant::now() + pause, job));
    }
}

fn changes(device: &mut RawDevice, page: Changes) {
    let DeviceContext { id, recorder, .. } = &device.context;
    for head in &page.heads {
        let conversation = recorder.conversation(&head.conversation);
        let conversation_seq = ledger::narrow(head.conversation_seq);
        let visible_from = ledger::narrow(head.visible_from);
        recorder.observed(*id, Observation::Head { conversation, conversation_seq, visible_from });
    }
    device.catch_up.changes(page);
}

fn looked_up(context: &DeviceContext, page: &HistoryPage, look_up: &LookUp) {
    let found = page.entries.first();
    let is_it = |entry: &Entry| {
        entry.conversation_seq == look_up.conversation_seq && entry.message_id == look_up.message_id
    };
    if !found.is_some_and(is_it) {
        let answer = found.map_or(FailedRead::Empty, |_| FailedRead::OtherEntry);
        unreadable(context, look_up, answer);
    }
}

fn ponged(device: &mut RawDevice, pong: Pong, final_phase: bool, at: u32) {
    // A gateway that could not read the receiver seq leaves it out.
    let up_to_date = pong.receiver_seq.is_some_and(|current| device.catch_up.announced(current));
    if up_to_date {
        let DeviceContext { id, recorder, .. } = &device.context;
        recorder.observed(*id, Observation::UpToDate { asked: at });
        if final_phase && device.queues.is_empty() {
            recorder.caught_up(*id, at);
        }
    }
}

fn delivered(device: &mut RawDevice, follow_ups: &mut FollowUps, deliver: Deliver) {
    let DeviceContext { id, recorder, is_probe, .. } = &device.context;
    let ReceiverSeq { epoch, seq } = deliver.receiver_seq.unwrap_or_default();
    for entry in &deliver.entries {
        recorder.pushed_arrivals.arrived(*id, &entry.client_msg_id);
        let delivered = Observation::Delivered {
            conversation: recorder.conversation(&entry.conversation),
            conversation_seq: ledger::narrow(entry.conversation_seq),
            message_id: Id::parse(&entry.message_id).unwrap_or_default(),
            digest: ledger::digest_of(entry),
            target_state: ledger::state_of(entry.target_state.as_ref()),
            epoch,
            seq,
            at: recorder.now(),
        };
        recorder.observed(*id, delivered);
    }
    let live = device.catch_up.is_idle();
    let mut shown = Vec::new();
    device.catch_up.deliver(deliver, &mut shown);
    for entry in &shown {
        recorder.shown(*id, entry, live);
    }
    let Some(last) = shown.pop().filter(|_| !is_probe) else { return };
    if device.random.random_bool(MARK_READ) {
        follow_ups.read_marks.push((last.conversation.clone(), last.conversation_seq));
    }
    if device.random.random_bool(LOOK_UP) {
        follow_ups.look_ups.push(LookUp {
            conversation: last.conversation,
            conversation_seq: last.conversation_seq,
            message_id: last.message_id,
        });
    }
}

/// A request failed, temporarily or permanently.
fn failed(device: &mut RawDevice, request: Request, error: &ApiError) {
    let jitter = Duration::from_millis(device.random.random_range(100..400));
    let until = Instant::now() + error.retry_after.unwrap_or(jitter);
    let retryable = error.code.is_retryable();
    match request {
        Request::Send(job) if retryable => device.queues.retry(&job, until),
        Request::Send(job) => {
            let recorder = &device.context.recorder;
            let first_attempt = device.queues.complete(&job);
            if !first_attempt {
                // An earlier attempt may still be accepted. Meanwhile this device continues with its next message.
                recorder.unordered(job.send);
            }
            recorder.refused(job.send, error.code.name(), first_attempt);
        }
        Request::Changes(_) => device.catch_up.changes_failed(until),
        Request::History(conversation) => device.catch_up.history_failed(&conversation, retryable, until),
        Request::LookUp(look_up) if !retryable => {
            unreadable(&device.context, &look_up, FailedRead::Refused);
        }
        Request::Resend(_)
        | Request::LookUp(_)
        | Request::MarkRead(..)
        | Request::Settings(_)
        | Request::Signal
        | Request::Ping { .. } => {}
    }
}

fn unreadable(context: &DeviceContext, look_up: &LookUp, answer: FailedRead) {
    let conversation = context.recorder.conversation(&look_up.conversation);
    let conversation_seq = ledger::narrow(look_up.conversation_seq);
    let at = context.recorder.now();
    let unreadable = Observation::Unreadable { conversation, conversation_seq, answer, at };
    context.recorder.observed(context.id, unreadable);
}

/// The server answered with a lower read position than before.
fn regressed(context: &DeviceContext, conversation: &str, read: u64, known: u64) {
    let conversation = context.recorder.conversation(conversation);
    let (read, known) = (ledger::narrow(read), ledger::narrow(known));
    let at = context.recorder.now();
    let regressed = Observation::ReadPositionRegressed { conversation, read, known, at };
    context.recorder.observed(context.id, regressed);
}
