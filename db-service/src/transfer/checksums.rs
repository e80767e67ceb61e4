//! Checksums for comparing the data in two places.

use super::{
    channel::{RecordReceiver, Summary, encode},
    tables::{CONVERSATIONS, ENTRIES, TABLES, table_of},
};
use crate::error::{Error, Result};
use abi::{ids::hex, v1::export_record::Record};
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// The checksum of one line.
struct Checksum {
    hash: Sha256,
    /// Name of the conversation or of the table.
    name: String,
    /// Entries of the conversation, or rows of the table.
    count: u64,
}

impl Checksum {
    fn new(name: impl Into<String>) -> Self {
        Self { hash: Sha256::new(), name: name.into(), count: 0 }
    }

    fn add(&mut self, record: Record, counts: bool, buffer: &mut Vec<u8>) {
        buffer.clear();
        encode(record, buffer);
        self.hash.update(buffer);
        self.count += u64::from(counts);
    }

    fn line(self) -> String {
        format!("{} {} {}\n", hex(&self.hash.finalize()), self.count, self.name)
    }
}

/// Writes one line `CHECKSUM COUNT NAME` for each table without conversations, then one for each conversation with the name
/// `APP/CONVERSATION`, and last a checksum of all these lines. The count of a conversation is that of its entries.
pub(super) fn write(file: Box<dyn Write + Send>, mut receiver: RecordReceiver) -> Result<Summary> {
    let mut out = Lines { file, hash: Sha256::new() };
    let mut tables: Vec<_> =
        TABLES[..CONVERSATIONS].iter().map(|table| Checksum::new(table.name.replace('_', " "))).collect();
    let mut conversation: Option<Checksum> = None;
    let mut buffer = Vec::new();
    while let Some(batch) = receiver.blocking_next()? {
        for record in batch {
            let row = match record {
                // It holds the generation, the release and the time, which differ after a move.
                Record::Begin(_) => continue,
                Record::Row(row) => row,
                Record::End(_) => {
                    out.write(tables.drain(..).chain(conversation.take()))?;
                    continue;
                }
            };
            let (index, table) = table_of(&row)?;
            if index == CONVERSATIONS {
                let name = format!("{}/{}", table.text("app", &row)?, table.text("id", &row)?);
                out.write(tables.drain(..).chain(conversation.replace(Checksum::new(name))))?;
            }
            let checksum = if index < CONVERSATIONS { tables.get_mut(index) } else { conversation.as_mut() };
            let checksum = checksum.ok_or(Error::Corrupt("records are not in the order of an export"))?;
            checksum.add(Record::Row(row), index < CONVERSATIONS || index == ENTRIES, &mut buffer);
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
