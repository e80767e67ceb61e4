//! Records sends and their outcomes.

use super::{Recorder, Recording, index};
use crate::{
    ledger::{self, Conversation, Device, DeviceId, Id, LaterAck, Outcome, Send},
    workload::command::{Intent, SendJob},
};
use abi::{
    envelope::MESSAGE,
    v1::{self, Ack, Entry},
};
use std::time::{Duration, Instant};

impl Recorder {
    /// Begins a send.
    pub(in crate::workload) fn begin_send(
        &self,
        device: DeviceId,
        conversation: Conversation,
        intent: &Intent,
        forbidden: bool,
        excused: bool,
    ) -> SendJob {
        let uuid = uuid::Uuid::now_v7();
        let client_msg_id = uuid.to_string();
        let draft = intent.draft(&client_msg_id);
        let target = intent.target().and_then(Id::parse);
        let began = self.now();
        let mut recording = self.recording();
        let digest = recording.digest(device, draft.clone().into_send("", client_msg_id.clone()));
        let send = Send {
            device,
            conversation,
            client_msg_id: Id(uuid.into_bytes()),
            digest,
            target,
            began,
            ordered: target.is_none(),
            forbidden,
            outcome: Outcome::Unknown,
        };
        // A change waits until it is stored, so its wait is no pause of the gateways.
        let send = recording.begin(send, excused || target.is_some());
        let conversation = recording.ledger.conversations[conversation as usize].clone();
        SendJob { send, conversation, client_msg_id, draft, may_be_copied: true }
    }

    /// Begins a send of the same entry with the same `client_msg_id` by another device of the user.
    pub(in crate::workload) fn begin_copy(&self, job: &SendJob, device: DeviceId) -> SendJob {
        let began = self.now();
        let mut recording = self.recording();
        let digest = recording.digest(device, job.draft.clone().into_send("", job.client_msg_id.clone()));
        let original = recording.ledger.sends[job.send as usize].clone();
        let copy = Send { device, digest, began, outcome: Outcome::Unknown, ..original };
        // The other device may be offline.
        let send = recording.begin(copy, true);
        SendJob { send, may_be_copied: false, ..job.clone() }
    }

    /// The server acknowledged a send.
    pub(in crate::workload) fn acked(&self, send: u32, ack: &Ack) {
        let at = self.now();
        let message_id = Id::parse(&ack.message_id).unwrap_or_default();
        let mut recording = self.recording();
        let entry = &mut recording.ledger.sends[send as usize];
        if matches!(entry.outcome, Outcome::Acked { .. }) {
            recording.ledger.later_acks.push(LaterAck { send, message_id, at });
            return;
        }
        entry.outcome = Outcome::Acked { message_id, at };
        recording.acked += 1;
        if !recording.seen.contains(&message_id) {
            recording.unseen.insert(message_id);
        }
        recording.complete(send);
    }

    /// The server refused a send permanently. An acknowledgement of another attempt takes precedence.
    pub(in crate::workload) fn refused(&self, send: u32, code: &str, first_attempt: bool) {
        let at = self.now();
        let mut recording = self.recording();
        let entry = &mut recording.ledger.sends[send as usize];
        if !matches!(entry.outcome, Outcome::Acked { .. }) {
            entry.outcome = Outcome::Refused { code: code.to_owned(), at, first_attempt };
        }
        recording.complete(send);
    }

    /// A device makes no further attempts; the outcome stays unknown.
    pub(in crate::workload) fn abandoned(&self, send: u32) {
        self.recording().complete(send);
    }

    /// The order of a send among those of its device is not guaranteed any more.
    pub(in crate::workload) fn unordered(&self, send: u32) {
        self.recording().ledger.sends[send as usize].ordered = false;
    }

    /// A device is disrupted: the waits of its pending sends do not count as pauses of the system.
    pub(in crate::workload) fn excuse_pending(&self, device: DeviceId) {
        let mut recording = self.recording();
        let Recording { ledger, pending, .. } = &mut *recording;
        for (send, excused) in pending {
            *excused |= ledger.sends[*send as usize].device == device;
        }
    }

    /// The number of acknowledged messages.
    pub(in crate::workload) fn acked_count(&self) -> u64 {
        self.recording().acked
    }

    /// The number of sends without an outcome.
    pub(in crate::workload) fn pending_count(&self) -> usize {
        self.recording().pending.len()
    }

    /// The number of acknowledged messages that no device has shown yet.
    pub(in crate::workload) fn unseen_count(&self) -> usize {
        self.recording().unseen.len()
    }

    /// The longest wait for an acknowledgement that ended after `begin` or has not ended, counted from `begin`. Excused waits
    /// do not count.
    pub(in crate::workload) fn longest_pause_since(&self, begin: Instant) -> Duration {
        let (begin, now) = (self.millis(begin), self.now());
        let recording = self.recording();
        let mut longest = 0;
        for (number, send) in recording.ledger.sends.iter().enumerate() {
            let number = index(number);
            let ended = match send.outcome {
                Outcome::Acked { at, .. } => at,
                Outcome::Refused { .. } => continue,
                Outcome::Unknown => match recording.pending.get(&number) {
                    Some(false) => now,
                    _ => continue,
                },
            };
            if ended >= begin && !recording.excused.contains(&number) {
                // A send may have begun after `now` was read, before the lock was taken.
                longest = longest.max(ended.saturating_sub(send.began.max(begin)));
            }
        }
        Duration::from_millis(longest.into())
    }

    /// Readable descriptions of the sends without an outcome.
    pub(in crate::workload) fn describe_pending(&self) -> Vec<String> {
        let recording = self.recording();
        let describe = |number: &u32| {
            let send = &recording.ledger.sends[*number as usize];
            let device: &Device = &recording.ledger.devices[send.device as usize];
            format!(
                "send {number} of {}/{} to {} has no outcome, begun at {} ms",
                recording.ledger.users[device.user as usize],
                device.name,
                recording.ledger.conversations[send.conversation as usize],
                send.began
            )
        };
        recording.pending.keys().map(describe).collect()
    }
}

impl Recording {
    /// The digest of the entry that a request of a device makes.
    fn digest(&self, device: DeviceId, request: v1::Send) -> u64 {
        let v1::Send { client_msg_id, kind, refers_to, content, reactions, .. } = request;
        let device = &self.ledger.devices[device as usize];
        ledger::digest_of(&Entry {
            sender: self.ledger.users[device.user as usize].clone(),
            sender_device: device.name.clone(),
            client_msg_id,
            kind: if kind.is_empty() { MESSAGE.to_owned() } else { kind },
            refers_to,
            content,
            reactions,
            ..Entry::default()
        })
    }

    /// Records a send. Returns its number.
    fn begin(&mut self, send: Send, excused: bool) -> u32 {
        let number = index(self.ledger.sends.len());
        self.ledger.sends.push(send);
        self.pending.insert(number, excused);
        number
    }

    fn complete(&mut self, send: u32) {
        if self.pending.remove(&send) == Some(true) {
            self.excused.insert(send);
        }
    }
}
