//! The open letters, as one bit for each record of the dead-letter topic.

use super::header::{self, text};
use super::id::LetterId;
use crate::archive::Archive;
use crate::error::Error;
use crate::record::{Position, Record};
use std::collections::VecDeque;
use std::ops::Range;

/// Records per read.
const READ_RECORDS: usize = 5_000;
/// Limit of endings whose letters have not been read yet.
const MAX_EARLY_ENDINGS: usize = 1_000;

/// The state of the topic up to the last [`refresh`](Self::refresh).
#[derive(Debug, Default)]
pub(super) struct Index {
    partitions: Vec<Partition>,
    /// Letters whose endings were read first, because the two are in different partitions.
    early_endings: Vec<Position>,
}

#[derive(Debug, Default)]
struct Partition {
    /// A set bit is an open letter. The first bit is that of `base`.
    words: VecDeque<u64>,
    /// A multiple of 64.
    base: i64,
    /// The first offset that the topic still has.
    low: i64,
    /// The next offset to be read.
    next: i64,
}

impl Index {
    /// Reads the records that were written since the last call.
    pub(super) async fn refresh(&mut self, archive: &dyn Archive) -> Result<(), Error> {
        let bounds = archive.bounds().await?;
        self.partitions.resize_with(bounds.len(), Partition::default);
        for (number, Range { start, end }) in (0..).zip(bounds) {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            self.partitions[index].begin_at(start);
            loop {
                let next = self.partitions[index].next;
                if next >= end {
                    break;
                }
                let records = archive.read(number, next, READ_RECORDS).await?;
                // No records: the rest up to the end was removed.
                self.partitions[index].next = records.last().map_or(end, |last| last.offset + 1);
                records.iter().for_each(|record| self.apply(record));
            }
        }
        for position in std::mem::take(&mut self.early_endings) {
            self.close(position);
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record) {
        match ended_letter(record) {
            Some(letter) => self.close(letter),
            None => self.open_letter(record.position()),
        }
    }

    fn open_letter(&mut self, position: Position) {
        if let Some(partition) = self.partition_mut(position.partition) {
            partition.set(position.offset);
        }
    }

    /// Marks a letter as ended.
    pub(super) fn close(&mut self, position: Position) {
        let Some(partition) = self.partition_mut(position.partition) else { return };
        if position.offset < partition.next {
            partition.clear(position.offset);
        } else if self.early_endings.len() < MAX_EARLY_ENDINGS {
            self.early_endings.push(position);
        }
    }

    fn partition_mut(&mut self, partition: i32) -> Option<&mut Partition> {
        usize::try_from(partition).ok().and_then(|partition| self.partitions.get_mut(partition))
    }

    pub(super) fn is_open(&self, position: Position) -> bool {
        let partition = usize::try_from(position.partition).ok().and_then(|p| self.partitions.get(p));
        partition.is_some_and(|partition| partition.has(position.offset))
    }

    /// Number of open letters.
    pub(super) fn open(&self) -> u64 {
        let words = self.partitions.iter().flat_map(|partition| &partition.words);
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first open letter after a position, or of all.
    pub(super) fn open_after(&self, position: Option<Position>) -> Option<Position> {
        let after = position.map(|position| (position.partition, position.offset));
        let mut partitions = (0..).zip(&self.partitions);
        partitions.find_map(|(number, partition)| {
            let from = match after {
                Some((before, _)) if number < before => return None,
                Some((same, offset)) if number == same => offset.saturating_add(1),
                _ => partition.low,
            };
            partition.first_from(from).map(|offset| Position { partition: number, offset })
        })
    }

    /// The end offset of each partition at the last refresh.
    pub(super) fn ends(&self) -> Vec<i64> {
        self.partitions.iter().map(|partition| partition.next).collect()
    }

    /// The offset of the first open letter, if the topic has one partition and there are records before that offset.
    pub(super) fn closed_prefix(&self) -> Option<i64> {
        let [partition] = self.partitions.as_slice() else { return None };
        let first_open = partition.first_from(partition.low).unwrap_or(partition.next);
        Some(first_open).filter(|first_open| *first_open > partition.low)
    }

    /// Drops the state before an offset of the only partition.
    pub(super) fn forget_before(&mut self, offset: i64) {
        if let [partition] = self.partitions.as_mut_slice() {
            partition.begin_at(offset);
        }
    }
}

/// The id of the letter that a record ends, if it is such a record.
fn ended_letter(record: &Record) -> Option<Position> {
    text(&record.headers, header::ENDED)?;
    let letter: LetterId = text(&record.headers, header::LETTER)?.parse().ok()?;
    Some(letter.0)
}

impl Partition {
    /// Records that `low` is the first offset of the topic.
    fn begin_at(&mut self, low: i64) {
        self.low = self.low.max(low);
        if self.next < self.low {
            self.next = self.low;
        }
        while self.base + 64 <= self.low {
            if self.words.pop_front().is_none() {
                self.base = self.low - self.low % 64;
                return;
            }
            self.base += 64;
        }
        let removed = self.low - self.base;
        if let Some(first) = self.words.front_mut() {
            *first &= u64::MAX << removed;
        }
    }

    /// The index of the word and the mask of the bit of an offset.
    fn bit(&self, offset: i64) -> Option<(usize, u64)> {
        let distance = usize::try_from(offset - self.base).ok()?;
        Some((distance / 64, 1 << (distance % 64)))
    }

    fn set(&mut self, offset: i64) {
        if let Some((word, bit)) = self.bit(offset) {
            if word >= self.words.len() {
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= bit;
        }
    }

    fn clear(&mut self, offset: i64) {
        if let Some((word, bit)) = self.bit(offset)
            && let Some(word) = self.words.get_mut(word)
        {
            *word &= !bit;
        }
    }

    fn has(&self, offset: i64) -> bool {
        let bit = self.bit(offset);
        bit.is_some_and(|(word, bit)| self.words.get(word).is_some_and(|word| word & bit != 0))
    }

    /// The first open letter from an offset on.
    fn first_from(&self, from: i64) -> Option<i64> {
        let (first, bit) = self.bit(from.max(self.base))?;
        let words = self.words.iter().enumerate().skip(first);
        words
            .map(|(index, word)| (index, if index == first { word & !(bit - 1) } else { *word }))
            .find(|(_, word)| *word != 0)
            .and_then(|(index, word)| {
                let offset = index as u64 * 64 + u64::from(word.trailing_zeros());
                Some(self.base + i64::try_from(offset).ok()?)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(open: &[i64]) -> Partition {
        let mut partition = Partition::default();
        open.iter().for_each(|offset| partition.set(*offset));
        partition.next = 1_000;
        partition
    }

    fn open(partition: &Partition) -> Vec<i64> {
        let next = |from| partition.first_from(from);
        std::iter::successors(next(0), |offset| next(offset + 1)).collect()
    }

    #[test]
    fn each_open_letter_is_a_bit() {
        let mut letters = partition(&[0, 1, 63, 64, 200, 641]);
        assert_eq!(open(&letters), [0, 1, 63, 64, 200, 641]);
        for ended in [1, 64, 5, 100_000] {
            letters.clear(ended);
        }
        assert_eq!(open(&letters), [0, 63, 200, 641]);
        assert!(letters.has(63) && !letters.has(64) && !letters.has(-1));
    }

    #[test]
    fn removed_letters_are_dropped_from_the_index() {
        let mut letters = partition(&[0, 63, 64, 200, 641]);
        letters.begin_at(64);
        assert_eq!(open(&letters), [64, 200, 641]);
        letters.begin_at(201);
        assert_eq!((open(&letters), letters.words.len()), (vec![641], 8));
        letters.begin_at(10_000);
        assert_eq!((open(&letters), letters.next), (vec![], 10_000));
        letters.set(10_003);
        assert_eq!(open(&letters), [10_003]);
    }

    #[test]
    fn only_ended_letters_at_the_beginning_of_a_single_partition_are_removed() {
        let index = |partitions| Index { partitions, early_endings: Vec::new() };
        assert_eq!(index(vec![partition(&[0, 3])]).closed_prefix(), None);
        assert_eq!(index(vec![partition(&[3])]).closed_prefix(), Some(3));
        assert_eq!(index(vec![partition(&[])]).closed_prefix(), Some(1_000));
        assert_eq!(index(vec![partition(&[]), partition(&[])]).closed_prefix(), None);
    }

    #[test]
    fn open_letters_are_found_across_partitions() {
        let index = Index {
            partitions: vec![partition(&[5]), partition(&[]), partition(&[2, 9])],
            early_endings: vec![],
        };
        let position = |partition, offset| Position { partition, offset };
        let next = |position: Option<Position>| index.open_after(position);
        let all: Vec<_> = std::iter::successors(next(None), |position| next(Some(*position))).collect();
        assert_eq!(all, [position(0, 5), position(2, 2), position(2, 9)]);
    }
}
