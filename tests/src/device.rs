//! A device that speaks the protocol by hand, one frame at a time, in either wire format.

use crate::PATIENCE;
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        Ack, ClientFrame, Deliver, Entry, GetHeads, GetHistory, HeadsPage, Hello, HistoryPage, MarkRead,
        Message, Ping, Pong, ReadMarked, ReadReceipt, ReceiverSeq, Send, ServerFrame, Welcome, client_frame,
        message::Body, server_frame::Frame,
    },
};
use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use std::collections::{HashMap, VecDeque};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message as WsMessage, client::IntoClientRequest as _, http::HeaderValue},
};

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Text frames of proto3 JSON.
    Json,
    /// Binary frames of protobuf.
    Proto,
}

impl Wire {
    /// Name of the subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => abi::SUBPROTOCOL_JSON,
            Self::Proto => abi::SUBPROTOCOL_PROTO,
        }
    }
}

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A frame.
    Frame(ServerFrame),
    /// The server closed, with a code and a reason; the code is `None` when the connection just ended.
    Closed(Option<u16>, String),
}

/// The end of a connection as an error: the server closed it while a frame was waited for.
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
    /// What the server said by itself while an answer was waited for.
    unasked: VecDeque<Frame>,
    /// Answers to other requests than the one that was waited for.
    answers: HashMap<u32, Frame>,
}

