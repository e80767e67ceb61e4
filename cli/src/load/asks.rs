//! One request and its answer, with the size of the answer.

use abi::v1::{client_frame::Frame as Ask, server_frame::Frame};
use anyhow::{Context as _, Result, bail};
use client::{Connection, codec};
use std::time::Duration;
use tokio::time::timeout;

/// How long to wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The size of one or more answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) frames: u64,
    /// Bytes of the frames, without the headers of WebSocket.
    pub(super) bytes: u64,
}

/// Sends a request and returns its answer, whose parts are joined. Adds its size to `size`.
///
/// # Errors
/// The connection ends, or the server refuses the request.
pub(super) async fn ask(connection: &mut Connection, id: u32, ask: Ask, size: &mut Size) -> Result<Frame> {
    connection.feed(codec::encode(id, ask)).await?;
    connection.flush().await?;
    loop {
        let bytes =
            timeout(TIMEOUT, connection.next_bytes()).await.context("the server does not answer")??;
        let length = bytes.len() as u64;
        if codec::decode(bytes.clone())?.id != id {
            continue;
        }
        *size = Size { frames: size.frames + 1, bytes: size.bytes + length };
        match connection.decode(bytes)?.and_then(|frame| frame.frame) {
            Some(Frame::Error(error)) => bail!("{}", error.message),
            Some(frame) => return Ok(frame),
            None => {}
        }
    }
}
