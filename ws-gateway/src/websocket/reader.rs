//! Reads frames, joins fragments, and checks what RFC 6455 demands of a client.

use axum::extract::ws::{Message, Utf8Bytes};
use bytes::{Buf as _, Bytes, BytesMut};
use std::{
    io::{self, Cursor},
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Most bytes that are read at once, into the stack.
const READ_SIZE: usize = 8 << 10;
/// Longest payload of a control frame.
const MAX_CONTROL: u64 = 125;

/// What a client has sent.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// A whole text or binary message.
    Message(Message),
    /// A ping with its payload, which the pong must repeat.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The client closes the connection, with this code if it gave one.
    Close(Option<u16>),
}

/// Why reading failed. Nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A frame, or a message in fragments, is larger than the limit.
    #[error("the frame has {size} bytes; this server accepts {max}")]
    TooLarge {
        /// Its bytes, or those of its first fragments.
        size: u64,
        /// The limit.
        max: usize,
    },
    /// The bytes are not WebSocket frames of a client.
    #[error("not a WebSocket frame: {0}")]
    Invalid(&'static str),
}

/// A message of which more fragments will follow.
#[derive(Debug)]
struct Fragments {
    is_text: bool,
    payload: BytesMut,
}

/// Reads the frames of a client. Holds nothing between frames.
#[derive(Debug)]
pub struct Reader {
    max: usize,
    /// Bytes that were read and not parsed: incomplete, or frames that arrived together.
    unparsed: BytesMut,
    fragments: Option<Box<Fragments>>,
}

impl Reader {
    /// Accepts messages of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, unparsed: BytesMut::new(), fragments: None }
    }

    /// The next message or control frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, ReadError>>> {
        loop {
            match self.parse() {
                Ok(None) => {}
                Ok(Some(incoming)) => return Poll::Ready(Some(Ok(incoming))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let mut space = [const { MaybeUninit::uninit() }; READ_SIZE];
            let mut read = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(None),
                Poll::Ready(Ok(())) => self.unparsed.extend_from_slice(read.filled()),
            }
        }
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.unparsed.capacity() + self.fragments.as_ref().map_or(0, |fragments| fragments.payload.capacity())
    }

    /// Parses frames until a message or a control frame is complete. `None`: more bytes are needed.
    fn parse(&mut self) -> Result<Option<Incoming>, ReadError> {
        loop {
            let mut cursor = Cursor::new(&self.unparsed[..]);
            let header = FrameHeader::parse(&mut cursor);
            let header = header.map_err(|_| ReadError::Invalid("the opcode is reserved"))?;
            let Some((header, length)) = header else { return Ok(None) };
            let mask = self.check(&header, length)?;
            let head = usize::try_from(cursor.position()).expect("a header is short");
            let length = usize::try_from(length).expect("at most the limit, which is a usize");
            if self.unparsed.len() - head < length {
                return Ok(None);
            }
            let mut payload = self.unparsed.split_to(head + length);
            if self.unparsed.is_empty() {
                // Drops the reference to the buffer, so that it is freed together with the payload.
                self.unparsed = BytesMut::new();
            }
            payload.advance(head);
            unmask(&mut payload, mask);
            if let Some(incoming) = self.frame(&header, payload)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// Checks a header. Returns the mask.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<[u8; 4], ReadError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(ReadError::Invalid("it uses an extension, such as compression, and none was agreed"));
        }
        let Some(mask) = header.mask else { return Err(ReadError::Invalid("it is not masked")) };
        match header.opcode {
            OpCode::Control(_) if !header.is_final => {
                return Err(ReadError::Invalid("a control frame is fragmented"));
            }
            OpCode::Control(_) if length > MAX_CONTROL => {
                return Err(ReadError::Invalid("a control frame has more than 125 bytes"));
            }
            OpCode::Control(_) => return Ok(mask),
            OpCode::Data(Data::Continue) if self.fragments.is_none() => {
                return Err(ReadError::Invalid("a message begins with a continuation"));
            }
            OpCode::Data(Data::Continue) => {}
            OpCode::Data(_) if self.fragments.is_some() => {
                return Err(ReadError::Invalid("a message begins inside of another one"));
            }
            OpCode::Data(_) => {}
        }
        let earlier = self.fragments.as_ref().map_or(0, |fragments| fragments.payload.len());
        let size = length.saturating_add(earlier as u64);
        if size > self.max as u64 {
            return Err(ReadError::TooLarge { size, max: self.max });
        }
        Ok(mask)
    }

    /// Handles a frame. `None`: it is a fragment of a message that is not complete.
    fn frame(&mut self, header: &FrameHeader, payload: BytesMut) -> Result<Option<Incoming>, ReadError> {
        let is_text = match header.opcode {
            OpCode::Control(Control::Ping) => return Ok(Some(Incoming::Ping(payload.freeze()))),
            OpCode::Control(Control::Pong) => return Ok(Some(Incoming::Pong)),
            OpCode::Control(_) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return Ok(Some(Incoming::Close(code)));
            }
            OpCode::Data(Data::Continue) => {
                let fragments = self.fragments.as_mut().expect("checked with the header");
                fragments.payload.extend_from_slice(&payload);
                if !header.is_final {
                    return Ok(None);
                }
                let fragments = self.fragments.take().expect("checked with the header");
                return message(fragments.is_text, fragments.payload).map(Some);
            }
            OpCode::Data(kind) => kind == Data::Text,
        };
        if header.is_final {
            return message(is_text, payload).map(Some);
        }
        self.fragments = Some(Box::new(Fragments { is_text, payload: BytesMut::from(&payload[..]) }));
        Ok(None)
    }
}

fn message(is_text: bool, payload: BytesMut) -> Result<Incoming, ReadError> {
    let payload = payload.freeze();
    let message = match is_text {
        true => Message::Text(
            Utf8Bytes::try_from(payload).map_err(|_| ReadError::Invalid("a text is not UTF-8"))?,
        ),
        false => Message::Binary(payload),
    };
    Ok(Incoming::Message(message))
}

/// Removes the mask of a client's frame.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(mem::size_of::<u64>());
    for word in &mut words {
        let masked = u64::from_ne_bytes((&*word).try_into().expect("a word has the size of a u64"));
        word.copy_from_slice(&(masked ^ wide).to_ne_bytes());
    }
    words.into_remainder().iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}
