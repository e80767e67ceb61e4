//! A device with its own implementation of the protocol, one frame at a time, in either wire format.

mod content;
mod requests;

pub use content::{content, group_change, new_id, refusal, send, seqs, text, texts};

use crate::PATIENCE;
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        ClientFrame, Deliver, Entry, Receipt, ServerFrame, Signal, client_frame, server_frame::Frame,
        update::Kind,
    },
};
use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::{Message as _, bytes::Bytes};
use std::collections::{HashMap, VecDeque};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message as WsMessage, client::IntoClientRequest as _, http::HeaderValue},
};

/// The encoding of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Text frames of proto3 JSON.
    Json,
    /// Binary frames of protobuf.
    Proto,
}

impl Wire {
    /// The name of the subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => abi::SUBPROTOCOL_JSON,
            Self::Proto => abi::SUBPROTOCOL_PROTO,
        }
    }
}

/// An event of a connection.
#[derive(Debug)]
pub enum Incoming {
    /// A frame.
    Frame(Box<ServerFrame>),
    /// The connection closed, with a code and a reason. The code is `None` if it ended without a close frame.
    Closed(Option<u16>, String),
}

/// The server closed the connection while the device waited for a frame.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the server closed with {code:?} {reason:?}")]
pub struct Closed {
    /// Close code.
    pub code: Option<u16>,
    /// Reason text.
    pub reason: String,
}

/// One WebSocket connection.
#[derive(Debug)]
pub struct Device {
    socket: WebSocketStream<TcpStream>,
    wire: Wire,
    last_id: u32,
    /// Pushed frames that arrived during the wait for an answer.
    pushed: VecDeque<Frame>,
    /// Answers to other requests than the awaited one.
    answers: HashMap<u32, Frame>,
    /// Answers of which parts are missing.
    parts: HashMap<u32, Frame>,
}

