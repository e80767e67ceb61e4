//! Which letters are open: one bit for each record of the dead-letter topic.

use super::header;
use super::letter::{LetterId, text};
use crate::archive::Archive;
use crate::error::Error;
use crate::record::{Position, Record};
use std::collections::VecDeque;
use std::ops::Range;

/// Records that are read at once.
const CHUNK: usize = 5_000;
/// Endings that may wait for letters that are not read yet.
const EARLY: usize = 1_000;

/// What is known of the topic. It is read on from where the last look ended.
#[derive(Debug, Default)]
pub(super) struct Index {
    partitions: Vec<Partition>,
    /// Endings that were read before their letters, which lie in other partitions.
    early: Vec<Position>,
}

#[derive(Debug, Default)]
struct Partition {
    /// A set bit is an open letter. The first bit is that of `base`.
    words: VecDeque<u64>,
    /// A multiple of 64.
    base: i64,
    /// The first offset that is kept.
    low: i64,
    /// The next offset to be read.
    next: i64,
}

impl Index {
    /// Reads what has come since the last time.
    pub(super) async fn refresh(&mut self, archive: &dyn Archive) -> Result<(), Error> {
        let bounds = archive.bounds().await?;
        self.partitions.resize_with(bounds.len(), Partition::default);
        for (number, Range { start, end }) in (0..).zip(bounds) {
            let number_of = usize::try_from(number).unwrap_or(usize::MAX);
            self.partitions[number_of].begin_at(start);
            loop {
                let next = self.partitions[number_of].next;
                if next >= end {
                    break;
                }
                let records = archive.read(number, next, CHUNK).await?;
                // Nothing readable is left before the end.
                self.partitions[number_of].next = records.last().map_or(end, |last| last.offset + 1);
                records.iter().for_each(|record| self.take(record));
            }
        }
        for position in std::mem::take(&mut self.early) {
            self.close(position);
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) {
        match ended(record) {
            Some(letter) => self.close(letter),
            None => self.open_letter(record.position()),
        }
    }

    fn open_letter(&mut self, position: Position) {
        if let Some(partition) = self.partition_mut(position.partition) {
            partition.set(position.offset);
        }
    }

    /// A letter has ended.
    pub(super) fn close(&mut self, position: Position) {
        let Some(partition) = self.partition_mut(position.partition) else { return };
        if position.offset < partition.next {
            partition.clear(position.offset);
        } else if self.early.len() < EARLY {
            self.early.push(position);
        }
    }

    fn partition_mut(&mut self, partition: i32) -> Option<&mut Partition> {
        usize::try_from(partition).ok().and_then(|partition| self.partitions.get_mut(partition))
    }

    pub(super) fn is_open(&self, position: Position) -> bool {
        let partition = usize::try_from(position.partition).ok().and_then(|p| self.partitions.get(p));
        partition.is_some_and(|partition| partition.has(position.offset))
    }

    /// How many letters are open.
    pub(super) fn open(&self) -> u64 {
        let words = self.partitions.iter().flat_map(|partition| &partition.words);
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first open letter behind a place, or of all.
    pub(super) fn open_after(&self, place: Option<Position>) -> Option<Position> {
        let place = place.map(|place| (place.partition, place.offset));
        let mut partitions = (0..).zip(&self.partitions);
        partitions.find_map(|(number, partition)| {
            let from = match place {
                Some((before, _)) if number < before => return None,
                Some((same, offset)) if number == same => offset.saturating_add(1),
                _ => partition.low,
            };
            partition.first_from(from).map(|offset| Position { partition: number, offset })
        })
    }

    /// Where each partition ended at the last look.
    pub(super) fn ends(&self) -> Vec<i64> {
        self.partitions.iter().map(|partition| partition.next).collect()
    }

    /// The offset before which nothing is open, if something is there that can be removed and the topic has one partition.
    pub(super) fn closed_prefix(&self) -> Option<i64> {
        let [partition] = self.partitions.as_slice() else { return None };
        let first_open = partition.first_from(partition.low).unwrap_or(partition.next);
        Some(first_open).filter(|first_open| *first_open > partition.low)
    }

    /// What lies before an offset of the only partition is gone.
    pub(super) fn forget_before(&mut self, offset: i64) {
        if let [partition] = self.partitions.as_mut_slice() {
            partition.begin_at(offset);
        }
    }
}

/// The letter that a record says has ended.
fn ended(record: &Record) -> Option<Position> {
    text(&record.headers, header::ENDED)?;
    let letter: LetterId = text(&record.headers, header::LETTER)?.parse().ok()?;
    Some(letter.0)
}

impl Partition {
    /// Nothing before `low` is there.
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
        let gone = self.low - self.base;
        if let Some(first) = self.words.front_mut() {
            *first &= u64::MAX << gone;
        }
    }

    /// The word and the bit of an offset.
    fn place(&self, offset: i64) -> Option<(usize, u64)> {
        let distance = usize::try_from(offset - self.base).ok()?;
        Some((distance / 64, 1 << (distance % 64)))
    }

    fn set(&mut self, offset: i64) {
        if let Some((word, bit)) = self.place(offset) {
            if word >= self.words.len() {
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= bit;
        }
    }

    fn clear(&mut self, offset: i64) {
        if let Some((word, bit)) = self.place(offset)
            && let Some(word) = self.words.get_mut(word)
        {
            *word &= !bit;
        }
    }

    fn has(&self, offset: i64) -> bool {
        let place = self.place(offset);
        place.is_some_and(|(word, bit)| self.words.get(word).is_some_and(|word| word & bit != 0))
    }

    /// The first open letter from an offset on.
    fn first_from(&self, from: i64) -> Option<i64> {
        let (first, bit) = self.place(from.max(self.base))?;
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
    fn bits_are_letters() {
        let mut letters = partition(&[0, 1, 63, 64, 200, 641]);
        assert_eq!(open(&letters), [0, 1, 63, 64, 200, 641]);
        for ended in [1, 64, 5, 100_000] {
            letters.clear(ended);
        }
        assert_eq!(open(&letters), [0, 63, 200, 641]);
        assert!(letters.has(63) && !letters.has(64) && !letters.has(-1));
    }

    #[test]
    fn what_is_removed_is_forgotten() {
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
    fn only_what_is_closed_at_the_beginning_of_a_single_partition_goes() {
        let index = |partitions| Index { partitions, early: Vec::new() };
        assert_eq!(index(vec![partition(&[0, 3])]).closed_prefix(), None);
        assert_eq!(index(vec![partition(&[3])]).closed_prefix(), Some(3));
        assert_eq!(index(vec![partition(&[])]).closed_prefix(), Some(1_000));
        assert_eq!(index(vec![partition(&[]), partition(&[])]).closed_prefix(), None);
    }

    #[test]
    fn letters_are_found_behind_a_place_over_all_partitions() {
        let index =
            Index { partitions: vec![partition(&[5]), partition(&[]), partition(&[2, 9])], early: vec![] };
        let position = |partition, offset| Position { partition, offset };
        let next = |place: Option<Position>| index.open_after(place);
        let all: Vec<_> = std::iter::successors(next(None), |place| next(Some(*place))).collect();
        assert_eq!(all, [position(0, 5), position(2, 2), position(2, 9)]);
    }
}
