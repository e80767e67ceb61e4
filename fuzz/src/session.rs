//! Sessions of a gateway from hello to close: the decoding, the state machine and what stands behind it, without a socket.

use crate::{
    gateway::Gateway,
    tokens::{GOOD, alice},
};
use abi::{
    ApiError,
    v1::{ClientFrame, Hello, ServerFrame, client_frame, server_frame::Frame},
};
use axum::extract::ws::Message;
use bytes::Bytes;
use std::{
    cell::RefCell,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;
use ws_gateway::{
    codec::Format,
    hub::Connection,
    outbox::{Outbox, Outgoing},
    send,
    session::{Request, Session, Step},
};

thread_local! {
    static GATEWAY: RefCell<Gateway> = RefCell::default();
}

/// The first byte says which format; then parts follow, each with a byte that says what it is: a frame, or a wait.
pub fn script(data: &[u8]) {
    GATEWAY.with_borrow(|gateway| {
        let _entered = gateway.runtime.enter();
        let mut rest = data;
        let Some(format) = crate::byte(&mut rest) else { return };
        let mut device = Device::new(gateway, if format % 2 == 0 { Format::Proto } else { Format::Json });
        while let Some(kind) = crate::byte(&mut rest)
            && device.goes_on()
        {
            match kind % 8 {
                0 => device.wait(crate::byte(&mut rest)),
                1 => device.hello(),
                2 => device.session.on_sign_of_life(device.now),
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
    session: Session,
    now: Instant,
    outbox: Arc<Outbox>,
    connection: Option<Arc<Connection>>,
    /// What it sent that was accepted.
    acked: usize,
    closed: bool,
}

impl<'a> Device<'a> {
    fn new(gateway: &'a Gateway, format: Format) -> Self {
        let now = Instant::now();
        Self {
            gateway,
            format,
            session: Session::new(gateway.backend.session.clone(), now),
            now,
            outbox: Arc::new(Outbox::new(gateway.backend.max_outbox)),
            connection: None,
            acked: 0,
            closed: false,
        }
    }

    /// All that it sent was answered, so it may always go on until it is closed.
    fn goes_on(&self) -> bool {
        assert!(self.session.can_read());
        assert_eq!(self.session.identity().is_some(), self.connection.is_some());
        !self.closed
    }

    fn wait(&mut self, seconds: Option<u8>) {
        let due = self.session.deadline();
        self.now += Duration::from_secs(seconds.unwrap_or(0).into());
        let step = self.session.on_time(self.now);
        assert_eq!(
            step.is_some(),
            due <= self.now,
            "{step:?} at a deadline that is {:?} away",
            due - self.now
        );
        if let Some(step) = step {
            assert!(matches!(step, Step::Renew | Step::Recheck | Step::Close(_)));
            self.perform(step, 0);
        }
    }

    fn hello(&mut self) {
        let hello = Hello { token: GOOD.clone(), ..Hello::default() };
        let frame = ClientFrame { id: 1, frame: Some(client_frame::Frame::Hello(hello)) };
        let step = self.session.on_frame(Ok(frame), self.now);
        self.perform(step, 1);
    }

    fn frame(&mut self, bytes: &[u8]) {
        let message = match (self.format, std::str::from_utf8(bytes)) {
            (Format::Json, Ok(text)) => Message::Text(text.into()),
            _ => Message::Binary(Bytes::copy_from_slice(bytes)),
        };
        let frame = self.format.decode(&message);
        let id = frame.as_ref().map_or(0, |frame| frame.id);
        let step = self.session.on_frame(frame, self.now);
        self.perform(step, id);
    }

    /// Does what the socket's task does, and checks that a request has one answer, with its id.
    fn perform(&mut self, step: Step, id: u32) {
        let mut answers = 1;
        let backend = Arc::clone(&self.gateway.backend);
        match (step, self.connection.clone()) {
            (Step::Close(fault), _) => return self.close(&fault),
            (Step::Refuse(refused, fault), Some(_)) => {
                assert_eq!(refused, id);
                self.answer(id, Err(fault));
            }
            (Step::Authenticate(_, hello), None) => {
                let welcome = backend.welcome(hello, self.format, self.outbox.clone());
                match self.gateway.runtime.block_on(welcome) {
                    Ok((connection, welcome)) => {
                        assert_eq!(connection.identity, alice(), "somebody else was let in");
                        self.session.welcomed(connection.identity.clone(), self.now);
                        self.connection = Some(connection);
                        self.answer(id, Ok(Frame::Welcome(welcome)));
                    }
                    Err(fault) => return self.close(&fault),
                }
            }
            (Step::Send(_, message), Some(connection)) => {
                let sent = self.gateway.runtime.block_on(send::send(&backend, &connection, id, message));
                if let Err(fault) = sent {
                    connection.outbox.push(Outgoing::Sent { id, result: Err(fault) });
                }
            }
            (Step::Answer(_, request), Some(connection)) => {
                if request == Request::Ping {
                    self.session.renewed(self.now);
                }
                let answer = self.gateway.runtime.block_on(backend.answer(&connection, request));
                self.answer(id, answer);
            }
            (Step::Renew, Some(connection)) => {
                self.gateway.runtime.block_on(backend.renew(&connection)).expect("the cache is there");
                answers = 0;
            }
            (Step::Recheck, Some(connection)) => {
                self.gateway.runtime.block_on(backend.recheck(&connection.identity)).expect("it says yes");
                answers = 0;
            }
            (step, connection) => panic!("{step:?} with {connection:?}"),
        }
        assert_eq!(self.drain(id), answers, "answers to frame {id}");
    }

    fn answer(&self, id: u32, answer: Result<Frame, ApiError>) {
        let frame = answer.unwrap_or_else(|fault| Frame::Error(fault.into()));
        self.outbox.push(Outgoing::Frame(Box::new(ServerFrame { id, frame: Some(frame) })));
    }

    /// Reads what was written as the SDK does; says how many frames there were.
    fn drain(&mut self, id: u32) -> usize {
        let Poll::Ready(drained) = self.outbox.poll_drain(&mut Context::from_waker(Waker::noop())) else {
            return 0;
        };
        assert!(drained.close.is_none());
        let count = drained.frames.len();
        for outgoing in drained.frames {
            let frame = match outgoing {
                Outgoing::Frame(frame) => *frame,
                Outgoing::Sent { id, result } => {
                    if let Err(fault) = &result {
                        self.session.refused(id, fault);
                    }
                    self.session.answered(id);
                    self.acked += usize::from(result.is_ok());
                    let frame = result.map_or_else(|fault| Frame::Error(fault.into()), Frame::Ack);
                    ServerFrame { id, frame: Some(frame) }
                }
                Outgoing::Encoded(message) | Outgoing::Delivery { frame: message, .. } => {
                    panic!("nobody has delivered {message:?}")
                }
            };
            assert_eq!(frame.id, id);
            if let Some(Frame::Error(error)) = &frame.frame {
                crate::is_fault(&ApiError::from(error.clone()));
            }
            let read = match self.format.encode(&frame) {
                Message::Binary(bytes) => client::codec::decode(bytes).expect("the SDK reads it"),
                Message::Text(text) => serde_json::from_str(&text).expect("it is JSON"),
                other => panic!("no frame: {other:?}"),
            };
            assert_eq!(read, frame);
        }
        self.session.written(self.now);
        count
    }

    fn close(&mut self, fault: &ApiError) {
        crate::is_fault(fault);
        self.closed = true;
    }

    fn goodbye(self) {
        if let Some(connection) = &self.connection {
            self.gateway.runtime.block_on(self.gateway.backend.goodbye(connection));
        }
        assert_eq!(
            self.gateway.check_log(),
            self.acked,
            "what is acknowledged is in the log, and nothing else"
        );
    }
}
