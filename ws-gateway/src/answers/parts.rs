//! Splits an answer with a long list into frames.

use super::Answer;
use crate::codec::Format;
use abi::{
    envelope::{bytes_field_len, put_bytes, put_number},
    v1::{ChangesPage, EntriesPage, HeadsPage, ServerFrame, server_frame::Frame},
};
use axum::extract::ws::Message;
use bytes::{Bytes, BytesMut};
use prost::{DecodeError, Message as _};
use std::mem;

/// Bytes of a frame beside its list, at most: keys, lengths, id and flags. The profile and the blocked users of a page of changes
/// are not part of the list.
const OVERHEAD: usize = 256;

// Field numbers of the contract. A test compares the frames with the generated code.
const ID: u32 = 1;
const CHANGES: u32 = 5;
const HISTORY: u32 = 6;
const HEADS: u32 = 10;
const MORE_PARTS: u32 = 50;

/// The frames of an answer, each encoded on demand.
pub(super) struct Parts {
    id: u32,
    rest: Option<Answer>,
    format: Format,
    max_frame: usize,
    continues: bool,
}

impl Parts {
    /// Splits `answer` into frames of at most `max_frame` bytes, except that a single item is never split. `continues`: the answer
    /// has more frames after these.
    pub(super) fn new(id: u32, answer: Answer, format: Format, max_frame: usize, continues: bool) -> Self {
        Self { id, rest: Some(answer), format, max_frame, continues }
    }

