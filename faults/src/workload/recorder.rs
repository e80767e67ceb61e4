//! Records the ledger during a run, and answers the few questions that arise before it is complete.

mod sends;
mod settings;

use super::arrivals::Arrivals;
use crate::ledger::{
    self, Conversation, DeviceId, FinalHead, History, Id, Incarnation, Ledger, MembershipChange, Millis,
    Observation, Receipt, User,
};
use abi::{envelope::MESSAGE, v1::Entry};
use client::State;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

/// The ledger of a running workload.
#[derive(Debug)]
pub(super) struct Recorder {
    began: Instant,
    recording: Mutex<Recording>,
    /// Per device, so that devices do not contend for one lock.
    incarnations: Vec<Mutex<Vec<Incarnation>>>,
    /// Arrivals that a probe waits for.
    pub(super) arrivals: Arrivals,
    /// The same, for pushes alone.
    pub(super) pushed_arrivals: Arrivals,
    /// In the final phase, devices check whether they have everything.
    final_phase: AtomicBool,
    /// Per device, the start of the last check that found everything.
    caught_up: Vec<AtomicU32>,
}

#[derive(Debug)]
struct Recording {
    ledger: Ledger,
    conversations: HashMap<String, Conversation>,
    /// Sends without an outcome. `true` if the wait is excused, because the device was disrupted meanwhile.
    pending: HashMap<u32, bool>,
    /// Completed sends whose wait is excused.
    excused: HashSet<u32>,
    acked: u64,
    /// Messages that some device has shown.
    seen: HashSet<Id>,
    /// Acknowledged messages that no device has shown yet.
    unseen: HashSet<Id>,
    /// By name.
    users: HashMap<String, User>,
    /// Messages that devices have shown lately, the oldest first.
    recent: HashMap<Conversation, VecDeque<Target>>,
}

/// A stored message that can be answered and changed.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) message_id: String,
    pub(super) author: User,
}

/// Recent messages that are kept per conversation.
const RECENT: usize = 30;