impl Device {
    /// Opens a connection without a `hello`.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn open(address: &str, wire: Wire) -> Result<Self> {
        Self::over(TcpStream::connect(address).await?, wire).await
    }

    /// Does the WebSocket handshake over a stream, without a `hello`.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn over(stream: TcpStream, wire: Wire) -> Result<Self> {
        let mut request = format!("ws://{}/v1/ws", stream.peer_addr()?).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(wire.subprotocol()));
        let (socket, answer) =
            timeout(PATIENCE, client_async(request, stream)).await.context("no handshake")??;
        let agreed = answer.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
        if agreed != Some(wire.subprotocol()) {
            bail!("the server chose {agreed:?}, not {wire:?}");
        }
        Ok(Self {
            socket,
            wire,
            last_id: 0,
            pushed: VecDeque::new(),
            answers: HashMap::new(),
            parts: HashMap::new(),
        })
    }

    /// Writes a WebSocket message.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn write(&mut self, message: WsMessage) -> Result<()> {
        Ok(timeout(PATIENCE, self.socket.send(message)).await.context("the server does not read")??)
    }

    /// Writes several frames with one flush.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn pipeline(
        &mut self,
        frames: impl IntoIterator<Item = client_frame::Frame>,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for frame in frames {
            let message = self.encode(frame)?;
            ids.push(self.last_id);
            timeout(PATIENCE, self.socket.feed(message)).await.context("the server does not read")??;
        }
        timeout(PATIENCE, self.socket.flush()).await.context("the server does not read")??;
        Ok(ids)
    }

    fn encode(&mut self, frame: client_frame::Frame) -> Result<WsMessage> {
        self.last_id += 1;
        let frame = ClientFrame { id: self.last_id, frame: Some(frame) };
        Ok(match self.wire {
            Wire::Json => WsMessage::text(serde_json::to_string(&frame)?),
            Wire::Proto => WsMessage::binary(frame.encode_to_vec()),
        })
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// If there is none within [`PATIENCE`], or a frame can't be decoded.
    pub async fn next(&mut self) -> Result<Incoming> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.context("the server sends nothing")?;
            let frame = match (message, self.wire) {
                (Some(Ok(WsMessage::Text(text))), Wire::Json) => {
                    serde_json::from_str(&text).with_context(|| format!("not a frame: {text}"))?
                }
                (Some(Ok(WsMessage::Binary(bytes))), Wire::Proto) => ServerFrame::decode(bytes)?,
                (Some(Ok(WsMessage::Close(close))), _) => {
                    let (code, reason) =
                        close.map_or((None, String::new()), |c| (Some(c.code.into()), c.reason.to_string()));
                    return Ok(Incoming::Closed(code, reason));
                }
                (Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))), _) => continue,
                (Some(Ok(other)), wire) => bail!("{other:?} on a {wire:?} connection"),
                (Some(Err(error)), _) => return Ok(Incoming::Closed(None, error.to_string())),
                (None, _) => return Ok(Incoming::Closed(None, String::new())),
            };
            return Ok(Incoming::Frame(Box::new(frame)));
        }
    }

    /// Waits for the next frame of a [`Wire::Proto`] connection, and does not decode it.
    ///
    /// # Errors
    /// If there is none within [`PATIENCE`], or the connection ends first.
    pub async fn encoded_frame(&mut self) -> Result<Bytes> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.context("the server sends nothing")?;
            match message.context("the connection has ended")?? {
                WsMessage::Binary(bytes) => return Ok(bytes),
                WsMessage::Ping(_) | WsMessage::Pong(_) => {}
                other => bail!("{other:?} instead of a binary frame"),
            }
        }
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// [`Closed`] if the connection ends first.
    pub async fn frame(&mut self) -> Result<ServerFrame> {
        match self.next().await? {
            Incoming::Frame(frame) => Ok(*frame),
            Incoming::Closed(code, reason) => Err(Closed { code, reason }.into()),
        }
    }

    /// Sends a frame and waits for its answer. Other frames are kept for later.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn call(&mut self, frame: client_frame::Frame) -> Result<Frame> {
        let id = self.pipeline([frame]).await?[0];
        self.answer(id).await
    }

    /// Waits for the answer to a frame that was sent. Other frames are kept for later.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn answer(&mut self, id: u32) -> Result<Frame> {
        loop {
            match self.answers.remove(&id) {
                Some(Frame::Error(error)) => return Err(ApiError::from(error).into()),
                Some(answer) => return Ok(answer),
                None => {}
            }
            let frame = self.frame().await?;
            let content = frame.frame.context("an empty frame")?;
            if frame.id == 0 {
                self.pushed.push_back(content);
                continue;
            }
            let content = match self.parts.remove(&frame.id) {
                Some(first) => content::join(first, content)?,
                None => content,
            };
            if frame.more_parts {
                self.parts.insert(frame.id, content);
            } else if let Some(first) = self.answers.insert(frame.id, content) {
                bail!("a second answer to {}, after {first:?}", frame.id);
            }
        }
    }

    async fn pushed(&mut self) -> Result<Frame> {
        match self.pushed.pop_front() {
            Some(frame) => Ok(frame),
            None => self.frame().await?.frame.context("an empty frame"),
        }
    }

    /// Waits for the next delivery, and skips signals.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn deliver(&mut self) -> Result<Deliver> {
        loop {
            match self.pushed().await? {
                Frame::Deliver(deliver) => return Ok(deliver),
                Frame::Signal(_) => {}
                other => bail!("{other:?} instead of a delivery"),
            }
        }
    }

    /// Waits for the next update, and skips entries.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn update(&mut self) -> Result<Kind> {
        loop {
            if let Some(update) = self.deliver().await?.updates.into_iter().next() {
                return update.kind.context("an update of an unknown kind");
            }
        }
    }

    /// Waits for the next read receipt, and skips everything else.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn receipt(&mut self) -> Result<Receipt> {
        loop {
            if let Kind::Receipt(receipt) = self.update().await? {
                return Ok(receipt);
            }
        }
    }

    /// Waits for the next signal, and skips deliveries.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn signal(&mut self) -> Result<Signal> {
        loop {
            match self.pushed().await? {
                Frame::Signal(signal) => return Ok(signal),
                Frame::Deliver(_) => {}
                other => bail!("{other:?} instead of a signal"),
            }
        }
    }

    /// Waits for exactly `count` delivered entries.
    ///
    /// # Errors
    /// [`Closed`], or if the last delivery has more entries.
    pub async fn entries(&mut self, count: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.deliver().await?.entries);
        }
        if entries.len() > count {
            bail!("{} entries were delivered instead of {count}: {:?}", entries.len(), texts(&entries));
        }
        Ok(entries)
    }

    /// Waits until the server closes the connection. Returns the error of the close code, and the reason.
    ///
    /// # Errors
    /// If it does not close, or the code is not one of the protocol.
    pub async fn closed(&mut self) -> Result<(ErrorCode, String)> {
        loop {
            if let Incoming::Closed(code, reason) = self.next().await? {
                let known = code.and_then(ErrorCode::from_close);
                return Ok((known.with_context(|| format!("closed with {code:?} {reason:?}"))?, reason));
            }
        }
    }

    /// Drops the TCP connection without a close frame.
    pub fn drop_connection(self) {
        drop(self.socket);
    }
}
