//! The index of changes of a user.

use crate::MAX_SUBJECTS;
use std::sync::Arc;

/// The subjects that changed last, at most [`MAX_SUBJECTS`], each with the seq of its last change.
#[derive(Debug, Default)]
pub(super) struct ChangeIndex {
    /// Subjects whose last change has this seq or a lower one may be missing.
    complete_after: u64,
    /// Last change last: a conversation that changes again and again is found with the first comparison.
    subjects: Vec<(Arc<str>, u64)>,
}

impl ChangeIndex {
    /// Records a change. `name` makes the name of a subject that the index does not have.
    pub(super) fn record(&mut self, subject: &str, seq: u64, name: impl FnOnce() -> Arc<str>) {
        match self.subjects.iter().rposition(|(known, _)| **known == *subject) {
            Some(position) => {
                self.subjects[position..].rotate_left(1);
                let (_, last) = self.subjects.last_mut().expect("the subject was found");
                *last = seq;
            }
            None => {
                if self.subjects.len() == MAX_SUBJECTS {
                    (_, self.complete_after) = self.subjects.remove(0);
                }
                self.subjects.push((name(), seq));
            }
        }
    }

    /// Records that something unknown changed.
    pub(super) fn forget(&mut self, seq: u64) {
        *self = Self { complete_after: seq, subjects: Vec::new() };
    }

    /// The subjects that changed after `seq`, last change first. `None` if the index does not reach back to it.
    pub(super) fn after(&self, seq: u64) -> Option<Vec<String>> {
        let changed = self.subjects.iter().rev().take_while(|(_, last)| *last > seq);
        (seq >= self.complete_after).then(|| changed.map(|(subject, _)| subject.to_string()).collect())
    }

    /// The number of subjects.
    pub(super) fn len(&self) -> usize {
        self.subjects.len()
    }
}