impl Device {
    /// Opens a connection and says nothing.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn open(address: &str, wire: Wire) -> Result<Self> {
        Self::over(TcpStream::connect(address).await?, wire).await
    }

    /// Shakes hands over a connection and says nothing.
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
            bail!("the server agreed on {agreed:?}, not on {wire:?}");
        }
        Ok(Self { socket, wire, last_id: 0, unasked: VecDeque::new(), answers: HashMap::new() })
    }

    /// Opens a connection and says hello.
    ///
    /// # Errors
    /// A [`ApiError`] or [`Closed`] if it is refused.
    pub async fn connect(
        address: &str,
        wire: Wire,
        token: &str,
        have: Option<ReceiverSeq>,
    ) -> Result<(Self, Welcome)> {
        let mut device = Self::open(address, wire).await?;
        let welcome = device.hello(token, have).await?;
        Ok((device, welcome))
    }

    /// Says hello.
    ///
    /// # Errors
    /// A [`ApiError`] or [`Closed`] if it is refused.
    pub async fn hello(&mut self, token: &str, have: Option<ReceiverSeq>) -> Result<Welcome> {
        let hello = Hello { token: token.into(), device: String::new(), have };
        match self.call(client_frame::Frame::Hello(hello)).await? {
            Frame::Welcome(welcome) => Ok(welcome),
            other => bail!("hello was answered with {other:?}"),
        }
    }

    /// Says hello and expects to be closed for it: gives the error and the reason.
    ///
    /// # Errors
    /// If it is not closed, or without a code of ours.
    pub async fn hello_refused(&mut self, token: &str) -> Result<(ErrorCode, String)> {
        let hello = Hello { token: token.into(), device: String::new(), have: None };
        self.pipeline([client_frame::Frame::Hello(hello)]).await?;
        self.closed().await
    }

    /// Writes a message of the WebSocket as it is.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn write(&mut self, message: WsMessage) -> Result<()> {
        Ok(timeout(PATIENCE, self.socket.send(message)).await.context("the server takes nothing")??)
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
            timeout(PATIENCE, self.socket.feed(message)).await.context("the server takes nothing")??;
        }
        timeout(PATIENCE, self.socket.flush()).await.context("the server takes nothing")??;
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

    /// The next thing that the server says.
    ///
    /// # Errors
    /// If nothing comes for too long, or a frame can't be read.
    pub async fn next(&mut self) -> Result<Incoming> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.context("the server says nothing")?;
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
            return Ok(Incoming::Frame(frame));
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// [`Closed`] if the connection ends first.
    pub async fn frame(&mut self) -> Result<ServerFrame> {
        match self.next().await? {
            Incoming::Frame(frame) => Ok(frame),
            Incoming::Closed(code, reason) => Err(Closed { code, reason }.into()),
        }
    }

    /// Sends a frame and waits for its answer; what else comes is kept for later.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn call(&mut self, frame: client_frame::Frame) -> Result<Frame> {
        let id = self.pipeline([frame]).await?[0];
        self.answer(id).await
    }

    /// Waits for the answer to a frame that was sent; what else comes is kept for later.
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
                self.unasked.push_back(content);
            } else if let Some(twice) = self.answers.insert(frame.id, content) {
                bail!("another answer to {}: {twice:?}", frame.id);
            }
        }
    }

    /// Sends a text.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn send(&mut self, conversation: &str, client_msg_id: &str, text: &str) -> Result<Ack> {
        match self.call(send(conversation, client_msg_id, text)).await? {
            Frame::Ack(ack) => Ok(ack),
            other => bail!("a send was answered with {other:?}"),
        }
    }

    /// A page of heads.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn heads(&mut self, after: &str, limit: i32) -> Result<HeadsPage> {
        match self.call(client_frame::Frame::Heads(GetHeads { after: after.into(), limit })).await? {
            Frame::Heads(page) => Ok(page),
            other => bail!("heads were answered with {other:?}"),
        }
    }

    /// A page of a conversation.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn history(&mut self, page: GetHistory) -> Result<HistoryPage> {
        match self.call(client_frame::Frame::History(page)).await? {
            Frame::History(page) => Ok(page),
            other => bail!("history was answered with {other:?}"),
        }
    }

    /// All of a conversation that the user can see, oldest first, in pages of 100.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn whole_history(&mut self, conversation: &str) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry| entry.conversation_seq);
            let page = self
                .history(GetHistory { conversation: conversation.into(), after, ..GetHistory::default() })
                .await?;
            let more = page.more;
            entries.extend(page.entries);
            if !more {
                return Ok(entries);
            }
        }
    }

    /// Marks a conversation as read.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn mark_read(&mut self, conversation: &str, conversation_seq: u64) -> Result<ReadMarked> {
        let read = MarkRead { conversation: conversation.into(), conversation_seq };
        match self.call(client_frame::Frame::Read(read)).await? {
            Frame::Read(read) => Ok(read),
            other => bail!("read was answered with {other:?}"),
        }
    }

    /// A heartbeat.
    ///
    /// # Errors
    /// The server's [`ApiError`], or [`Closed`].
    pub async fn ping(&mut self) -> Result<Pong> {
        match self.call(client_frame::Frame::Ping(Ping {})).await? {
            Frame::Pong(pong) => Ok(pong),
            other => bail!("ping was answered with {other:?}"),
        }
    }

    async fn unasked(&mut self) -> Result<Frame> {
        match self.unasked.pop_front() {
            Some(frame) => Ok(frame),
            None => self.frame().await?.frame.context("an empty frame"),
        }
    }

    /// The next delivery.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn deliver(&mut self) -> Result<Deliver> {
        loop {
            match self.unasked().await? {
                Frame::Deliver(deliver) => return Ok(deliver),
                Frame::Receipt(_) => {}
                other => bail!("{other:?}, while a delivery is waited for"),
            }
        }
    }

    /// The next read receipt.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn receipt(&mut self) -> Result<ReadReceipt> {
        loop {
            match self.unasked().await? {
                Frame::Receipt(receipt) => return Ok(receipt),
                Frame::Deliver(_) => {}
                other => bail!("{other:?}, while a receipt is waited for"),
            }
        }
    }

    /// The next entries that are delivered, exactly so many.
    ///
    /// # Errors
    /// [`Closed`], or if more come in one frame.
    pub async fn entries(&mut self, count: usize) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.deliver().await?.entries);
        }
        if entries.len() > count {
            bail!("{} entries were delivered, not {count}: {:?}", entries.len(), texts(&entries));
        }
        Ok(entries)
    }

    /// Reads on until the server closes, and gives the error behind the close code and the reason.
    ///
    /// # Errors
    /// If it does not close, or without a code of ours.
    pub async fn closed(&mut self) -> Result<(ErrorCode, String)> {
        loop {
            if let Incoming::Closed(code, reason) = self.next().await? {
                let known = code.and_then(ErrorCode::from_close);
                return Ok((known.with_context(|| format!("closed with {code:?} {reason:?}"))?, reason));
            }
        }
    }

    /// Ends the connection without a word.
    pub fn drop_connection(self) {
        drop(self.socket);
    }
}

/// A frame that sends a text.
pub fn send(conversation: &str, client_msg_id: &str, text: &str) -> client_frame::Frame {
    client_frame::Frame::Send(Send {
        conversation: conversation.into(),
        client_msg_id: client_msg_id.into(),
        message: Some(Message { content_type: String::new(), body: Some(Body::Text(text.into())) }),
    })
}

/// The text of an entry; empty for other content.
pub fn text(entry: &Entry) -> &str {
    match &entry.content {
        Some(abi::v1::entry::Content::Message(Message { body: Some(Body::Text(text)), .. })) => text,
        _ => "",
    }
}

/// The texts of entries.
pub fn texts(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(text).collect()
}

/// The numbers of entries.
pub fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.conversation_seq).collect()
}

/// What the server refused with.
///
/// # Panics
/// If it was not refused, or the connection failed instead.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T>) -> ApiError {
    let error = result.expect_err("should have been refused");
    match error.downcast::<ApiError>() {
        Ok(fault) => fault,
        Err(other) => panic!("failed otherwise than by a refusal: {other:?}"),
    }
}

/// A new id for a message, as a good client makes it.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
