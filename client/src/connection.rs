//! One WebSocket to the server, from `hello` to close. It reads and writes frames and keeps no other state.

use crate::{Error, Server, codec, http::problem, parts::Parts, trust};
use abi::{
    error::{ErrorCode, Reconnect},
    v1::{Hello, ReceiverSeq, ServerFrame, Welcome, client_frame, server_frame},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig},
    },
};

/// Deadline of each of connecting, TLS handshake, upgrade and welcome.
const TIMEOUT: Duration = Duration::from_secs(10);
/// If the server accepts no bytes for this long, the connection is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest frame from the server. Servers send long answers in parts; an entry with a very large body is one frame.
const MAX_FRAME: usize = 32 * 1024 * 1024;
/// Id of the `hello` frame; later requests use higher ids.
pub const HELLO_ID: u32 = 1;

/// The buffers are small: the library's default is 128 KiB each, zeroed on every read. The write buffer has no upper
/// bound, because that would also limit the size of a frame; [`Connection::is_ready`] keeps it small.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// An open connection that was welcomed.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Some frames in the buffer are not written yet.
    is_writing: bool,
    /// The answers of which parts are missing.
    parts: Parts,
    /// The server's answer to `hello`.
    pub welcome: Welcome,
}

impl Connection {
    /// Connects, says hello and waits for the welcome.
    ///
    /// # Errors
    /// Errors of the network, the upgrade or the server; see [`Error::recovery`].
    pub async fn open(server: &Server, token: &str, have: Option<ReceiverSeq>) -> Result<Self, Error> {
        let (host, port) = server.host_port();
        let failed = |error: std::io::Error| Error::Connect {
            address: format!("{host}:{port}"),
            source: Arc::new(error),
        };
        let stream = timeout(TIMEOUT, TcpStream::connect((host, port)))
            .await
            .map_err(|_| Error::Timeout { what: "connecting" })?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let stream = match server.tls() {
            None => MaybeTlsStream::Plain(stream),
            Some((name, config)) => {
                let handshake = TlsConnector::from(config).connect(name, stream);
                let stream = timeout(TIMEOUT, handshake)
                    .await
                    .map_err(|_| Error::Timeout { what: "the TLS handshake" })?;
                let stream = stream.map_err(|error| failed(trust::explain(&error).unwrap_or(error)))?;
                MaybeTlsStream::Rustls(stream)
            }
        };
        let mut request = server.websocket().into_client_request().map_err(|error| lost(&error))?;
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(abi::SUBPROTOCOL_PROTO));
        let upgrade = client_async_with_config(request, stream, Some(config()));
        let (socket, _) = timeout(TIMEOUT, upgrade)
            .await
            .map_err(|_| Error::Timeout { what: "the upgrade to WebSocket" })?
            .map_err(|error| upgrade_error(&error))?;
        let mut connection =
            Self { socket, is_writing: false, parts: Parts::default(), welcome: Welcome::default() };
        let hello = Hello {
            token: token.to_owned(),
            have,
            client: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Hello::default()
        };
        connection.feed(codec::encode(HELLO_ID, client_frame::Frame::Hello(hello))).await?;
        connection.flush().await?;
        let answer =
            timeout(TIMEOUT, connection.next()).await.map_err(|_| Error::Timeout { what: "hello" })??;
        match answer.frame {
            Some(server_frame::Frame::Welcome(welcome)) => connection.welcome = welcome,
            Some(server_frame::Frame::Error(error)) => return Err(Error::Server(error.into())),
            _ => return Err(Error::Protocol("the first frame is not a welcome".into())),
        }
        Ok(connection)
    }

    /// The next frame, or whole answer if it comes in parts. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Lost`] at the end, [`Error::Protocol`] for an invalid frame.
    pub async fn next(&mut self) -> Result<ServerFrame, Error> {
        loop {
            let bytes = self.next_bytes().await?;
            if let Some(frame) = self.decode(bytes)? {
                return Ok(frame);
            }
        }
    }

    /// Decodes a frame. `None`: it is a part of an answer, and more parts will follow.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an invalid frame.
    pub fn decode(&mut self, bytes: Bytes) -> Result<Option<ServerFrame>, Error> {
        let size = bytes.len();
        self.parts.add(codec::decode(bytes)?, size)
    }

    /// The next frame, still encoded.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Lost`] at the end.
    pub async fn next_bytes(&mut self) -> Result<Bytes, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Close(frame))) => {
                    // Reading has queued the close reply, and the server waits for it.
                    let _ = self.socket.flush().now_or_never();
                    return Err(closed(frame.as_ref()));
                }
                Some(Ok(Message::Text(_))) => {
                    return Err(Error::Protocol("a text frame on a binary connection".into()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(&error)),
                None => return Err(Error::Lost("end of stream".into())),
            }
        }
    }

    /// The next frame, still encoded, or `None` once the buffer is written. It reads and writes at the same time: a
    /// server may stop reading until its own writes are read. Cancel-safe.
    ///
    /// # Errors
    /// As [`Connection::next_bytes`].
    pub async fn turn(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|context| {
            if self.is_writing
                && let Poll::Ready(written) = self.socket.poll_flush_unpin(context)
            {
                self.is_writing = false;
                return Poll::Ready(written.map(|()| None).map_err(|error| lost(&error)));
            }
            pin!(self.next_bytes()).poll(context).map_ok(Some)
        })
        .await
    }

    /// A frame that has already arrived.
    ///
    /// # Errors
    /// As [`Connection::next_bytes`].
    pub fn try_next_bytes(&mut self) -> Option<Result<Bytes, Error>> {
        self.next_bytes().now_or_never()
    }

    /// Whether [`Connection::feed`] accepts a frame without waiting. If not, wait with [`Connection::turn`].
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn is_ready(&mut self) -> Result<bool, Error> {
        let ready = poll_fn(|context| self.socket.poll_ready_unpin(context)).now_or_never();
        self.is_writing |= ready.is_none();
        ready.transpose().map(|ready| ready.is_some()).map_err(|error| lost(&error))
    }

    /// Writes as much of the buffer as the socket accepts now; [`Connection::turn`] writes the rest.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn begin_flush(&mut self) -> Result<(), Error> {
        let flushed = self.socket.flush().now_or_never();
        self.is_writing = flushed.is_none();
        flushed.unwrap_or(Ok(())).map_err(|error| lost(&error))
    }

    /// Adds a frame to the buffer; [`Connection::flush`] writes all buffered frames together.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn feed(&mut self, frame: Bytes) -> Result<(), Error> {
        // Waits only while the buffer is full, so it rarely needs a timer.
        if let Some(result) = self.socket.feed(Message::Binary(frame.clone())).now_or_never() {
            return result.map_err(|error| lost(&error));
        }
        timeout(WRITE_TIMEOUT, self.socket.feed(Message::Binary(frame)))
            .await
            .map_err(|_| Error::Timeout { what: "writing" })?
            .map_err(|error| lost(&error))
    }

    /// Writes the buffer.
    ///
    /// # Errors
    /// [`Error::Lost`], or [`Error::Timeout`] if the server accepts no bytes.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if let Some(result) = self.socket.flush().now_or_never() {
            return result.map_err(|error| lost(&error));
        }
        timeout(WRITE_TIMEOUT, self.socket.flush())
            .await
            .map_err(|_| Error::Timeout { what: "writing" })?
            .map_err(|error| lost(&error))
    }

    /// Sends a close frame and waits up to 1 s for the reply.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }
}

