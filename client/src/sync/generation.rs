//! Moving to another generation of the server's data, after a restore from a backup.

use super::Sync;
use abi::v1::Head;
use std::collections::BTreeMap;

/// Positions that have to be checked against the server's new generation.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Hash))]
pub(super) struct Rewind {
    /// The server's generation.
    generation: u32,
    /// The server's generation began from the device's: entries up to `kept_seq` of a head are the same. Otherwise no
    /// entry is known to be the same.
    follows: bool,
    /// Positions in the device's generation.
    old: BTreeMap<String, u64>,
}

impl Sync {
    /// Conversations in which the position decreased, with the new position, and the generation that this holds for;
    /// since the last call.
    pub fn take_restored(&mut self) -> Option<(u32, BTreeMap<String, u64>)> {
        self.restored.take()
    }

    /// The generations in the welcome; call it before [`Sync::on_welcome`].
    pub fn on_generation(&mut self, now: u32, before: u32) {
        if let Some(unfinished) = self.rewind.take() {
            self.positions = unfinished.old;
        }
        if now == self.generation {
            return;
        }
        if self.positions.is_empty() {
            self.generation = now;
            self.restored = Some((now, BTreeMap::new()));
        } else {
            let (follows, old) = (before == self.generation, std::mem::take(&mut self.positions));
            self.rewind = Some(Rewind { generation: now, follows, old });
        }
    }

    /// During a rewind, sets the position in the head's conversation to the last entry that was kept.
    pub(super) fn rewind_to(&mut self, head: &Head) {
        if let Some(Rewind { follows, old, .. }) = &self.rewind
            && let Some(position) = old.get(&head.conversation)
        {
            let kept = if *follows { head.kept_seq.min(*position) } else { 0 };
            self.positions.insert(head.conversation.clone(), kept);
        }
    }

    /// All heads were read: every position refers to the server's generation.
    pub(super) fn end_rewind(&mut self) {
        let Some(Rewind { generation, old, .. }) = self.rewind.take() else { return };
        // This user can no longer see a conversation without a head: none of its entries were kept.
        let kept = |conversation: &str| self.positions.get(conversation).copied().unwrap_or(0);
        let back = old.into_iter().filter_map(|(conversation, position)| {
            let kept = kept(&conversation);
            (kept < position).then_some((conversation, kept))
        });
        let back: BTreeMap<_, _> = back.collect();
        if !back.is_empty() {
            // Even if the receiver seq is unchanged, the entries after the kept ones are missing here.
            self.have = None;
        }
        self.restored = Some((generation, back));
        self.generation = generation;
    }
}
