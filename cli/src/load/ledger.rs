//! Which messages were acknowledged, received and stored. A message is a sender and a counter; both are in its body.

use abi::v1::{Entry, entry::Content, message::Body};
use std::fmt::Write as _;

/// A set of counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    words: Vec<u64>,
    len: u64,
}

impl Counters {
    /// Adds a counter; `false` if it was there.
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

    /// How many of these are not in both others.
    pub(super) fn missing(&self, a: &Self, b: &Self) -> u64 {
        let word = |set: &Self, index: usize| set.words.get(index).copied().unwrap_or(0);
        let missing =
            self.words.iter().enumerate().map(|(i, word_here)| word_here & !(word(a, i) & word(b, i)));
        missing.map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What a reader of a conversation has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) counters: Counters,
    highest: Option<u64>,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
}

impl Seen {
    /// Takes note of a message. Order is promised of what was told to try again, too: the server refuses what comes behind it.
    pub(super) fn take(&mut self, counter: u64) {
        if !self.counters.insert(counter) {
            self.duplicated += 1;
        } else if self.highest.is_some_and(|highest| counter < highest) {
            self.out_of_order += 1;
        }
        self.highest = self.highest.max(Some(counter));
    }
}

/// What stands at the beginning of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sender: u32,
    pub(super) counter: u64,
    /// When it was to be sent, in nanoseconds of the run.
    pub(super) intended: u64,
}

/// Length of a stamp; shorter bodies are not possible.
const STAMP: usize = 6 + 10 + 16;

impl Stamp {
    /// Writes a body of `size` bytes into a buffer.
    pub(super) fn write(self, size: usize, body: &mut String) {
        body.clear();
        write!(body, "{:06x}{:010x}{:016x}", self.sender, self.counter, self.intended)
            .expect("writing to a String never fails");
        body.extend(std::iter::repeat_n('x', size.saturating_sub(STAMP)));
    }

    /// The stamp of an entry; `None` for what is no message of a run.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let Some(Content::Message(message)) = &entry.content else { return None };
        let Some(Body::Text(text)) = &message.body else { return None };
        let number = |from, to| u64::from_str_radix(text.get(from..to)?, 16).ok();
        Some(Self {
            sender: u32::try_from(number(0, 6)?).ok()?,
            counter: number(6, 16)?,
            intended: number(16, STAMP)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::Message;

    #[test]
    fn a_stamp_survives_its_body() {
        let stamp = Stamp { sender: 77, counter: 123_456, intended: 9_876_543_210 };
        for size in [0, 32, 64, 1_000] {
            let mut body = "old".to_owned();
            stamp.write(size, &mut body);
            assert_eq!(body.len(), size.max(STAMP));
            let message = Message { content_type: String::new(), body: Some(Body::Text(body)) };
            let entry = Entry { content: Some(Content::Message(message)), ..Entry::default() };
            assert_eq!(Stamp::read(&entry), Some(stamp));
        }
        assert_eq!(Stamp::read(&Entry::default()), None);
    }

    #[test]
    fn p1_what_was_acknowledged_and_is_not_everywhere_is_missing() {
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
    fn p2_p3_twice_and_backwards_are_seen() {
        let mut seen = Seen::default();
        for counter in [0, 1, 3, 2, 5, 4, 4] {
            seen.take(counter);
        }
        assert_eq!((seen.duplicated, seen.out_of_order), (1, 2));
    }
}
