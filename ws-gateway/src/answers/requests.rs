//! Performs requests: one call of the part that serves each of them.

use super::Answer;
use crate::{backend::Backend, hub::Connection, protocol::Request, send};
use abi::{
    ApiError,
    v1::{Done, Pong, client_frame::Frame as Ask, server_frame::Frame},
};

/// Performs a request of a connection.
///
/// # Errors
/// The error for the device.
pub(super) async fn perform(
    backend: &Backend,
    connection: &Connection,
    request: Request,
) -> Result<Answer, ApiError> {
    let user = &connection.identity.user;
    let done = |()| Answer::Frame(Frame::Done(Done {}));
    match request.0 {
        Ask::Ping(_) => {
            let receiver_seq = backend.connections().renew(connection).await.ok();
            Ok(Answer::Frame(Frame::Pong(Pong { receiver_seq })))
        }
        Ask::Changes(page) => backend.reading().changes(user, page).await.map(Answer::Changes),
        Ask::Heads(page) => backend.reading().heads(user, page).await.map(Answer::Heads),
        Ask::History(page) => backend.reading().history(user, page, 0).await.map(Answer::History),
        Ask::Readers(page) => {
            backend.reading().readers(user, page).await.map(|found| Answer::Frame(Frame::Readers(found)))
        }
        Ask::Blocks(page) => {
            backend.reading().blocks(user, page).await.map(|found| Answer::Frame(Frame::Blocks(found)))
        }
        Ask::Profiles(page) => {
            backend.reading().profiles(user, page).await.map(|found| Answer::Frame(Frame::Profiles(found)))
        }
        Ask::Read(read) => {
            backend.user_state().mark_read(user, read).await.map(|read| Answer::Frame(Frame::Read(read)))
        }
        Ask::Settings(change) => backend.user_state().change_settings(user, change).await.map(done),
        Ask::Block(block) => backend.user_state().change_block(user, block).await.map(done),
        Ask::Profile(profile) => backend.user_state().replace_profile(user, profile).await.map(done),
        Ask::Signal(signal) => backend.send_signal(user, signal).await.map(done),
        Ask::Watch(watch) => {
            let ttl = backend.settings().idle_timeout();
            let (watched, presences) = backend.signals().watch(user, watch, ttl).await?;
            connection.set_watched(watched);
            Ok(Answer::Frame(Frame::Presences(presences)))
        }
        Ask::Send(change) => send::change(backend, &connection.identity, change)
            .await
            .map(|ack| Answer::Frame(Frame::Ack(ack))),
        Ask::Hello(_) => Err(ApiError::invalid("hello was sent before")),
    }
}
