//! The sets of acknowledged, received and stored messages. The body of a message holds its sender and its counter.

use abi::v1::{Entry, content::Body};
use std::fmt::Write as _;

/// A set of counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    words: Vec<u64>,
    len: u64,
}

impl Counters {
    /// Adds a counter; `false` if the set already has it.
    pub(super) fn insert(&mut self, counter: u64) -> bool {
        let (word, bit) = ((counter / 64) as usize, 1 << (counter % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(new);
        new
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The number of counters that are missing in at least one of the other sets.
    pub(super) fn missing(&self, a: &Self, b: &Self) -> u64 {
        let word = |set: &Self, index: usize| set.words.get(index).copied().unwrap_or(0);
        let missing =
            self.words.iter().enumerate().map(|(i, word_here)| word_here & !(word(a, i) & word(b, i)));
        missing.map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The messages that a reader of a conversation has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) counters: Counters,
    highest: Option<u64>,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
}

impl Seen {
    /// Records a message. Order must also hold for retried messages: the server refuses the messages after a refused one.
    pub(super) fn record(&mut self, counter: u64) {
        if !self.counters.insert(counter) {
            self.duplicated += 1;
        } else if self.highest.is_some_and(|highest| counter < highest) {
            self.out_of_order += 1;
        }
        self.highest = self.highest.max(Some(counter));
    }
}

/// The beginning of a message body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sender: u32,
    pub(super) counter: u64,
    /// When the message was due, in nanoseconds since the start of the run.
    pub(super) due: u64,
}

/// Length of a stamp, and the minimum length of a body.
const STAMP: usize = 6 + 10 + 16;

impl Stamp {
    /// Writes a body of `size` bytes into a buffer.
    pub(super) fn write(self, size: usize, body: &mut String) {
        body.clear();
        write!(body, "{:06x}{:010x}{:016x}", self.sender, self.counter, self.due)
            .expect("writing to a String never fails");
        body.extend(std::iter::repeat_n('x', size.saturating_sub(STAMP)));
    }

    /// The stamp of an entry; `None` if it is not a message of a run.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let Some(Body::Text(text)) = &entry.content.as_ref()?.body else { return None };
        let number = |from, to| u64::from_str_radix(text.get(from..to)?, 16).ok();
        Some(Self {
            sender: u32::try_from(number(0, 6)?).ok()?,
            counter: number(6, 16)?,
            due: number(16, STAMP)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_from_its_body() {
        let stamp = Stamp { sender: 77, counter: 123_456, due: 9_876_543_210 };
        for size in [0, 32, 64, 1_000] {
            let mut body = "old".to_owned();
            stamp.write(size, &mut body);
            assert_eq!(body.len(), size.max(STAMP));
            let entry = Entry { content: Some(client::text(body)), ..Entry::default() };
            assert_eq!(Stamp::read(&entry), Some(stamp));
        }
        assert_eq!(Stamp::read(&Entry::default()), None);
    }

    #[test]
    fn p1_an_acknowledged_message_must_be_in_both_other_sets() {
        let set = |counters: &[u64]| {
            let mut set = Counters::default();
            counters.iter().for_each(|counter| assert!(set.insert(*counter)));
            set
        };
        let acked = set(&[0, 1, 64, 200]);
        assert_eq!(acked.missing(&set(&[0, 1, 64, 200, 300]), &set(&[0, 1, 64, 200])), 0);
        assert_eq!(acked.missing(&set(&[0, 1, 64]), &set(&[1, 64, 200])), 2);
        assert_eq!(acked.missing(&set(&[]), &acked), 4);
    }

    #[test]
    fn p2_p3_duplicates_and_reordering_are_counted() {
        let mut seen = Seen::default();
        for counter in [0, 1, 3, 2, 5, 4, 4] {
            seen.record(counter);
        }
        assert_eq!((seen.duplicated, seen.out_of_order), (1, 2));
    }
}