impl Recorder {
    /// A recorder for a ledger with users, devices and conversations.
    pub(super) fn new(ledger: Ledger) -> Self {
        let conversations =
            ledger.conversations.iter().enumerate().map(|(number, id)| (id.clone(), index(number))).collect();
        let users =
            ledger.users.iter().enumerate().map(|(number, name)| (name.clone(), index(number))).collect();
        let caught_up = ledger.devices.iter().map(|_| AtomicU32::new(0)).collect();
        Self {
            began: Instant::now(),
            incarnations: ledger.devices.iter().map(|_| Mutex::default()).collect(),
            recording: Mutex::new(Recording {
                ledger,
                conversations,
                pending: HashMap::new(),
                excused: HashSet::new(),
                acked: 0,
                seen: HashSet::new(),
                unseen: HashSet::new(),
                users,
                recent: HashMap::new(),
            }),
            arrivals: Arrivals::default(),
            pushed_arrivals: Arrivals::default(),
            final_phase: AtomicBool::new(false),
            caught_up,
        }
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incarnations(&self, device: DeviceId) -> MutexGuard<'_, Vec<Incarnation>> {
        self.incarnations[device as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current time of the run.
    pub(super) fn now(&self) -> Millis {
        self.millis(Instant::now())
    }

    fn millis(&self, moment: Instant) -> Millis {
        Millis::try_from(moment.saturating_duration_since(self.began).as_millis()).unwrap_or(Millis::MAX)
    }

    /// The index of a conversation.
    pub(super) fn conversation(&self, id: &str) -> Conversation {
        self.recording().conversation(id)
    }

    /// A device starts with a saved state.
    pub(super) fn begin_incarnation(&self, device: DeviceId, state: &State) {
        let positions = {
            let mut recording = self.recording();
            let positions = state.positions.iter();
            positions.map(|(id, seq)| (recording.conversation(id), ledger::narrow(*seq))).collect()
        };
        let incarnation = Incarnation { began: self.now(), positions, observations: Vec::new() };
        self.incarnations(device).push(incarnation);
    }

    /// A device showed an entry.
    pub(super) fn shown(&self, device: DeviceId, entry: &Entry, live: bool) {
        let at = self.now();
        let message_id = Id::parse(&entry.message_id).unwrap_or_default();
        let conversation = {
            let mut recording = self.recording();
            let conversation = recording.conversation(&entry.conversation);
            if recording.seen.insert(message_id) {
                recording.unseen.remove(&message_id);
                recording.add_recent(conversation, entry);
            }
            conversation
        };
        let conversation_seq = ledger::narrow(entry.conversation_seq);
        let digest = ledger::digest_of(entry);
        let state = ledger::state_of(entry.state.as_ref());
        let receipt = Receipt { conversation, conversation_seq, message_id, digest, state, at, live };
        self.observed(device, Observation::Entry(receipt));
        self.arrivals.arrived(device, &entry.client_msg_id);
    }

    /// Messages of a conversation that devices have shown lately.
    pub(super) fn recent(&self, conversation: Conversation) -> Vec<Target> {
        self.recording().recent.get(&conversation).into_iter().flatten().cloned().collect()
    }

    /// A device observed something.
    pub(super) fn observed(&self, device: DeviceId, observation: Observation) {
        let mut incarnations = self.incarnations(device);
        if let Some(incarnation) = incarnations.last_mut() {
            incarnation.observations.push(observation);
        }
    }

    /// The server answered a membership change with success.
    pub(super) fn membership_changed(&self, change: MembershipChange) {
        self.recording().ledger.changes.push(change);
    }

    /// A device ended with a permanent error.
    pub(super) fn ended(&self, device: DeviceId, reason: String) {
        let at = self.now();
        self.recording().ledger.ended.push((device, at, reason));
    }

    /// Descriptions of the devices that ended with a permanent error.
    pub(super) fn ended_devices(&self) -> BTreeSet<String> {
        let recording = self.recording();
        let describe = |(device, _, reason): &(_, _, String)| {
            format!("{} ended: {reason}", recording.ledger.device_name(*device))
        };
        recording.ledger.ended.iter().map(describe).collect()
    }

    /// A user has read a history.
    pub(super) fn history_read(&self, history: History) {
        self.recording().ledger.histories.push(history);
    }

    /// A user has read a head at the end of the run.
    pub(super) fn head_read(&self, head: FinalHead) {
        self.recording().ledger.heads.push(head);
    }

    /// Work could not be completed.
    pub(super) fn unfinished(&self, description: String) {
        self.recording().ledger.unfinished.push(description);
    }

    /// Starts the final phase.
    pub(super) fn start_final_phase(&self) {
        self.final_phase.store(true, Ordering::Relaxed);
    }

    /// Whether devices must check whether they have everything.
    pub(super) fn in_final_phase(&self) -> bool {
        self.final_phase.load(Ordering::Relaxed)
    }

    /// A check of a device that began at this time found that the device has everything.
    pub(super) fn caught_up(&self, device: DeviceId, began: Millis) {
        self.caught_up[device as usize].store(began, Ordering::Relaxed);
    }

    /// Devices without a successful check that began after this time.
    pub(super) fn not_caught_up_since(&self, since: Millis) -> Vec<DeviceId> {
        let checks = self.caught_up.iter().enumerate();
        checks
            .filter(|(_, began)| began.load(Ordering::Relaxed) <= since)
            .map(|(device, _)| index(device))
            .collect()
    }

    /// Takes the ledger at the end of the run.
    pub(super) fn take_ledger(&self) -> Ledger {
        let mut ledger = self.recording().ledger.clone();
        for (device, incarnations) in ledger.devices.iter_mut().zip(&self.incarnations) {
            device.incarnations =
                std::mem::take(&mut *incarnations.lock().unwrap_or_else(PoisonError::into_inner));
        }
        ledger
    }
}

impl Recording {
    fn add_recent(&mut self, conversation: Conversation, entry: &Entry) {
        let Some(&author) = self.users.get(&entry.sender).filter(|_| entry.kind == MESSAGE) else { return };
        let recent = self.recent.entry(conversation).or_default();
        recent.push_back(Target { message_id: entry.message_id.clone(), author });
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    fn conversation(&mut self, id: &str) -> Conversation {
        if let Some(number) = self.conversations.get(id) {
            return *number;
        }
        let number = index(self.ledger.conversations.len());
        self.ledger.conversations.push(id.to_owned());
        self.conversations.insert(id.to_owned(), number);
        number
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("a run has fewer than 2^32 items of any kind")
}

#[cfg(test)]
mod tests;
