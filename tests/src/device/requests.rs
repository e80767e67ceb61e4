//! Typed requests of a device.

use super::{Device, Wire, content::send};
use abi::{
    error::ErrorCode,
    v1::{
        Ack, Entry, GetHeads, GetHistory, HeadsPage, Hello, HistoryPage, MarkRead, Ping, Pong, ReadMarked,
        ReceiverSeq, Welcome, client_frame, server_frame::Frame,
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
        match self.call(send(conversation, client_msg_id, text)).await? {
            Frame::Ack(ack) => Ok(ack),
            other => bail!("a send was answered with {other:?}"),
        }
    }

    /// Requests a page of heads.
    ///
    /// # Errors
    /// The server's [`ApiError`](abi::ApiError), or [`Closed`](super::Closed).
    pub async fn heads(&mut self, after: &str, limit: i32) -> Result<HeadsPage> {
        match self.call(client_frame::Frame::Heads(GetHeads { after: after.into(), limit })).await? {
            Frame::Heads(page) => Ok(page),
            other => bail!("heads were answered with {other:?}"),
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
    pub async fn mark_read(&mut self, conversation: &str, conversation_seq: u64) -> Result<ReadMarked> {
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
