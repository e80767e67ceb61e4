//! Answers in parts.

use crate::Error;
use abi::v1::{ServerFrame, server_frame::Frame};
use std::collections::HashMap;

/// Most bytes of all incomplete answers together.
const MAX_BYTES: usize = 32 << 20;

/// Joins the parts of answers. A long answer comes in several frames, between which other frames may arrive.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// By id: the parts so far, and their bytes.
    incomplete: HashMap<u32, (Frame, usize)>,
    bytes: usize,
}

impl Parts {
    /// Adds a frame that had a size in bytes. Returns the whole answer with its last part, and any other frame at once.
    ///
    /// # Errors
    /// [`Error::Protocol`]: the parts do not fit together, or are too large.
    pub(crate) fn add(&mut self, mut frame: ServerFrame, size: usize) -> Result<Option<ServerFrame>, Error> {
        if !frame.more_parts && self.incomplete.is_empty() {
            return Ok(Some(frame));
        }
        let is_part = frame.more_parts || self.incomplete.contains_key(&frame.id);
        if frame.id == 0 || !is_part {
            return Ok(Some(frame));
        }
        let content = frame.frame.take();
        let (first, bytes) = self.incomplete.remove(&frame.id).unzip();
        let bytes = bytes.unwrap_or_default();
        let joined = match (first, content) {
            (None, content) => content,
            // An error ends the answer.
            (Some(_), Some(Frame::Error(error))) => Some(Frame::Error(error)),
            (Some(first), Some(next)) => Some(join(first, next)?),
            (Some(_), None) => return Err(Error::Protocol("a part of an answer is empty".into())),
        };
        if !frame.more_parts {
            self.bytes -= bytes;
            if self.incomplete.is_empty() {
                // Frees the allocation.
                self.incomplete = HashMap::new();
            }
            return Ok(Some(ServerFrame { frame: joined, ..frame }));
        }
        self.bytes += size;
        if self.bytes > MAX_BYTES {
            return Err(Error::Protocol(format!("the parts of an answer have more than {MAX_BYTES} bytes")));
        }
        self.incomplete.extend(joined.map(|joined| (frame.id, (joined, bytes + size))));
        Ok(None)
    }
}

/// Joins the lists of two parts. All else is taken from the later one.
fn join(first: Frame, next: Frame) -> Result<Frame, Error> {
    match (first, next) {
        (Frame::Heads(mut first), Frame::Heads(next)) => {
            first.heads.extend(next.heads);
            first.more = next.more;
            Ok(Frame::Heads(first))
        }
        (Frame::History(mut first), Frame::History(next)) => {
            first.entries.extend(next.entries);
            first.more = next.more;
            Ok(Frame::History(first))
        }
        _ => Err(Error::Protocol("the parts of an answer do not fit together".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{
        ApiError,
        v1::{Entry, HistoryPage, Pong},
    };

    fn part(id: u32, seqs: &[u64], more: bool, more_parts: bool) -> ServerFrame {
        let entry = |seq: &u64| Entry { conversation_seq: *seq, ..Entry::default() };
        let page = HistoryPage { entries: seqs.iter().map(entry).collect(), more };
        ServerFrame { id, frame: Some(Frame::History(page)), more_parts }
    }

    #[test]
    fn parts_of_several_answers_are_joined_and_other_frames_pass() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(part(1, &[1, 2], false, true), 9).unwrap(), None);
        assert_eq!(parts.add(part(2, &[7], false, true), 9).unwrap(), None);
        let pong = ServerFrame { id: 3, frame: Some(Frame::Pong(Pong::default())), ..ServerFrame::default() };
        assert_eq!(parts.add(pong.clone(), 9).unwrap(), Some(pong));
        assert_eq!(parts.add(part(1, &[3], false, true), 9).unwrap(), None);
        let whole = part(1, &[1, 2, 3, 4], true, false);
        assert_eq!(parts.add(part(1, &[4], true, false), 9).unwrap(), Some(whole));
        let error = Frame::Error(ApiError::unavailable("not now").into());
        let failed = ServerFrame { id: 2, frame: Some(error), ..ServerFrame::default() };
        assert_eq!(parts.add(failed.clone(), 9).unwrap(), Some(failed));
        assert_eq!(parts.add(part(2, &[9], false, false), 9).unwrap(), Some(part(2, &[9], false, false)));
    }

    #[test]
    fn p7_parts_that_do_not_fit_or_never_end_are_refused() {
        let mut parts = Parts::default();
        parts.add(part(1, &[1], false, true), 9).unwrap();
        let pong = Frame::Pong(Pong::default());
        let stray = ServerFrame { id: 1, frame: Some(pong), ..ServerFrame::default() };
        assert!(matches!(parts.add(stray, 9), Err(Error::Protocol(_))));
        let mut parts = Parts::default();
        parts.add(part(1, &[1], false, true), MAX_BYTES).unwrap();
        assert!(matches!(parts.add(part(1, &[2], false, true), 1), Err(Error::Protocol(_))));
    }
}
