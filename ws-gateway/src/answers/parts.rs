//! Splits an answer with a long list into frames.

use crate::codec::Format;
use abi::v1::{HeadsPage, HistoryPage, ServerFrame, server_frame::Frame};
use axum::extract::ws::Message;

/// Bytes of a frame beside its list, at most: keys, lengths, id and flags.
const OVERHEAD: usize = 256;

/// The frames of an answer, each encoded on demand.
pub(super) struct Parts {
    id: u32,
    rest: Option<Frame>,
    format: Format,
    max_frame: usize,
    continues: bool,
}

impl Parts {
    /// Splits `frame` into frames of at most `max_frame` bytes, except that a single item is never split. `continues`: the answer
    /// has more frames after these.
    pub(super) fn new(id: u32, frame: Frame, format: Format, max_frame: usize, continues: bool) -> Self {
        Self { id, rest: Some(frame), format, max_frame, continues }
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
            let (part, left) = split(rest, budget);
            let more_parts = self.continues || left.is_some();
            let frame = ServerFrame { id: self.id, frame: Some(part), more_parts };
            let message = self.format.encode(&frame);
            if size(&message) <= self.max_frame || frame.frame.as_ref().is_none_or(|part| len(part) <= 1) {
                self.rest = left;
                return Some(message);
            }
            // JSON is larger than the estimate, which counts protobuf.
            rest = join(frame.frame.expect("it was set above"), left);
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

/// Number of items in the list of an answer; 0 for an answer without one.
fn len(frame: &Frame) -> usize {
    match frame {
        Frame::Heads(page) => page.heads.len(),
        Frame::History(page) => page.entries.len(),
        _ => 0,
    }
}

/// Splits an answer: as many items as have about `budget` bytes, at least one, and the rest if there is any.
fn split(frame: Frame, budget: usize) -> (Frame, Option<Frame>) {
    match frame {
        Frame::Heads(HeadsPage { mut heads, more }) => {
            let rest = split_list(&mut heads, budget);
            let is_last = rest.is_empty();
            let rest = (!is_last).then(|| Frame::Heads(HeadsPage { heads: rest, more }));
            (Frame::Heads(HeadsPage { heads, more: more && is_last }), rest)
        }
        Frame::History(HistoryPage { mut entries, more }) => {
            let rest = split_list(&mut entries, budget);
            let is_last = rest.is_empty();
            let rest = (!is_last).then(|| Frame::History(HistoryPage { entries: rest, more }));
            (Frame::History(HistoryPage { entries, more: more && is_last }), rest)
        }
        other => (other, None),
    }
}

/// Keeps the first items, of about `budget` bytes and at least one. Returns the others.
fn split_list<T: prost::Message>(items: &mut Vec<T>, budget: usize) -> Vec<T> {
    let mut bytes = 0;
    let mut fits = |item: &T| {
        let length = item.encoded_len();
        bytes += 1 + prost::length_delimiter_len(length) + length;
        bytes <= budget
    };
    let count = items.iter().take_while(|item| fits(item)).count();
    items.split_off(count.max(1).min(items.len()))
}

/// The opposite of [`split`].
fn join(part: Frame, rest: Option<Frame>) -> Frame {
    match (part, rest) {
        (Frame::Heads(mut page), Some(Frame::Heads(rest))) => {
            page.heads.extend(rest.heads);
            Frame::Heads(HeadsPage { more: rest.more, ..page })
        }
        (Frame::History(mut page), Some(Frame::History(rest))) => {
            page.entries.extend(rest.entries);
            Frame::History(HistoryPage { more: rest.more, ..page })
        }
        (part, _) => part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Entry, Head, entry::Content, message::Body};
    use proptest::prelude::*;
    use prost::Message as _;

    fn entry(text: String) -> Entry {
        let message = abi::v1::Message { content_type: String::new(), body: Some(Body::Text(text)) };
        Entry { content: Some(Content::Message(message)), ..Entry::default() }
    }

    /// The parts as frames.
    fn parts(frame: &Frame, format: Format, max_frame: usize, continues: bool) -> Vec<ServerFrame> {
        let mut parts = Parts::new(7, frame.clone(), format, max_frame, continues);
        let mut frames = Vec::new();
        while let Some(message) = parts.next() {
            let frame: ServerFrame = match &message {
                Message::Text(text) => serde_json::from_str(text).unwrap(),
                Message::Binary(bytes) => ServerFrame::decode(bytes.clone()).unwrap(),
                other => panic!("not a frame: {other:?}"),
            };
            let is_single = frame.frame.as_ref().is_some_and(|frame| len(frame) == 1);
            assert!(size(&message) <= max_frame || is_single, "{} bytes", size(&message));
            assert_eq!((frame.id, frame.more_parts), (7, continues || parts.has_next()));
            frames.push(frame);
        }
        frames
    }

    fn joined(frames: Vec<ServerFrame>) -> Frame {
        frames
            .into_iter()
            .map(|frame| frame.frame.unwrap())
            .reduce(|all, part| join(all, Some(part)))
            .unwrap()
    }

    proptest! {
        #[test]
        fn p7_the_parts_of_an_answer_are_small_and_have_all_items(
            texts in proptest::collection::vec("[a-z\u{1}\u{e9}]{0,400}", 0..40), more: bool, continues: bool, max_frame in 300usize..4_000,
        ) {
            let heads = texts.iter().map(|text| Head { name: text.clone(), ..Head::default() }).collect();
            let entries = texts.into_iter().map(entry).collect();
            let answers = [Frame::History(HistoryPage { entries, more }), Frame::Heads(HeadsPage { heads, more })];
            for answer in answers {
                for format in [Format::Proto, Format::Json] {
                    prop_assert_eq!(&joined(parts(&answer, format, max_frame, continues)), &answer);
                }
            }
        }
    }

    #[test]
    fn an_answer_without_a_list_is_one_frame() {
        let pong = Frame::Pong(abi::v1::Pong::default());
        assert_eq!(parts(&pong, Format::Proto, 300, false).len(), 1);
        let empty = Frame::History(HistoryPage::default());
        assert_eq!(parts(&empty, Format::Json, 300, false).len(), 1);
    }
}
