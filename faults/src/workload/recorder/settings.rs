//! Records changes of settings, and signals.

use super::{Recorder, index};
use crate::{
    ledger::{Conversation, DeviceId, Millis, Observation, SentSignal, SettingsChange, User},
    workload::command::SettingsJob,
};
use abi::v1::{CustomSignal, Signal, content::Body, signal::Kind};

/// Milliseconds after which an unanswered change counts as lost. It is longer than the devices wait for answers.
const LOST: Millis = 15_000;

impl Recorder {
    /// Begins a change of settings. `None` if the user waits for the answer to another one.
    pub(in crate::workload) fn begin_settings(
        &self,
        user: User,
        conversation: Conversation,
    ) -> Option<SettingsJob> {
        let began = self.now();
        let mut recording = self.recording();
        let changes = &mut recording.ledger.settings;
        let last = changes.iter().rfind(|change| change.user == user);
        if last.is_some_and(|last| last.answered.is_none() && began < last.began + LOST) {
            return None;
        }
        let number = index(changes.len());
        changes.push(SettingsChange { user, conversation, began, answered: None });
        let conversation = recording.ledger.conversations[conversation as usize].clone();
        Some(SettingsJob { number, conversation })
    }

    /// Begins a signal of a user, and returns its number.
    pub(in crate::workload) fn begin_signal(&self, user: User, conversation: Conversation) -> u32 {
        let began = self.now();
        let mut recording = self.recording();
        let signals = &mut recording.ledger.signals;
        signals.push(SentSignal { user, conversation, began });
        index(signals.len() - 1)
    }

    /// A device received a signal.
    pub(in crate::workload) fn signalled(&self, device: DeviceId, signal: &Signal) {
        let number = match &signal.kind {
            Some(Kind::Typing(_)) => None,
            // A content of another form becomes a number that no signal has.
            Some(Kind::Custom(custom)) => Some(number(custom).unwrap_or(u32::MAX)),
            _ => return,
        };
        let (conversation, user) = {
            let mut recording = self.recording();
            let user = recording.users.get(&signal.user).copied().unwrap_or(User::MAX);
            (recording.conversation(&signal.conversation), user)
        };
        let at = self.now();
        self.observed(device, Observation::Signal { conversation, user, number, at });
    }

    /// The server confirmed a change of settings.
    pub(in crate::workload) fn settings_changed(&self, number: u32) {
        let at = self.now();
        self.recording().ledger.settings[number as usize].answered = Some(at);
    }
}

/// The number in the content of a signal.
fn number(signal: &CustomSignal) -> Option<u32> {
    match signal.content.as_ref()?.body.as_ref()? {
        Body::Text(text) => text.parse().ok(),
        Body::Data(_) => None,
    }
}
