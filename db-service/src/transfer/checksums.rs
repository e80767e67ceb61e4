//! Checksums for comparing the data in two places.

use super::channel::{RecordReceiver, Summary, encode};
use crate::error::{Error, Result};
use abi::{ids::hex, v1::export_record::Record};
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// The checksum of one line.
struct Checksum {
    hash: Sha256,
    /// Name of the conversation or of the kind of account data.
    name: String,
    /// Entries of the conversation, or records of the kind.
    count: u64,
}

impl Checksum {
    fn new(name: impl Into<String>) -> Self {
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

/// Writes one line `CHECKSUM COUNT NAME` each for the signing keys, the accounts and the sessions, then one for each
/// conversation with the name `APP/CONVERSATION`, and last a checksum of all these lines.
pub(super) fn write(file: Box<dyn Write + Send>, mut receiver: RecordReceiver) -> Result<Summary> {
    let mut out = Lines { file, hash: Sha256::new() };
    let names = ["signing keys", "accounts", "sessions"];
    let mut kinds = Some(names.map(Checksum::new));
    let mut conversation: Option<Checksum> = None;
    let mut buffer = Vec::new();
    while let Some(batch) = receiver.blocking_next()? {
        for record in batch {
            let is_entry = matches!(record, Record::Entry(_));
            match &record {
                // It holds the generation, the release and the time, which differ after a move.
                Record::Begin(_) => continue,
                Record::SigningKey(_) | Record::User(_) | Record::Session(_) => {
                    let kind = match record {
                        Record::SigningKey(_) => 0,
                        Record::User(_) => 1,
                        _ => 2,
                    };
                    let kinds = kinds.as_mut().ok_or(Error::Corrupt("an account follows conversations"))?;
                    kinds[kind].add(record, &mut buffer);
                    continue;
                }
                Record::Conversation(next) => {
                    let next = Checksum::new(format!("{}/{}", next.app, next.id));
                    out.write(kinds.take().into_iter().flatten().chain(conversation.replace(next)))?;
                }
                Record::Member(_) | Record::Entry(_) => {}
                Record::End(_) => {
                    out.write(kinds.take().into_iter().flatten().chain(conversation.take()))?;
                    continue;
                }
            }
            let checksum =
                conversation.as_mut().ok_or(Error::Corrupt("an entry precedes all conversations"))?;
            checksum.add(record, &mut buffer);
            // The count of a conversation is that of its entries.
            checksum.count -= u64::from(!is_entry);
        }
    }
    out.finish()?;
    Ok(receiver.summary())
}

struct Lines {
    file: Box<dyn Write + Send>,
    hash: Sha256,
}

impl Lines {
    fn write(&mut self, checksums: impl Iterator<Item = Checksum>) -> Result<()> {
        for checksum in checksums {
            let line = checksum.line();
            self.hash.update(&line);
            self.file.write_all(line.as_bytes()).map_err(Error::File)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let all = hex(&self.hash.finalize());
        writeln!(self.file, "{all} everything").and_then(|()| self.file.flush()).map_err(Error::File)
    }
}
