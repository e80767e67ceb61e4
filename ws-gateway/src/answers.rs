//! Answers to requests: in parts of at most the largest frame, each of which is made when the outbox has room for it.
//!
//! A page of history is read from the store part by part. So a device that reads slowly occupies the memory of a part, not of
//! the whole page.

mod parts;
mod requests;

use crate::{
    backend::Backend,
    hub::Connection,
    memory::Reservation,
    metrics,
    outbox::{Encoded, Outgoing},
    protocol::Request,
    reading::page_limit,
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{ChangesPage, EntriesPage, GetHistory, HeadsPage, ServerFrame, client_frame, server_frame::Frame},
};
use bytes::Bytes;
use parts::Parts;
use prost::Message as _;

/// Frames' worth of memory that a request may occupy: a part as it comes from the store, and encoded.
const RESERVED_FRAMES: usize = 2;
/// Most bytes of a page of history, in protobuf. The part that exceeds it is the last one.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// The answer to a request. Entries and heads in it are encoded already.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An answer without a list of entries or heads.
    Frame(Frame),
    /// `history`.
    History(EntriesPage),
    /// `changes`.
    Changes(ChangesPage),
    /// `heads`.
    Heads(HeadsPage),
}

/// Answers a request of a connection: queues the frames of the answer in its outbox. With id 0 it queues only an error.
pub async fn answer(backend: &Backend, connection: &Connection, id: u32, request: Request) {
    if let Err(error) = try_answer(backend, connection, id, request).await {
        refuse(connection, id, error);
    }
}

/// Queues an error.
pub fn refuse(connection: &Connection, id: u32, error: ApiError) {
    metrics::refused(error.code);
    push(connection, &ServerFrame { id, frame: Some(Frame::Error(error.into())), more_parts: false });
}

fn push(connection: &Connection, frame: &ServerFrame) {
    connection.outbox.push(Outgoing::Encoded(Encoded::own(connection.format.encode(frame))));
}

async fn try_answer(
    backend: &Backend,
    connection: &Connection,
    id: u32,
    request: Request,
) -> Result<(), ApiError> {
    if request.is_ping() {
        // A pong is small, and tells the device that the connection works: it is sent whatever the memory.
        let answer = requests::perform(backend, connection, request).await?;
        return queue(backend, connection, id, answer, false).await;
    }
    let _reservation = reserve(backend)?;
    match request {
        Request(client_frame::Frame::History(page)) => history(backend, connection, id, page).await,
        request => {
            let answer = requests::perform(backend, connection, request).await?;
            queue(backend, connection, id, answer, false).await
        }
    }
}

/// Reserves the memory that an answer in progress occupies.
///
/// # Errors
/// `UNAVAILABLE`: too much is in use.
pub(crate) fn reserve(backend: &Backend) -> Result<Reservation, ApiError> {
    reserve_bytes(backend, RESERVED_FRAMES * backend.limits().max_frame)
}

/// Counts the bytes of an answer as used until they are dropped.
///
/// # Errors
/// `UNAVAILABLE`: too much is in use.
pub(crate) fn count(backend: &Backend, answer: Bytes) -> Result<Bytes, ApiError> {
    Ok(reserve_bytes(backend, answer.len())?.hold(answer))
}

fn reserve_bytes(backend: &Backend, bytes: usize) -> Result<Reservation, ApiError> {
    let hub = backend.connections().hub();
    hub.memory().reserve(bytes).ok_or_else(|| {
        // Make room for the next attempt.
        hub.shed();
        ApiError::unavailable("the server is busy with other answers; try again")
    })
}

/// Reads a page of history part by part. Entries that are stored meanwhile may be in it, as in any later page.
async fn history(
    backend: &Backend,
    connection: &Connection,
    id: u32,
    mut page: GetHistory,
) -> Result<(), ApiError> {
    let max_frame = backend.limits().max_frame;
    let is_descending = page.newest || page.before > 0;
    page.limit = page_limit(page.limit)?;
    let mut bytes = 0;
    loop {
        connection.outbox.room(max_frame).await;
        // Three quarters: an entry has more than its content.
        let mut part =
            backend.reading().history(&connection.identity.user, page.clone(), max_frame / 4 * 3).await?;
        let count = i32::try_from(part.entries.len()).unwrap_or(i32::MAX);
        bytes += part.encoded_len();
        let continues = part.more && (1..page.limit).contains(&count) && bytes < MAX_PAGE_BYTES;
        if let Some(last) = part.entries.last().filter(|_| continues) {
            page.limit -= count;
            page.newest = false;
            let seq = conversation_seq(last)?;
            match is_descending {
                true => page.before = seq,
                false => page.after = seq,
            }
            part.more = false;
        }
        queue(backend, connection, id, Answer::History(part), continues).await?;
        if !continues {
            return Ok(());
        }
    }
}

/// Queues an answer, part by part. `continues`: the answer has more frames after these.
async fn queue(
    backend: &Backend,
    connection: &Connection,
    id: u32,
    answer: Answer,
    continues: bool,
) -> Result<(), ApiError> {
    if id == 0 {
        return Ok(());
    }
    let max_frame = backend.limits().max_frame;
    let mut parts = Parts::new(id, answer, connection.format, max_frame, continues);
    while let Some(message) = parts.next() {
        connection.outbox.push(Outgoing::Encoded(Encoded::own(message)));
        if parts.has_next() {
            connection.outbox.room(max_frame).await;
        }
    }
    Ok(())
}

fn conversation_seq(entry: &Bytes) -> Result<u64, ApiError> {
    abi::envelope::conversation_seq(entry)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the server cannot read a stored entry; see its log"))
}
