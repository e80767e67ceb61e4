//! Where everybody writes down what happens, and the few questions that are asked while the run goes on.

use super::probe::Awaited;
use crate::ledger::{
    self, Change, Conversation, Device, DeviceId, History, Id, LaterAck, Ledger, Life, Millis, Outcome,
    Receipt, Seen, Send,
};
use abi::v1::{Ack, Entry, entry};
use client::State;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// A message for a device to send.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Number of the send.
    pub(super) send: u32,
    /// Where to.
    pub(super) conversation: String,
    /// The device's own id of it.
    pub(super) client_msg_id: String,
    /// What to say; begins with `client_msg_id`.
    pub(super) text: String,
}

/// The ledger while it is written.
#[derive(Debug)]
pub(super) struct Book {
    began: Instant,
    pages: Mutex<Pages>,
    /// Per device, so that receipts do not wait for each other.
    lives: Vec<Mutex<Vec<Life>>>,
    /// What a probe waits for, however it comes.
    pub(super) probe: Awaited,
    /// The same, but only if it is pushed.
    pub(super) pushes: Awaited,
    /// The run comes to its end: devices look whether they have everything.
    closing: AtomicBool,
    /// Per device, when the last look began that found everything.
    settled: Vec<AtomicU32>,
}

#[derive(Debug)]
struct Pages {
    ledger: Ledger,
    conversations: HashMap<String, Conversation>,
    /// Sends without an outcome; `true`: that is no fault of the system, the device was sent away meanwhile.
    pending: HashMap<u32, bool>,
    /// Sends that waited for their device.
    excused: HashSet<u32>,
    acked: u64,
    /// Messages that some device was shown.
    seen: HashSet<Id>,
    /// Acknowledged messages that no device was shown yet.
    unseen: HashSet<Id>,
}

