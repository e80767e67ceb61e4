//! Typed requests of a device.

use super::{
    Device, Wire,
    content::{new_id, send},
};
use abi::{
    error::ErrorCode,
    v1::{
        Ack, Changes, Entry, GetChanges, GetHistory, Head, Hello, HistoryPage, MarkRead, Ping, Pong,
        ReadPosition, ReceiverSeq, Send, Welcome, client_frame, server_frame::Frame,
    },
};
use anyhow::{Result, bail};

impl Device {
    /// Opens a connection and sends `hello`.
    ///
    /// # Errors
    /// An [`ApiError`](abi::ApiError) or [`Closed`](super::Closed) if it is refused.
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

    /// Sends `hello`.
    ///
    /// # Errors
    /// An [`ApiError`](abi::ApiError) or [`Closed`](super::Closed) if it is refused.
    pub async fn hello(&mut self, token: &str, have: Option<ReceiverSeq>) -> Result<Welcome> {
        let hello = Hello { token: token.into(), have, ..Hello::default() };
        match self.call(client_frame::Frame::Hello(hello)).await? {
            Frame::Welcome(welcome) => Ok(welcome),
            other => bail!("hello was answered with {other:?}"),
        }
    }

    /// Sends `hello` and expects that the server closes the connection. Returns the error of the close code, and the reason.
    ///
    /// # Errors
    /// If it does not close, or the code is not one of the protocol.
    pub async fn hello_refused(&mut self, token: &str) -> Result<(ErrorCode, String)> {
        let hello = Hello { token: token.into(), ..Hello::default() };
        self.pipeline([client_frame::Frame::Hello(hello)]).await?;
        self.closed().await
    }

    /// Sends a text.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn send(&mut self, conversation: &str, client_msg_id: &str, text: &str) -> Result<Ack> {
        self.acked(send(conversation, client_msg_id, text)).await
    }

    /// Sends an entry of any kind, with a new `client_msg_id`.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn send_entry(&mut self, send: Send) -> Result<Ack> {
        self.acked(client_frame::Frame::Send(Send { client_msg_id: new_id(), ..send })).await
    }

    async fn acked(&mut self, frame: client_frame::Frame) -> Result<Ack> {
        match self.call(frame).await? {
            Frame::Ack(ack) => Ok(ack),
            other => bail!("a send was answered with {other:?}"),
        }
    }

    /// Sends a request whose answer is `done`.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn done(&mut self, frame: client_frame::Frame) -> Result<()> {
        match self.call(frame).await? {
            Frame::Done(_) => Ok(()),
            other => bail!("a request was answered with {other:?}"),
        }
    }

    /// Requests a page of changes.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn changes(&mut self, request: GetChanges) -> Result<Changes> {
        match self.call(client_frame::Frame::Changes(request)).await? {
            Frame::Changes(page) => Ok(page),
            other => bail!("changes were answered with {other:?}"),
        }
    }

    /// Reads the heads of all conversations, page by page.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn heads(&mut self) -> Result<Vec<Head>> {
        let (mut heads, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.changes(GetChanges { cursor, ..GetChanges::default() }).await?;
            heads.extend(page.heads);
            cursor = page.next;
            if cursor.is_empty() {
                return Ok(heads);
            }
        }
    }

    /// Requests a page of a conversation's history.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn history(&mut self, page: GetHistory) -> Result<HistoryPage> {
        match self.call(client_frame::Frame::History(page)).await? {
            Frame::History(page) => Ok(page),
            other => bail!("history was answered with {other:?}"),
        }
    }

    /// Reads all entries of a conversation that the user may see, oldest first, page by page.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
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
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn mark_read(&mut self, conversation: &str, conversation_seq: u64) -> Result<ReadPosition> {
        let read = MarkRead { conversation: conversation.into(), conversation_seq };
        match self.call(client_frame::Frame::Read(read)).await? {
            Frame::Read(read) => Ok(read),
            other => bail!("read was answered with {other:?}"),
        }
    }

    /// Sends a heartbeat.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn ping(&mut self) -> Result<Pong> {
        match self.call(client_frame::Frame::Ping(Ping {})).await? {
            Frame::Pong(pong) => Ok(pong),
            other => bail!("ping was answered with {other:?}"),
        }
    }
}
