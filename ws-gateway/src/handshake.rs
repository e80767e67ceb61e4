//! The WebSocket handshake.

use crate::{codec::Format, problem::Problem};
use abi::{ApiError, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::{
    Error, error::ProtocolError::MissingSecWebSocketVersionHeader,
    handshake::server::create_response_with_body,
};
use utils::problem::respond;

/// An accepted handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// Wire format, as negotiated.
    pub(crate) format: Format,
    /// The response that accepts it.
    pub(crate) response: Response,
    /// Resolves to the stream after the response.
    pub(crate) upgrade: OnUpgrade,
}

/// Checks a handshake. It agrees on no extension, so that messages are never compressed.
///
/// # Errors
/// The response that refuses it.
pub(crate) fn accept(mut request: Request) -> Result<Handshake, Box<Response>> {
    let mut response = create_response_with_body(&request, Body::empty).map_err(|error| refusal(&error))?;
    let (selected, is_requested) = subprotocol(request.headers());
    let format = Format::of_subprotocol(selected, is_requested).ok_or_else(|| {
        let error = format!("request the subprotocol {SUBPROTOCOL_PROTO} or {SUBPROTOCOL_JSON}");
        Box::new(Problem::from(ApiError::invalid(error)).into_response())
    })?;
    if let Some(selected) = selected {
        let selected = HeaderValue::from_static(selected);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, selected);
    }
    Ok(Handshake { format, response, upgrade: hyper::upgrade::on(&mut request) })
}

/// The preferred one of the requested subprotocols, and whether any was requested.
fn subprotocol(headers: &HeaderMap) -> (Option<&'static str>, bool) {
    let mut requested = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().peekable();
    let is_requested = requested.peek().is_some();
    let names: Vec<_> = requested
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let selected = [SUBPROTOCOL_PROTO, SUBPROTOCOL_JSON].into_iter().find(|name| names.contains(name));
    (selected, is_requested)
}

/// The response to a request that is no handshake of a WebSocket.
fn refusal(error: &Error) -> Box<Response> {
    let is_version = matches!(error, Error::Protocol(MissingSecWebSocketVersionHeader));
    let error = ApiError::invalid(format!("this path expects a WebSocket handshake: {error}"));
    let mut response = match is_version {
        true => respond(426, &error),
        false => Problem(error).into_response(),
    };
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if is_version {
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Box::new(response)
}