impl Book {
    /// A book for these users, devices and conversations.
    pub(super) fn new(ledger: Ledger) -> Self {
        let conversations =
            ledger.conversations.iter().enumerate().map(|(number, id)| (id.clone(), short(number))).collect();
        let settled = ledger.devices.iter().map(|_| AtomicU32::new(0)).collect();
        Self {
            began: Instant::now(),
            lives: ledger.devices.iter().map(|_| Mutex::default()).collect(),
            pages: Mutex::new(Pages {
                ledger,
                conversations,
                pending: HashMap::new(),
                excused: HashSet::new(),
                acked: 0,
                seen: HashSet::new(),
                unseen: HashSet::new(),
            }),
            probe: Awaited::default(),
            pushes: Awaited::default(),
            closing: AtomicBool::new(false),
            settled,
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lives(&self, device: DeviceId) -> MutexGuard<'_, Vec<Life>> {
        self.lives[device as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of the run.
    pub(super) fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> Millis {
        Millis::try_from(moment.saturating_duration_since(self.began).as_millis()).unwrap_or(Millis::MAX)
    }

    /// Number of a conversation.
    pub(super) fn conversation(&self, id: &str) -> Conversation {
        self.pages().conversation(id)
    }

    // ---- sends -------------------------------------------------------------------------------------------------

    /// A device is about to send; `size` is that of the text.
    pub(super) fn begin(
        &self,
        device: DeviceId,
        conversation: Conversation,
        size: usize,
        forbidden: bool,
        excused: bool,
    ) -> Job {
        let uuid = uuid::Uuid::now_v7();
        let client_msg_id = uuid.to_string();
        // No two texts have an end in common, or anything else.
        let text: String = client_msg_id.chars().cycle().take(size.max(client_msg_id.len())).collect();
        let content = entry::Content::Message(client::text(text.clone()));
        let began = self.now();
        let mut pages = self.pages();
        let send = short(pages.ledger.sends.len());
        let user = &pages.ledger.users[pages.ledger.devices[device as usize].user as usize];
        let digest = ledger::digest(user, &client_msg_id, Some(&content));
        pages.ledger.sends.push(Send {
            device,
            conversation,
            client_msg_id: Id(uuid.into_bytes()),
            digest,
            began,
            ordered: true,
            forbidden,
            outcome: Outcome::Unknown,
        });
        pages.pending.insert(send, excused);
        let conversation = pages.ledger.conversations[conversation as usize].clone();
        Job { send, conversation, client_msg_id, text }
    }

    /// The server has a message. Gives whether that is the first word of it.
    pub(super) fn acked(&self, send: u32, ack: &Ack) -> bool {
        let at = self.now();
        let message_id = Id::parse(&ack.message_id).unwrap_or_default();
        let mut pages = self.pages();
        let entry = &mut pages.ledger.sends[send as usize];
        if matches!(entry.outcome, Outcome::Acked { .. }) {
            pages.ledger.later_acks.push(LaterAck { send, message_id, at });
            return false;
        }
        entry.outcome = Outcome::Acked { message_id, at };
        pages.acked += 1;
        if !pages.seen.contains(&message_id) {
            pages.unseen.insert(message_id);
        }
        pages.settle(send);
        true
    }

    /// The server will not take a message. An acknowledgement of another attempt stands.
    pub(super) fn refused(&self, send: u32, code: &str, at_once: bool) {
        let at = self.now();
        let mut pages = self.pages();
        let entry = &mut pages.ledger.sends[send as usize];
        if !matches!(entry.outcome, Outcome::Acked { .. }) {
            entry.outcome = Outcome::Refused { code: code.to_owned(), at, at_once };
        }
        pages.settle(send);
    }

    /// A message will not be tried again, and nobody knows what became of it.
    pub(super) fn given_up(&self, send: u32) {
        self.pages().settle(send);
    }

    /// A message's place among those of its device is not promised any more.
    pub(super) fn unordered(&self, send: u32) {
        self.pages().ledger.sends[send as usize].ordered = false;
    }

    /// A device is sent away: what it has on the way may take its time.
    pub(super) fn excuse(&self, device: DeviceId) {
        let mut pages = self.pages();
        let Pages { ledger, pending, .. } = &mut *pages;
        for (send, excused) in pending {
            *excused |= ledger.sends[*send as usize].device == device;
        }
    }

    /// Messages acknowledged so far.
    pub(super) fn count_acked(&self) -> u64 {
        self.pages().acked
    }

    /// Messages without an outcome.
    pub(super) fn pending(&self) -> usize {
        self.pages().pending.len()
    }

    /// Acknowledged messages that no device was shown yet.
    pub(super) fn unseen(&self) -> usize {
        self.pages().unseen.len()
    }

    /// The longest wait for an acknowledgement that ended after `begin` or goes on.
    pub(super) fn longest_pause_since(&self, begin: Instant) -> Duration {
        let (begin, now) = (self.at(begin), self.now());
        let pages = self.pages();
        let mut longest = 0;
        for (number, send) in pages.ledger.sends.iter().enumerate() {
            let number = short(number);
            let ended = match send.outcome {
                Outcome::Acked { at, .. } => at,
                Outcome::Refused { .. } => continue,
                Outcome::Unknown => match pages.pending.get(&number) {
                    Some(false) => now,
                    _ => continue,
                },
            };
            if ended >= begin && !pages.excused.contains(&number) {
                // One that was begun after `now` was read has not waited.
                longest = longest.max(ended.saturating_sub(send.began.max(begin)));
            }
        }
        Duration::from_millis(longest.into())
    }

    // ---- receipts ----------------------------------------------------------------------------------------------

    /// A device begins a life with a state.
    pub(super) fn life(&self, device: DeviceId, state: &State) {
        let positions = {
            let mut pages = self.pages();
            let positions = state.positions.iter();
            positions.map(|(id, seq)| (pages.conversation(id), number(*seq))).collect()
        };
        self.lives(device).push(Life { began: self.now(), positions, seen: Vec::new() });
    }

    /// A device was shown an entry.
    pub(super) fn shown(&self, device: DeviceId, entry: &Entry, live: bool) {
        let at = self.now();
        let message_id = Id::parse(&entry.message_id).unwrap_or_default();
        let conversation = {
            let mut pages = self.pages();
            if pages.seen.insert(message_id) {
                pages.unseen.remove(&message_id);
            }
            pages.conversation(&entry.conversation)
        };
        let conversation_seq = number(entry.conversation_seq);
        let digest = ledger::digest(&entry.sender, &entry.client_msg_id, entry.content.as_ref());
        let receipt = Receipt { conversation, conversation_seq, message_id, digest, at, live };
        self.saw(device, Seen::Entry(receipt));
        self.probe.came(device, &entry.client_msg_id);
    }

    /// A device saw something.
    pub(super) fn saw(&self, device: DeviceId, seen: Seen) {
        let mut lives = self.lives(device);
        if let Some(life) = lives.last_mut() {
            life.seen.push(seen);
        }
    }

    // ---- the rest ----------------------------------------------------------------------------------------------

    /// A group has changed.
    pub(super) fn changed(&self, change: Change) {
        self.pages().ledger.changes.push(change);
    }

    /// A device was ended for good.
    pub(super) fn ended(&self, device: DeviceId, reason: String) {
        let at = self.now();
        self.pages().ledger.ended.push((device, at, reason));
    }

    /// Devices that were ended for good, and why.
    pub(super) fn all_ended(&self) -> BTreeSet<String> {
        let pages = self.pages();
        let said = |(device, _, reason): &(_, _, String)| {
            format!("{} was ended: {reason}", pages.ledger.device_name(*device))
        };
        pages.ledger.ended.iter().map(said).collect()
    }

    /// A member has read a history.
    pub(super) fn read(&self, history: History) {
        self.pages().ledger.histories.push(history);
    }

    /// Something did not come to its end.
    pub(super) fn unfinished(&self, what: String) {
        self.pages().ledger.unfinished.push(what);
    }

    /// From now on devices look whether they have everything.
    pub(super) fn closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether devices should look whether they have everything.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// A look that began then has found everything at a device.
    pub(super) fn settled(&self, device: DeviceId, began: Millis) {
        self.settled[device as usize].store(began, Ordering::Relaxed);
    }

    /// Devices that were not found to have everything since then.
    pub(super) fn unsettled(&self, since: Millis) -> Vec<DeviceId> {
        let settled = self.settled.iter().enumerate();
        settled
            .filter(|(_, at)| at.load(Ordering::Relaxed) <= since)
            .map(|(device, _)| short(device))
            .collect()
    }

    /// The sends without an outcome, for people.
    pub(super) fn describe_pending(&self) -> Vec<String> {
        let pages = self.pages();
        let describe = |number: &u32| {
            let send = &pages.ledger.sends[*number as usize];
            let device: &Device = &pages.ledger.devices[send.device as usize];
            format!(
                "send {number} of {}/{} to {} has no outcome, begun at {} ms",
                pages.ledger.users[device.user as usize],
                device.name,
                pages.ledger.conversations[send.conversation as usize],
                send.began
            )
        };
        pages.pending.keys().map(describe).collect()
    }

    /// The ledger as it is now.
    pub(super) fn close(&self) -> Ledger {
        let mut ledger = self.pages().ledger.clone();
        for (device, lives) in ledger.devices.iter_mut().zip(&self.lives) {
            device.lives = std::mem::take(&mut *lives.lock().unwrap_or_else(PoisonError::into_inner));
        }
        ledger
    }
}

impl Pages {
    fn conversation(&mut self, id: &str) -> Conversation {
        if let Some(number) = self.conversations.get(id) {
            return *number;
        }
        let number = short(self.ledger.conversations.len());
        self.ledger.conversations.push(id.to_owned());
        self.conversations.insert(id.to_owned(), number);
        number
    }

    fn settle(&mut self, send: u32) {
        if self.pending.remove(&send) == Some(true) {
            self.excused.insert(send);
        }
    }
}

fn short(number: usize) -> u32 {
    u32::try_from(number).expect("a run has fewer than four thousand million of anything")
}

/// A `conversation_seq` as the ledger keeps it.
pub(super) fn number(conversation_seq: u64) -> u32 {
    u32::try_from(conversation_seq).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Kind;

    fn book() -> Book {
        let device = Device { user: 0, name: "phone".into(), kind: Kind::Sdk, lives: Vec::new() };
        Book::new(Ledger {
            users: vec!["alice".into()],
            conversations: vec!["d:alice:alice".into()],
            devices: vec![device],
            ..Ledger::default()
        })
    }

    fn ack(number: u8) -> Ack {
        Ack { message_id: Id([number; 16]).to_string(), ..Ack::default() }
    }

    #[test]
    fn the_first_word_of_a_send_stands() {
        let book = book();
        let job = book.begin(0, 0, 50, false, false);
        assert!(job.text.starts_with(&job.client_msg_id) && job.text.len() == 50);
        assert_eq!((book.pending(), book.unseen()), (1, 0));
        book.acked(job.send, &ack(1));
        book.acked(job.send, &ack(2));
        book.refused(job.send, "internal", true);
        assert_eq!((book.pending(), book.unseen(), book.count_acked()), (0, 1, 1));
        let entry =
            Entry { message_id: ack(1).message_id, conversation: job.conversation, ..Entry::default() };
        book.life(0, &State::default());
        book.shown(0, &entry, true);
        assert_eq!(book.unseen(), 0);
        let ledger = book.close();
        assert!(matches!(ledger.sends[0].outcome, Outcome::Acked { message_id: Id([1, ..]), .. }));
        assert_eq!(ledger.later_acks.len(), 1);
        assert_eq!(ledger.devices[0].lives[0].seen.len(), 1);
    }

    #[tokio::test]
    async fn waits_of_devices_that_were_sent_away_are_no_pauses() {
        let book = book();
        let begin = Instant::now();
        let send = book.begin(0, 0, 50, false, false).send;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(book.longest_pause_since(begin) >= Duration::from_millis(15), "it goes on");
        book.acked(send, &ack(1));
        let pause = book.longest_pause_since(begin);
        assert!(pause >= Duration::from_millis(15));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(book.longest_pause_since(begin), pause, "it is over");
        assert_eq!(book.longest_pause_since(Instant::now()), Duration::ZERO);
        let away = book.begin(0, 0, 50, false, false).send;
        book.excuse(0);
        tokio::time::sleep(Duration::from_millis(30)).await;
        book.acked(away, &ack(2));
        assert_eq!(book.longest_pause_since(begin), pause);
    }
}
