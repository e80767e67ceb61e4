//! Checksums by which data in two places can be compared.

use super::{
    Summary,
    flow::{Intake, encode},
};
use crate::error::{Error, Result};
use abi::{ids::hex, v1::export_record::Record};
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// What is summed up in one line.
struct Sum {
    hash: Sha256,
    /// What it is of.
    name: String,
    /// How many records.
    count: u64,
}

impl Sum {
    fn of(name: impl Into<String>) -> Self {
        Self { hash: Sha256::new(), name: name.into(), count: 0 }
    }

    fn add(&mut self, record: Record, buffer: &mut Vec<u8>) {
        buffer.clear();
        encode(record, buffer);
        self.hash.update(buffer);
        self.count += 1;
    }

    fn line(self) -> String {
        format!("{} {} {}\n", hex(&self.hash.finalize()), self.count, self.name)
    }
}

/// Writes `CHECKSUM ENTRIES APP/CONVERSATION` for each conversation; before them the same for signing keys, accounts and
/// sessions, with their number, and last a checksum of all these lines.
pub(super) fn write(file: Box<dyn Write + Send>, mut intake: Intake) -> Result<Summary> {
    let mut out = Lines { file, hash: Sha256::new() };
    let names = ["signing keys", "accounts", "sessions"];
    let mut kinds = Some(names.map(Sum::of));
    let mut conversation: Option<Sum> = None;
    let mut buffer = Vec::new();
    while let Some(batch) = intake.blocking_next()? {
        for record in batch {
            let is_entry = matches!(record, Record::Entry(_));
            match &record {
                // The generation differs after a move, and the rest says who exported it.
                Record::Begin(_) => continue,
                Record::SigningKey(_) | Record::User(_) | Record::Session(_) => {
                    let kind = match record {
                        Record::SigningKey(_) => 0,
                        Record::User(_) => 1,
                        _ => 2,
                    };
                    let kinds = kinds.as_mut().ok_or(Error::Damaged("an account after conversations"))?;
                    kinds[kind].add(record, &mut buffer);
                    continue;
                }
                Record::Conversation(begun) => {
                    let begun = Sum::of(format!("{}/{}", begun.app, begun.id));
                    out.sums(kinds.take().into_iter().flatten().chain(conversation.replace(begun)))?;
                }
                Record::Member(_) | Record::Entry(_) => {}
                Record::End(_) => {
                    out.sums(kinds.take().into_iter().flatten().chain(conversation.take()))?;
                    continue;
                }
            }
            let sum = conversation.as_mut().ok_or(Error::Damaged("an entry before all conversations"))?;
            sum.add(record, &mut buffer);
            // Only entries are counted.
            sum.count -= u64::from(!is_entry);
        }
    }
    out.end()?;
    Ok(intake.summary())
}

struct Lines {
    file: Box<dyn Write + Send>,
    hash: Sha256,
}

impl Lines {
    fn sums(&mut self, sums: impl Iterator<Item = Sum>) -> Result<()> {
        for sum in sums {
            let line = sum.line();
            self.hash.update(&line);
            self.file.write_all(line.as_bytes()).map_err(Error::File)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        let all = hex(&self.hash.finalize());
        writeln!(self.file, "{all} everything").and_then(|()| self.file.flush()).map_err(Error::File)
    }
}
