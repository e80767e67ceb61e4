//! A dead letter, and the record in it.

use super::header::{self, number, text};
use super::id::LetterId;
use crate::error::Error;
use crate::record::{Headers, ProducerRecord, Record, TopicPartition};

/// A record that could not be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its position in the dead-letter topic.
    pub id: LetterId,
    /// The partition that the record was read from; `None` if the header is missing.
    pub origin: Option<TopicPartition>,
    /// The offset that the record was read from.
    pub offset: Option<i64>,
    /// Why it was rejected; empty if the header is missing.
    pub reason: String,
    /// Number of attempts; 0 if the header is missing.
    pub attempts: u32,
    /// The earlier letter of the same record, if that was replayed and the record was rejected again.
    pub replayed_from: Option<LetterId>,
    /// Bytes that were left out because the record was too large for the dead-letter topic.
    pub omitted_bytes: Option<u64>,
    /// The record in the dead-letter topic, without the headers of the letter.
    pub record: Record,
}

impl Letter {
    /// Reads any record of the dead-letter topic. Missing headers leave fields empty, so that no record there is hidden.
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
            replayed_from: text(&headers, header::REPLAYED_FROM).and_then(|id| id.parse().ok()),
            omitted_bytes: number(&headers, header::OMITTED),
            record,
        };
        let own = headers.into_iter().filter(|(name, _)| !name.starts_with(header::PREFIX)).collect();
        Self { record: Record { headers: own, ..letter.record }, ..letter }
    }

    /// The original record, addressed to the topic that it was read from.
    pub(super) fn original(&self) -> Result<ProducerRecord, Error> {
        let error = |reason| Error::NotReplayable { id: self.id, reason };
        if self.omitted_bytes.is_some() {
            return Err(error("it was too large for the dead-letter topic, so its payload was left out"));
        }
        let origin =
            self.origin.as_ref().ok_or_else(|| error("its headers do not name the original topic"))?;
        let mut headers: Headers = self.record.headers.clone();
        headers.retain(|(name, _)| name != header::REPLAYED_FROM);
        headers.push((header::REPLAYED_FROM.to_owned(), self.id.to_string().into()));
        Ok(ProducerRecord {
            topic: origin.topic.clone(),
            key: self.record.key.clone(),
            payload: self.record.payload.clone(),
            headers,
        })
    }
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
    fn a_replayed_record_has_its_own_headers_and_the_id_of_its_letter() {
        let letter = Letter::read(record(&[
            (header::TOPIC, "forged"),
            ("trace", "1"),
            (header::REPLAYED_FROM, "0-2"),
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
        assert_eq!(headers, [("trace", &b"1"[..]), (header::REPLAYED_FROM, &b"0-7"[..])]);
    }

    #[test]
    fn an_incomplete_letter_cannot_be_replayed() {
        let foreign = Letter::read(record(&[("trace", "1")]));
        assert!(matches!(foreign.original(), Err(Error::NotReplayable { .. })));
        let from = [(header::TOPIC, "t"), (header::PARTITION, "0")];
        assert!(Letter::read(record(&from)).original().is_ok());
        let omitted = [from[0], from[1], (header::OMITTED, "2000000")];
        assert!(matches!(Letter::read(record(&omitted)).original(), Err(Error::NotReplayable { .. })));
    }
}
