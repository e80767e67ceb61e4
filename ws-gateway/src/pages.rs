//! Pages as answers over HTTP: one JSON body each, whose memory counts until the client has taken it.

use crate::{answers, backend::Backend, problem::Problem};
use abi::{ApiError, error::ErrorCode};
use axum::{
    body::Body,
    http::header,
    response::{IntoResponse as _, Response},
};
use prost::Message;
use serde::Serialize;

/// Answers with a page. Its memory counts like that of the answers on WebSockets.
///
/// # Errors
/// `UNAVAILABLE`: the gateway has no memory for it now; those of `read`.
pub(crate) async fn page<T: Serialize>(
    backend: &Backend,
    read: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response, Problem> {
    let reserved = answers::reserve(backend)?;
    let json = serde_json::to_vec(&read.await?).map_err(|_| unreadable())?;
    let counted = answers::count(backend, json.into())?;
    drop(reserved);
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(counted)).into_response())
}

/// Decodes a page whose entries or heads are encoded. It has the same bytes as the page for clients.
///
/// # Errors
/// `INTERNAL`: the stored entries can't be decoded.
pub(crate) fn decoded<T: Message + Default>(page: &impl Message) -> Result<T, ApiError> {
    T::decode(&*page.encode_to_vec()).map_err(|_| unreadable())
}

fn unreadable() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the server cannot read stored entries; see its log")
}