    /// Whether there is another frame.
    pub(super) fn has_next(&self) -> bool {
        self.rest.is_some()
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Option<Message> {
        let mut rest = self.rest.take()?;
        let mut budget = self.max_frame.saturating_sub(OVERHEAD);
        loop {
            let left = split(&mut rest, budget);
            let more_parts = self.continues || left.is_some();
            let message = encode(self.id, &rest, self.format, more_parts);
            if size(&message) <= self.max_frame || items(&mut rest).is_none_or(|items| items.len() <= 1) {
                self.rest = left;
                return Some(message);
            }
            // JSON is larger than the estimate, which counts protobuf.
            rest = join(rest, left);
            budget /= 2;
        }
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => 0,
    }
}

/// The list of an answer, if it has one.
fn items(answer: &mut Answer) -> Option<&mut Vec<Bytes>> {
    match answer {
        Answer::Frame(_) => None,
        Answer::History(page) => Some(&mut page.entries),
        Answer::Changes(page) => Some(&mut page.heads),
        Answer::Heads(page) => Some(&mut page.heads),
    }
}

/// Splits an answer: leaves as many items as have about `budget` bytes, at least one, and returns the rest if there is any. What
/// follows the list (whether there are more, the cursor) goes with the last part.
fn split(answer: &mut Answer, budget: usize) -> Option<Answer> {
    let left = split_list(items(answer)?, budget);
    if left.is_empty() {
        return None;
    }
    Some(match answer {
        Answer::Frame(_) => return None,
        Answer::History(page) => {
            Answer::History(EntriesPage { entries: left, more: mem::take(&mut page.more) })
        }
        Answer::Heads(page) => Answer::Heads(HeadsPage { heads: left, next: mem::take(&mut page.next) }),
        Answer::Changes(page) => Answer::Changes(ChangesPage {
            receiver_seq: page.receiver_seq,
            everything: page.everything,
            heads: left,
            profile: page.profile.take(),
            blocks: page.blocks.take(),
            next: mem::take(&mut page.next),
        }),
    })
}

/// Keeps the first items, of about `budget` bytes and at least one. Returns the others.
fn split_list(items: &mut Vec<Bytes>, budget: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let mut fits = |item: &Bytes| {
        bytes += bytes_field_len(1, item.len());
        bytes <= budget
    };
    let count = items.iter().take_while(|item| fits(item)).count();
    items.split_off(count.max(1).min(items.len()))
}

/// The opposite of [`split`].
fn join(mut part: Answer, rest: Option<Answer>) -> Answer {
    let Some(mut rest) = rest else { return part };
    if let (Some(first), Some(last)) = (items(&mut part), items(&mut rest)) {
        first.append(last);
        mem::swap(first, last);
    }
    rest
}

fn encode(id: u32, answer: &Answer, format: Format, more_parts: bool) -> Message {
    let (field, page) = match answer {
        Answer::Frame(frame) => {
            return format.encode(&ServerFrame { id, more_parts, frame: Some(frame.clone()) });
        }
        Answer::History(page) => (HISTORY, page.encode_to_vec()),
        Answer::Changes(page) => (CHANGES, page.encode_to_vec()),
        Answer::Heads(page) => (HEADS, page.encode_to_vec()),
    };
    match format {
        Format::Proto => {
            let mut frame = BytesMut::with_capacity(page.len() + 16);
            put_number(ID, id.into(), &mut frame);
            put_bytes(field, &page, &mut frame);
            put_number(MORE_PARTS, more_parts.into(), &mut frame);
            Message::Binary(frame.freeze())
        }
        Format::Json => {
            // The items are encoded messages: a page of them has the same bytes as the page for devices.
            let frame = decode(answer, page.into()).unwrap_or_else(|error| {
                tracing::error!(%error, "cannot decode stored entries or heads");
                Frame::Error(abi::v1::Error {
                    code: abi::v1::ErrorCode::Internal.into(),
                    message: "the server cannot read stored entries; see its log".into(),
                    retry_after_ms: 0,
                })
            });
            format.encode(&ServerFrame { id, more_parts, frame: Some(frame) })
        }
    }
}

fn decode(answer: &Answer, page: Bytes) -> Result<Frame, DecodeError> {
    Ok(match answer {
        Answer::Frame(frame) => frame.clone(),
        Answer::History(_) => Frame::History(prost::Message::decode(page)?),
        Answer::Changes(_) => Frame::Changes(prost::Message::decode(page)?),
        Answer::Heads(_) => Frame::Heads(prost::Message::decode(page)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Blocks, Content, Entry, Head, Pong, Profile, content::Body};
    use proptest::prelude::*;

    fn entry(text: &str) -> Bytes {
        let content = Content { content_type: String::new(), body: Some(Body::Text(text.into())) };
        Entry { content: Some(content), ..Entry::default() }.encode_to_vec().into()
    }

    fn head(text: &str) -> Bytes {
        Head { name: text.into(), ..Head::default() }.encode_to_vec().into()
    }

    fn len(frame: &Frame) -> usize {
        match frame {
            Frame::History(page) => page.entries.len(),
            Frame::Changes(page) => page.heads.len(),
            Frame::Heads(page) => page.heads.len(),
            _ => 0,
        }
    }

    /// The parts as frames.
    fn parts(answer: &Answer, format: Format, max_frame: usize, continues: bool) -> Vec<ServerFrame> {
        let mut parts = Parts::new(7, answer.clone(), format, max_frame, continues);
        let mut frames = Vec::new();
        while let Some(message) = parts.next() {
            let frame: ServerFrame = match &message {
                Message::Text(text) => serde_json::from_str(text).unwrap(),
                Message::Binary(bytes) => ServerFrame::decode(bytes.clone()).unwrap(),
                other => panic!("not a frame: {other:?}"),
            };
            let is_single = frame.frame.as_ref().is_some_and(|frame| len(frame) <= 1);
            assert!(size(&message) <= max_frame || is_single, "{} bytes", size(&message));
            assert_eq!((frame.id, frame.more_parts), (7, continues || parts.has_next()));
            frames.push(frame);
        }
        frames
    }

    /// What a device makes of the parts.
    fn joined(frames: Vec<ServerFrame>) -> Frame {
        let join = |all, part| match (all, part) {
            (Frame::History(mut all), Frame::History(part)) => {
                all.entries.extend(part.entries);
                Frame::History(abi::v1::HistoryPage { more: part.more, ..all })
            }
            (Frame::Changes(mut all), Frame::Changes(part)) => {
                all.heads.extend(part.heads);
                Frame::Changes(abi::v1::Changes { heads: all.heads, ..part })
            }
            (Frame::Heads(mut all), Frame::Heads(part)) => {
                all.heads.extend(part.heads);
                Frame::Heads(all)
            }
            (_, other) => panic!("not a part: {other:?}"),
        };
        frames.into_iter().map(|frame| frame.frame.unwrap()).reduce(join).unwrap()
    }

    proptest! {
        #[test]
        fn p7_the_parts_of_an_answer_are_small_and_have_all_items(
            texts in proptest::collection::vec("[a-z\u{1}\u{e9}]{0,400}", 0..40), more: bool, continues: bool, max_frame in 600usize..4_000,
        ) {
            let (entries, heads) = (texts.iter().map(|text| entry(text)).collect(), texts.iter().map(|text| head(text)).collect::<Vec<_>>());
            let changes = ChangesPage {
                receiver_seq: Some(abi::v1::ReceiverSeq { epoch: 1, seq: 2 }),
                everything: true,
                heads: heads.clone(),
                profile: Some(Profile { user: "alice".into(), ..Profile::default() }),
                blocks: Some(Blocks { users: vec!["bob".into()], more: false }),
                next: "next".into(),
            };
            let answers = [
                Answer::History(EntriesPage { entries, more }),
                Answer::Changes(changes),
                Answer::Heads(HeadsPage { heads, next: String::new() }),
            ];
            for answer in answers {
                let whole = match &answer {
                    Answer::History(page) => decode(&answer, page.encode_to_vec().into()),
                    Answer::Changes(page) => decode(&answer, page.encode_to_vec().into()),
                    Answer::Heads(page) => decode(&answer, page.encode_to_vec().into()),
                    Answer::Frame(_) => unreachable!("not in the list"),
                };
                for format in [Format::Proto, Format::Json] {
                    prop_assert_eq!(&joined(parts(&answer, format, max_frame, continues)), whole.as_ref().unwrap());
                }
            }
        }
    }

    #[test]
    fn an_answer_without_a_list_is_one_frame() {
        let pong = Answer::Frame(Frame::Pong(Pong::default()));
        assert_eq!(parts(&pong, Format::Proto, 300, false).len(), 1);
        let empty = Answer::History(EntriesPage::default());
        assert_eq!(parts(&empty, Format::Json, 300, false).len(), 1);
    }
}
