//! The format of an exported file: `proto/godwit/v1/export.proto`.

use super::channel::{RecordReceiver, RecordSender, Summary, encode};
use crate::error::{Error, Result};
use abi::v1::{ExportEnd, ExportRecord, export_record::Record};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufReader, Read, Write};

/// The first line: the kind of the file and the version of its format.
const TITLE: &[u8] = b"godwit export 2\n";
/// Longest record, in bytes. The largest frame that a gateway can be configured to accept is far smaller.
const MAX_RECORD: u64 = 64 << 20;

/// Writes all records to a file.
pub(super) fn write(mut file: Box<dyn Write + Send>, mut receiver: RecordReceiver) -> Result<Summary> {
    let mut hash = Sha256::new();
    let mut buffer = TITLE.to_vec();
    while let Some(batch) = receiver.blocking_next()? {
        for record in batch {
            match record {
                Record::End(end) => {
                    hash.update(&buffer);
                    file.write_all(&buffer).map_err(Error::File)?;
                    buffer.clear();
                    let sha256 = hash.finalize_reset().to_vec().into();
                    encode(Record::End(ExportEnd { sha256, ..end }), &mut buffer);
                }
                record => encode(record, &mut buffer),
            }
        }
        hash.update(&buffer);
        file.write_all(&buffer).map_err(Error::File)?;
        buffer.clear();
    }
    file.flush().map_err(Error::File)?;
    Ok(receiver.summary())
}

/// Reads a file. Sends the end record only if the checksum over all bytes matches.
pub(super) fn read(file: Box<dyn Read + Send>, mut sender: RecordSender) -> Result<()> {
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut title = [0; TITLE.len()];
    file.read_exact(&mut title).map_err(|_| Error::NotAnExport("it is too short"))?;
    if title != TITLE {
        let is_other_format = title.starts_with(b"godwit export ");
        return Err(Error::NotAnExport(if is_other_format {
            "it has the format of another release of godwit: import it with the release that wrote it"
        } else {
            "it does not begin with 'godwit export 2'"
        }));
    }
    let mut hash = Sha256::new();
    hash.update(TITLE);
    let (mut prefix, mut bytes) = (Vec::new(), Vec::new());
    loop {
        let length = read_length(&mut file, &mut prefix)?;
        bytes.clear();
        let read = (&mut file).take(length).read_to_end(&mut bytes).map_err(Error::File)?;
        if (read as u64) < length {
            return Err(Error::Truncated);
        }
        let record = ExportRecord::decode(bytes.as_slice()).ok().and_then(|record| record.record);
        match record.ok_or(Error::CorruptFile("it contains bytes that are not a record"))? {
            Record::End(end) => {
                if end.sha256[..] != hash.finalize()[..] {
                    return Err(Error::CorruptFile("its checksum does not match"));
                }
                if file.read(&mut [0]).map_err(Error::File)? != 0 {
                    return Err(Error::CorruptFile("bytes follow its end record"));
                }
                sender.add(Record::End(end));
                return sender.blocking_send();
            }
            record => {
                hash.update(&prefix);
                hash.update(&bytes);
                if sender.add(record) {
                    sender.blocking_send()?;
                }
            }
        }
    }
}

/// Reads the length of the next record. Leaves its encoded bytes in `prefix` for the checksum.
fn read_length(file: &mut impl Read, prefix: &mut Vec<u8>) -> Result<u64> {
    prefix.clear();
    let mut length = 0;
    loop {
        let mut byte = [0];
        file.read_exact(&mut byte).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated,
            _ => Error::File(error),
        })?;
        length |= u64::from(byte[0] & 0x7f) << (7 * prefix.len());
        prefix.push(byte[0]);
        if byte[0] < 0x80 && length <= MAX_RECORD {
            return Ok(length);
        }
        if prefix.len() == 5 || length > MAX_RECORD {
            return Err(Error::CorruptFile("the length of a record is out of range"));
        }
    }
}