fn lost(error: &tungstenite::Error) -> Error {
    Error::Lost(error.to_string())
}

fn upgrade_error(error: &tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Http(answer) => {
            let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let body = answer.body().as_deref().unwrap_or_default();
            Error::Server(problem(answer.status(), retry_after, body))
        }
        error => lost(error),
    }
}

fn closed(frame: Option<&CloseFrame>) -> Error {
    let Some(frame) = frame else {
        return Error::Lost("closed without a reason".into());
    };
    let number = u16::from(frame.code);
    let code = ErrorCode::from_close(number);
    let in_reason = frame.reason.split_ascii_whitespace().find_map(|part| {
        let value = part.strip_prefix("reconnect=")?;
        if value == "no" { Some(Reconnect::No) } else { value.parse().ok().map(Reconnect::After) }
    });
    let reconnect = match in_reason {
        Some(Reconnect::After(0)) => Reconnect::Now,
        Some(reconnect) => reconnect,
        None => code.map_or(Reconnect::Now, ErrorCode::reconnect),
    };
    let reason = match (code, frame.reason.as_str()) {
        (Some(code), _) => code.name().to_owned(),
        (None, "") => number.to_string(),
        (None, reason) => reason.to_owned(),
    };
    Error::Closed { code, reconnect, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ApiError;
    use tungstenite::protocol::frame::coding::CloseCode;

    fn close(code: u16, reason: &str) -> Error {
        closed(Some(&CloseFrame { code: CloseCode::from(code), reason: reason.into() }))
    }

    #[test]
    fn every_close_code_of_the_contract_is_recognised() {
        for code in (0..100).filter_map(|number| ErrorCode::try_from(number).ok()) {
            let reason = ApiError::new(code, "").close_reason();
            let Error::Closed { code: Some(read), reconnect, .. } = close(code.close(), &reason) else {
                panic!("{code:?} is not a close code")
            };
            assert_eq!((read, reconnect), (code, code.reconnect()));
        }
    }

    #[test]
    fn the_pause_in_the_close_reason_takes_precedence() {
        let Error::Closed { reconnect, .. } =
            close(ErrorCode::GoingAway.close(), "going_away reconnect=1234")
        else {
            panic!("not a close")
        };
        assert_eq!(reconnect, Reconnect::After(1234));
        let Error::Closed { code: None, reconnect: Reconnect::Now, reason } = close(1006, "") else {
            panic!("an unknown close code is retried")
        };
        assert_eq!(reason, "1006");
    }
}
