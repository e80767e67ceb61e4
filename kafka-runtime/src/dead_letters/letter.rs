//! A dead letter, and the record that it was.

use super::header::REPLAYED_FROM;
use crate::consumer::header;
use crate::error::Error;
use crate::record::{Headers, Position, ProducerRecord, Record, TopicPartition};
use std::fmt;
use std::str::FromStr;

/// Headers that begin so are of the letter, all others of its record.
const PREFIX: &str = "dead-letter-";

/// Where a letter lies in the dead-letter topic, written `PARTITION-OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub Position);

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.partition, self.0.offset)
    }
}

impl FromStr for LetterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (partition, offset) = text.split_once('-')?;
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let (partition, offset) = Some((partition, offset)).filter(|(p, o)| digits(p) && digits(o))?;
            Some(Self(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? }))
        };
        parse().ok_or_else(|| Error::LetterId { text: text.to_owned() })
    }
}

/// A record that could not be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its place in the dead-letter topic.
    pub id: LetterId,
    /// The partition that it was read from; `None` if the letter does not say.
    pub origin: Option<TopicPartition>,
    /// The offset that it was read from.
    pub offset: Option<i64>,
    /// Why it was rejected; empty if the letter does not say.
    pub reason: String,
    /// How often it was handed to the handler; 0 if the letter does not say.
    pub attempts: u32,
    /// The letter that it was before, if it was replayed and rejected again.
    pub replayed_from: Option<LetterId>,
    /// Size of its payload, or of all of it, if that was too large for the dead-letter topic and was left out.
    pub omitted_bytes: Option<u64>,
    /// The record in the dead-letter topic, with the headers that it had before.
    pub record: Record,
}

impl Letter {
    /// Reads a record of the dead-letter topic. What its headers don't say is left open: nothing in that topic is hidden.
    pub(super) fn read(mut record: Record) -> Self {
        let headers = std::mem::take(&mut record.headers);
        let partition = number(&headers, header::PARTITION);
        let origin = text(&headers, header::TOPIC)
            .zip(partition)
            .map(|(topic, partition)| TopicPartition { topic: topic.into(), partition });
        let letter = Self {
            id: LetterId(record.position()),
            origin,
            offset: number(&headers, header::OFFSET),
            reason: text(&headers, header::REASON).unwrap_or_default(),
            attempts: number(&headers, header::ATTEMPTS).unwrap_or(0),
            replayed_from: text(&headers, REPLAYED_FROM).and_then(|id| id.parse().ok()),
            omitted_bytes: number(&headers, header::OMITTED),
            record,
        };
        let own = headers.into_iter().filter(|(name, _)| !name.starts_with(PREFIX)).collect();
        Self { record: Record { headers: own, ..letter.record }, ..letter }
    }

    /// The record as it was, for the topic that it was read from.
    pub(super) fn original(&self) -> Result<ProducerRecord, Error> {
        let not = |reason| Error::NotReplayable { id: self.id, reason };
        if self.omitted_bytes.is_some() {
            return Err(not("it was too large for the dead-letter topic and its payload was left out"));
        }
        let origin = self.origin.as_ref().ok_or_else(|| not("it does not say from which topic it came"))?;
        let mut headers: Headers = self.record.headers.clone();
        headers.retain(|(name, _)| name != REPLAYED_FROM);
        headers.push((REPLAYED_FROM.to_owned(), self.id.to_string().into()));
        Ok(ProducerRecord {
            topic: origin.topic.clone(),
            key: self.record.key.clone(),
            payload: self.record.payload.clone(),
            headers,
        })
    }
}

/// The last value of a header: those of the letter stand behind the ones that its record had.
pub(super) fn text(headers: &Headers, name: &str) -> Option<String> {
    let (_, value) = headers.iter().rfind(|(header, _)| header == name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn number<T: FromStr>(headers: &Headers, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn record(headers: &[(&str, &str)]) -> Record {
        Record {
            topic: "t.dead".into(),
            partition: 0,
            offset: 7,
            key: "k".into(),
            payload: "p".into(),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), Bytes::from((*v).to_owned()))).collect(),
            timestamp_ms: 5,
        }
    }

    #[test]
    fn an_id_is_a_partition_and_an_offset() {
        assert_eq!("3-17".parse::<LetterId>().unwrap().to_string(), "3-17");
        for text in ["", "3", "3-", "-17", "3-17-1", "3--17", "+3-17", "a-b", "3-99999999999999999999"] {
            let fault = text.parse::<LetterId>().unwrap_err().to_string();
            assert!(fault.contains("PARTITION-OFFSET"), "{text}: {fault}");
        }
    }

    #[test]
    fn the_original_has_its_own_headers_and_says_which_letter_it_was() {
        let letter = Letter::read(record(&[
            (header::TOPIC, "forged"),
            ("trace", "1"),
            (REPLAYED_FROM, "0-2"),
            (header::TOPIC, "t"),
            (header::PARTITION, "4"),
            (header::OFFSET, "99"),
            (header::REASON, "why"),
            (header::ATTEMPTS, "3"),
        ]));
        assert_eq!(letter.origin, Some(TopicPartition { topic: "t".into(), partition: 4 }));
        assert_eq!((letter.offset, letter.attempts, letter.reason.as_str()), (Some(99), 3, "why"));
        assert_eq!(letter.replayed_from, "0-2".parse().ok());
        let original = letter.original().unwrap();
        assert_eq!((&*original.topic, &original.key[..], &original.payload[..]), ("t", &b"k"[..], &b"p"[..]));
        let headers: Vec<_> = original.headers.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
        assert_eq!(headers, [("trace", &b"1"[..]), (REPLAYED_FROM, &b"0-7"[..])]);
    }

    #[test]
    fn what_is_incomplete_cannot_be_replayed() {
        let foreign = Letter::read(record(&[("trace", "1")]));
        assert!(matches!(foreign.original(), Err(Error::NotReplayable { .. })));
        let from = [(header::TOPIC, "t"), (header::PARTITION, "0")];
        assert!(Letter::read(record(&from)).original().is_ok());
        let omitted = [from[0], from[1], (header::OMITTED, "2000000")];
        assert!(matches!(Letter::read(record(&omitted)).original(), Err(Error::NotReplayable { .. })));
    }
}
