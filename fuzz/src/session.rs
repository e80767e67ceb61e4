//! Complete connections to a gateway from `hello` to close, without a socket: decoding, the protocol and the backend.

use crate::{
    gateway::Gateway,
    tokens::{VALID, alice},
};
use abi::{
    ApiError,
    v1::{ClientFrame, Hello, Send, ServerFrame, client_frame, server_frame::Frame},
};
use axum::extract::ws::Message;
use bytes::Bytes;
use prost::Message as _;
use std::{
    cell::RefCell,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;
use ws_gateway::{
    answers,
    codec::Format,
    hub::Connection,
    outbox::{Encoded, Outbox, Outgoing, SendId, Taken},
    protocol::{Protocol, Step},
    send,
};

thread_local! {
    static GATEWAY: RefCell<Gateway> = RefCell::default();
}

/// The input is a script. The first byte selects the wire format. Then come steps, each with a byte for its kind: a frame, a
/// `hello`, a control frame, or a wait.
pub fn script(data: &[u8]) {
    GATEWAY.with_borrow(|gateway| {
        let _entered = gateway.runtime.enter();
        let mut rest = data;
        let Some(format) = crate::byte(&mut rest) else { return };
        let mut device = Device::new(gateway, if format % 2 == 0 { Format::Proto } else { Format::Json });
        while let Some(kind) = crate::byte(&mut rest)
            && device.is_open()
        {
            match kind % 8 {
                0 => device.wait(crate::byte(&mut rest)),
                1 => device.hello(),
                2 => device.protocol.on_sign_of_life(device.now),
                _ => match crate::part(&mut rest) {
                    Some(bytes) => device.frame(bytes),
                    None => break,
                },
            }
        }
        device.goodbye();
    });
}

struct Device<'a> {
    gateway: &'a Gateway,
    format: Format,
    protocol: Protocol,
    now: Instant,
    outbox: Arc<Outbox>,
    connection: Option<Arc<Connection>>,
    /// The ids of the acknowledged messages.
    acked: Vec<String>,
    closed: bool,
}

impl<'a> Device<'a> {
    fn new(gateway: &'a Gateway, format: Format) -> Self {
        let now = Instant::now();
        Self {
            gateway,
            format,
            protocol: Protocol::new(gateway.backend.settings().clone(), now),
            now,
            outbox: Arc::new(Outbox::new(
                gateway.backend.limits().max_outbox,
                gateway.backend.connections().hub().memory().clone(),
            )),
            connection: None,
            acked: Vec::new(),
            closed: false,
        }
    }

    /// Whether the connection is open. Every earlier frame was answered, so an open connection can read.
    fn is_open(&self) -> bool {
        assert_eq!(self.protocol.identity().is_some(), self.connection.is_some());
        assert!(self.closed || self.protocol.can_read());
        !self.closed
    }

    fn wait(&mut self, seconds: Option<u8>) {
        let due = self.protocol.deadline();
        self.now += Duration::from_secs(seconds.unwrap_or(0).into());
        let step = self.protocol.on_time(self.now);
        assert_eq!(step.is_some(), due <= self.now, "{step:?} at {:?} before the deadline", due - self.now);
        if let Some(step) = step {
            assert!(matches!(step, Step::Renew | Step::Recheck | Step::Close(_)));
            self.perform(step, 0);
        }
    }

    fn hello(&mut self) {
        let hello = Hello { token: VALID.clone(), ..Hello::default() };
        let frame = ClientFrame { id: 1, frame: Some(client_frame::Frame::Hello(hello)) };
        let step = self.protocol.on_frame(Ok(frame), self.now).expect("nothing waits");
        self.perform(step, 1);
    }

    fn frame(&mut self, bytes: &[u8]) {
        let message = match (self.format, std::str::from_utf8(bytes)) {
            (Format::Json, Ok(text)) => Message::Text(text.into()),
            _ => Message::Binary(Bytes::copy_from_slice(bytes)),
        };
        let frame = self.format.decode(&message);
        let id = frame.as_ref().map_or_else(|error| error.id, |frame| frame.id);
        let step =
            self.protocol.on_frame(frame, self.now).expect("nothing waits: every step is done at once");
        self.perform(step, id);
        assert_eq!(self.protocol.next_step(), None);
    }

