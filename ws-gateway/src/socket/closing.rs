//! The end of a connection: its last frames, and its reason.

use super::{BATCH, End, Socket};
use crate::{
    metrics,
    websocket::{Incoming, ReadError, put_message, with_batch},
};
use abi::{
    ApiError,
    v1::{ServerFrame, server_frame::Frame},
};
use axum::extract::ws::{CloseFrame, Message};
use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// How long the gateway tries to write the queued frames, and then the reason of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket<S> {
    /// Removes the connection and tells the device the reason, concurrently: the cache may be slow, and a draining gateway does
    /// not wait for long.
    pub(super) async fn finish(mut self, end: End) {
        // Nobody waits for the answers any more.
        self.work = None;
        let (backend, connection) = (self.backend.clone(), self.connection.take());
        let removed = async {
            if let Some(connection) = &connection {
                backend.connections().close(connection).await;
            }
        };
        let outbox = self.outbox.clone();
        let left = async {
            self.take_leave(end).await;
            // The cache may be slow to remove the route, and the memory is needed elsewhere.
            outbox.discard();
        };
        tokio::join!(removed, left);
    }

    async fn take_leave(mut self, end: End) {
        let said = match end {
            End::Gone => return,
            End::Closed(code) => {
                let close = code.map(|code| CloseFrame { code, reason: "".into() });
                timeout(CLOSE_TIMEOUT, self.write_now(&[Message::Close(close)])).await
            }
            End::Close(error) => {
                metrics::closed(error.code);
                let _ = timeout(CLOSE_TIMEOUT, self.write_queue()).await;
                timeout(CLOSE_TIMEOUT, self.send_reason(error)).await
            }
        };
        if let Ok(Err(error)) = said {
            tracing::debug!(%error, "cannot say why the connection ends");
        }
        let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
    }

    /// Writes the frames that were queued before the close.
    async fn write_queue(&mut self) -> io::Result<()> {
        self.write_now(&[]).await?;
        loop {
            let frames = self.outbox.take(BATCH);
            if frames.is_empty() {
                return Ok(());
            }
            let mut frames = Some(frames);
            poll_fn(|cx| Poll::Ready(self.start_batch(cx, frames.take().unwrap_or_default()))).await?;
            self.write_now(&[]).await?;
            if let Some(batch) = self.batch.take() {
                batch.record_deliveries();
            }
        }
    }

    /// Finishes the message that is being written, and then writes these messages.
    async fn write_now(&mut self, messages: &[Message]) -> io::Result<()> {
        poll_fn(|cx| self.writer.poll_flush(&mut self.stream, cx)).await?;
        let mut start = |cx: &mut Context<'_>| {
            with_batch(|bytes| {
                messages.iter().for_each(|message| put_message(bytes, message));
                self.writer.start(&mut self.stream, cx, bytes)
            })
        };
        poll_fn(|cx| Poll::Ready(start(cx))).await?;
        poll_fn(|cx| self.writer.poll_flush(&mut self.stream, cx)).await
    }

    async fn send_reason(&mut self, error: ApiError) -> io::Result<()> {
        // A close frame has room for a code and 123 bytes. The whole sentence goes ahead in an error frame.
        let close = CloseFrame { code: error.code.close(), reason: error.close_reason().into() };
        let frame = ServerFrame { id: 0, frame: Some(Frame::Error(error.into())), more_parts: false };
        self.write_now(&[self.format.encode(&frame), Message::Close(Some(close))]).await?;
        self.wait_for_close().await
    }

    /// Waits for the device's close frame: dropping the socket earlier, with unread bytes, resets the connection, and the device
    /// may lose the reason.
    async fn wait_for_close(&mut self) -> io::Result<()> {
        loop {
            match poll_fn(|cx| self.reader.poll_next(&mut self.stream, cx)).await {
                None | Some(Ok(Incoming::Close(_))) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(ReadError::Io(error))) => return Err(error),
                Some(Err(_)) => break,
            }
        }
        let mut discarded = [0; 1024];
        while self.stream.read(&mut discarded).await? > 0 {}
        Ok(())
    }
}
