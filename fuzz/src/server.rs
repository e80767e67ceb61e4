//! What a server, or whoever is in its place, may send to a device of the SDK.

use abi::v1::{Entry, ServerFrame, server_frame::Frame};
use bytes::Bytes;
use client::{
    State, codec,
    http::{Api, Tokens},
    sync::{PAGE, Request, Start, Sync},
    tokens::SessionTokens,
};
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};

/// The first byte says where the device begins; then parts follow, each with a byte that says what it is: a frame, a new
/// connection, or the application at work.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    let Some(start) = crate::byte(&mut rest) else { return };
    let mut device = Device::new(if start % 2 == 0 { Start::Beginning } else { Start::Now });
    while let Some(kind) = crate::byte(&mut rest) {
        match kind % 8 {
            0 => device.room = usize::from(kind) * 8,
            1 => device.ask(),
            2 => device.answers_get_lost(),
            _ => match crate::part(&mut rest) {
                Some(bytes) => device.frame(Bytes::copy_from_slice(bytes)),
                None => break,
            },
        }
        device.look();
    }
}

/// The answer to a log-in, as JSON.
pub fn log_in(data: &[u8]) {
    let Ok(tokens) = serde_json::from_slice::<Tokens>(data) else { return };
    let shown = format!("{tokens:?}");
    let server = client::Server::parse("127.0.0.1:1").expect("an address");
    let names = format!("{:?} {:?} {:?}", tokens.user, tokens.device, tokens.session);
    let is_short = tokens.access_token.len() < 8;
    assert!(is_short || names.contains(&tokens.access_token) || !shown.contains(&tokens.access_token));
    SessionTokens::new(Api::new(server), tokens);
}

struct Device {
    sync: Sync,
    /// Entries that the application has room for.
    room: usize,
    asked: VecDeque<Request>,
    /// Up to where each conversation was handed over.
    seen: BTreeMap<String, u64>,
}

impl Device {
    fn new(start: Start) -> Self {
        Self {
            sync: Sync::new(State::default(), start),
            room: 10 * PAGE,
            asked: VecDeque::new(),
            seen: BTreeMap::new(),
        }
    }

    fn frame(&mut self, bytes: Bytes) {
        let frame = match codec::decode(bytes.clone()) {
            Ok(frame) => frame,
            Err(error) => return crate::is_sentence(&error.to_string()),
        };
        let written = frame.encode_to_vec();
        crate::has_not_grown(bytes.len(), written.len());
        assert_eq!(codec::decode(written.into()).expect("what was written can be read"), frame);
        // JSON has no name for a value of a later version.
        if let Ok(json) = serde_json::to_string(&frame) {
            assert_eq!(serde_json::from_str::<ServerFrame>(&json).expect("it can be read"), frame);
        }
        let mut out = Vec::new();
        match frame.frame {
            Some(Frame::Welcome(welcome)) => {
                self.asked.clear();
                self.sync.on_welcome(welcome.receiver_seq);
            }
            Some(Frame::Pong(pong)) => self.sync.on_seq(pong.receiver_seq),
            Some(Frame::Deliver(deliver)) => {
                let count = deliver.entries.len();
                self.sync.on_deliver(deliver, self.room, &mut out);
                assert!(out.len() <= count.min(self.room), "more than there is room for");
            }
            Some(Frame::Heads(page)) => {
                if self.answers(|request| matches!(request, Request::Heads { .. })).is_some() {
                    self.sync.on_heads(page);
                }
            }
            Some(Frame::History(page)) => {
                if let Some(Request::History { conversation, .. }) =
                    self.answers(|request| matches!(request, Request::History { .. }))
                {
                    self.sync.on_history(&conversation, page, &mut out);
                }
            }
            Some(Frame::Error(error)) => {
                let fault = abi::ApiError::from(error);
                assert!(fault.close_reason().len() <= 123);
                if let Some(request) = self.asked.pop_front() {
                    self.sync.on_failed(&request, &fault);
                }
            }
            Some(Frame::Ack(_) | Frame::Read(_) | Frame::Receipt(_)) | None => {}
        }
        self.take(out);
    }

    fn answers(&mut self, is: impl Fn(&Request) -> bool) -> Option<Request> {
        let index = self.asked.iter().position(is)?;
        self.asked.remove(index)
    }

    /// Each entry comes once and in order, whatever the server does.
    fn take(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let last = self.seen.insert(entry.conversation.clone(), entry.conversation_seq);
            assert!(last < Some(entry.conversation_seq), "{last:?} and then {}", entry.conversation_seq);
            assert!(self.sync.position(&entry.conversation) >= Some(entry.conversation_seq));
        }
    }

    fn ask(&mut self) {
        while let Some(request) = self.sync.next_request(self.room) {
            self.asked.push_back(request);
            assert!(self.asked.len() <= 5, "one page of heads and four of history at a time");
        }
    }

    fn answers_get_lost(&mut self) {
        let fault = abi::ApiError::unavailable("lost");
        for request in self.asked.drain(..) {
            self.sync.on_failed(&request, &fault);
        }
    }

    fn look(&mut self) {
        self.sync.take_baseline();
        let idle = self.sync.is_idle();
        if self.sync.settle().is_some() {
            assert!(self.sync.have().is_some() && (idle || !self.sync.is_idle()));
            assert!(self.asked.is_empty(), "complete, while something is being asked for");
        }
    }
}