    /// Does the work of the socket's task. Checks that every request gets one answer, with its id; with id 0 only an error.
    fn perform(&mut self, step: Step, id: u32) {
        let mut answers = 1;
        let backend = Arc::clone(&self.gateway.backend);
        match (step, self.connection.clone()) {
            (Step::Close(error), _) => return self.close(&error),
            (Step::Refuse(refused, error), Some(_)) => {
                assert_eq!(refused, id);
                answers::refuse(self.connection.as_deref().expect("matched"), id, error);
            }
            (Step::Authenticate(_, hello), None) => {
                let welcome = backend.connections().open(hello, self.format, self.outbox.clone());
                match self.gateway.runtime.block_on(welcome) {
                    Ok((connection, welcome)) => {
                        assert_eq!(connection.identity, alice(), "the token names another device");
                        self.protocol.welcomed(connection.identity.clone(), self.now);
                        self.connection = Some(connection);
                        let frame = Frame::Welcome(welcome);
                        let frame = ServerFrame { id, frame: Some(frame), ..ServerFrame::default() };
                        let frame = Encoded::own(self.format.encode(&frame));
                        self.outbox.push_first(Outgoing::Encoded(frame));
                    }
                    Err(error) => return self.close(&error),
                }
            }
            (Step::Send(send_id, message), Some(connection)) => {
                assert_eq!(send_id.id, id);
                self.send(&connection, send_id, message);
            }
            (Step::Answer(answered, request), Some(connection)) => {
                assert_eq!(answered, id);
                let is_ping = request.is_ping();
                self.gateway.runtime.block_on(answers::answer(&backend, &connection, id, request));
                self.protocol.answered(id, is_ping);
                if id == 0 {
                    answers = self.drain(id);
                    assert!(answers <= 1);
                    return;
                }
            }
            (Step::Renew, Some(connection)) => {
                self.gateway
                    .runtime
                    .block_on(backend.connections().renew(&connection))
                    .expect("the memory cache does not fail");
                answers = 0;
            }
            (Step::Recheck, Some(connection)) => {
                self.gateway
                    .runtime
                    .block_on(backend.authentication().check_session(&connection.identity))
                    .expect("the fake store accepts every call");
                answers = 0;
            }
            (step, connection) => panic!("{step:?} with {connection:?}"),
        }
        assert_eq!(self.drain(id), answers, "answers to frame {id}");
    }

    /// Sends a message and waits for its outcome: a task acknowledges a message to a group.
    fn send(&mut self, connection: &Arc<Connection>, id: SendId, message: Send) {
        let Gateway { runtime, backend, .. } = self.gateway;
        self.outbox.begin_send(0);
        let sent = runtime.block_on(send::send(backend, connection, id, message));
        self.protocol.sent(id, sent.as_ref().err());
        if let Err(error) = sent {
            connection.outbox.push(Outgoing::Sent { id, result: Err(error) });
        }
        while backend.request_tasks().running() > 0 {
            runtime.block_on(tokio::time::sleep(Duration::from_millis(1)));
        }
    }

    /// Decodes the outgoing frames as the SDK does and returns their number.
    fn drain(&mut self, id: u32) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Taken::Frames(frames)) = self.outbox.poll_take(&mut context, true, usize::MAX) else {
            return 0;
        };
        let (count, mut answered) = (frames.len(), Vec::new());
        for outgoing in frames {
            let frame = match outgoing {
                Outgoing::Encoded(frame) => self.decode(frame.message()),
                Outgoing::Sent { id, result } => {
                    answered.push(id);
                    self.acked.extend(result.as_ref().ok().map(|ack| ack.message_id.clone()));
                    let frame = result.map_or_else(|error| Frame::Error(error.into()), Frame::Ack);
                    let frame = ServerFrame { id: id.id, frame: Some(frame), ..ServerFrame::default() };
                    assert_eq!(self.decode(&self.format.encode(&frame)), frame);
                    frame
                }
                other => panic!("unexpected frame: {other:?}"),
            };
            assert_eq!((frame.id, frame.more_parts), (id, false));
            if let Some(Frame::Error(error)) = &frame.frame {
                crate::check_error(&ApiError::from(error.clone()));
            }
        }
        self.outbox.written();
        self.protocol.written(&answered, || self.now);
        count
    }

    fn decode(&self, message: &Message) -> ServerFrame {
        match message {
            Message::Binary(bytes) => {
                let frame = client::codec::decode(bytes.clone()).expect("the SDK decodes every frame");
                assert_eq!(frame.encode_to_vec(), bytes[..]);
                frame
            }
            Message::Text(text) => serde_json::from_str(text).expect("a text frame is JSON"),
            other => panic!("not a frame: {other:?}"),
        }
    }

    fn close(&mut self, error: &ApiError) {
        crate::check_error(error);
        self.closed = true;
    }

    fn goodbye(self) {
        if let Some(connection) = &self.connection {
            self.gateway.runtime.block_on(self.gateway.backend.connections().close(connection));
        }
        let logged = self.gateway.check_log();
        assert!(logged.iter().all(|id| self.acked.contains(id)), "a message is logged and not acknowledged");
        // A retry is acknowledged without another record.
        let has_logged = |id: &String| self.gateway.has_logged(id);
        assert!(self.acked.iter().all(has_logged), "a message is acknowledged and not logged");
    }
}
