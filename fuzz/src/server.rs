//! Frames and answers that a server, or an attacker in its place, sends to the SDK.

use abi::v1::{ServerFrame, server_frame::Frame};
use bytes::Bytes;
use client::{
    State, codec,
    http::{Api, Tokens},
    sync::{Change, PAGE, Request, Start, Sync},
    tokens::SessionTokens,
};
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};

/// The input is a script. The first byte selects where the device starts. Then come steps, each with a byte for its kind: a frame,
/// the capacity of the application, a request, or the loss of all answers.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    let Some(start) = crate::byte(&mut rest) else { return };
    let mut device = Device::new(if start % 2 == 0 { Start::Beginning } else { Start::Now });
    while let Some(kind) = crate::byte(&mut rest) {
        match kind % 8 {
            0 => device.room = usize::from(kind) * 8,
            1 => device.send_requests(),
            2 => device.lose_answers(),
            _ => match crate::part(&mut rest) {
                Some(bytes) => device.frame(Bytes::copy_from_slice(bytes)),
                None => break,
            },
        }
        device.check_state();
    }
}

/// The input is the answer to a log-in, as JSON.
pub fn log_in(data: &[u8]) {
    let Ok(tokens) = serde_json::from_slice::<Tokens>(data) else { return };
    let shown = format!("{tokens:?}");
    let server = client::Server::parse("127.0.0.1:1").expect("a valid address");
    let names = format!("{:?} {:?} {:?}", tokens.user, tokens.device, tokens.session);
    let is_short = tokens.access_token.len() < 8;
    assert!(is_short || names.contains(&tokens.access_token) || !shown.contains(&tokens.access_token));
    SessionTokens::new(Api::new(server), tokens);
}

struct Device {
    sync: Sync,
    /// Most entries that the application accepts at a time.
    room: usize,
    /// Unanswered requests.
    pending: VecDeque<Request>,
    /// The last conversation_seq of each conversation that the application got.
    delivered: BTreeMap<String, u64>,
}

impl Device {
    fn new(start: Start) -> Self {
        Self {
            sync: Sync::new(State::default(), start),
            room: 10 * PAGE,
            pending: VecDeque::new(),
            delivered: BTreeMap::new(),
        }
    }

    fn frame(&mut self, bytes: Bytes) {
        let frame = match codec::decode(bytes.clone()) {
            Ok(frame) => frame,
            Err(error) => return crate::check_sentence(&error.to_string()),
        };
        let encoded = frame.encode_to_vec();
        crate::check_size(bytes.len(), encoded.len());
        assert_eq!(codec::decode(encoded.into()).expect("an encoded frame can be decoded"), frame);
        let json = serde_json::to_string(&frame).expect("a frame has a JSON form");
        assert_eq!(
            serde_json::from_str::<ServerFrame>(&json).expect("the JSON of a frame can be parsed"),
            frame
        );
        let mut out = Vec::new();
        match frame.frame {
            Some(Frame::Welcome(welcome)) => {
                self.pending.clear();
                self.sync.on_generation(welcome.generation, welcome.generation_before);
                self.sync.on_welcome(welcome.receiver_seq);
            }
            Some(Frame::Pong(pong)) => self.sync.on_seq(pong.receiver_seq),
            Some(Frame::Deliver(deliver)) => {
                self.sync.on_deliver(deliver, self.room, &mut out);
                assert!(out.len() <= self.room, "more changes than the application has room for");
            }
            Some(Frame::Changes(page)) => {
                if self.take_pending(|request| matches!(request, Request::Changes { .. })).is_some() {
                    self.sync.on_changes(page, self.room, &mut out);
                }
            }
            Some(Frame::History(page)) => {
                if let Some(Request::History { conversation, .. }) =
                    self.take_pending(|request| matches!(request, Request::History { .. }))
                {
                    self.sync.on_history(&conversation, page, &mut out);
                }
            }
            Some(Frame::Error(error)) => {
                let error = abi::ApiError::from(error);
                assert!(error.close_reason().len() <= 123);
                if let Some(request) = self.pending.pop_front() {
                    self.sync.on_failed(&request, &error);
                }
            }
            // Answers to requests that this device does not send, and signals.
            Some(_) | None => {}
        }
        self.deliver(out);
    }

    /// Removes and returns the first pending request that `is` selects.
    fn take_pending(&mut self, is: impl Fn(&Request) -> bool) -> Option<Request> {
        let index = self.pending.iter().position(is)?;
        self.pending.remove(index)
    }

    /// Checks that the application gets every entry once and in order, for any behaviour of the server.
    fn deliver(&mut self, changes: Vec<Change>) {
        if let Some((_, kept)) = self.sync.take_restored() {
            // The server was restored from a backup: later entries get their numbers again.
            self.delivered.retain(|conversation, last| {
                kept.get(conversation).is_none_or(|kept| {
                    *last = (*kept).min(*last);
                    *last > 0
                })
            });
        }
        for change in changes {
            let Change::Entry(entry) = change else { continue };
            let last = self.delivered.insert(entry.conversation.clone(), entry.conversation_seq);
            assert!(last < Some(entry.conversation_seq), "{last:?} followed by {}", entry.conversation_seq);
            assert!(self.sync.position(&entry.conversation) >= Some(entry.conversation_seq));
        }
    }

    fn send_requests(&mut self) {
        while let Some(request) = self.sync.next_request(self.room) {
            self.pending.push_back(request);
            assert!(self.pending.len() <= 5, "more than one page of changes and four of history at a time");
        }
    }

    fn lose_answers(&mut self) {
        let error = abi::ApiError::unavailable("lost");
        for request in self.pending.drain(..) {
            self.sync.on_failed(&request, &error);
        }
    }

    fn check_state(&mut self) {
        self.sync.take_baseline();
        let idle = self.sync.is_idle();
        if self.sync.advance().is_some() {
            assert!(self.sync.have().is_some() && (idle || !self.sync.is_idle()));
            assert!(self.pending.is_empty(), "the sync is complete although requests are pending");
        }
    }
}
