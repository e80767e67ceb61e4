//! Errors: wrong usage, and the text for the terminal.

use std::io;

/// An invalid argument. The exit code is 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The text of an error for the terminal. `option` is the flag that selects another server.
pub(crate) fn sentence(error: &anyhow::Error, url: &str, option: &str) -> String {
    let text = causes(error);
    match error.chain().find_map(|cause| cause.downcast_ref::<client::Error>()) {
        Some(client::Error::Connect { .. }) => format!(
            "{text}\nis the server running at {url}? start it with `cargo run --release`, or select another server with {option}"
        ),
        Some(client::Error::Closed { code: Some(abi::error::ErrorCode::Replaced), .. }) => {
            "another godwit-cli of this user has taken over the connection".to_owned()
        }
        _ => text,
    }
}

/// An error with its causes. A cause that the text already contains is not repeated.
fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ApiError;
    use anyhow::Context as _;

    #[test]
    fn causes_are_not_repeated() {
        let refused = client::Error::from(ApiError::forbidden("only an owner adds members"));
        let error = Err::<(), _>(refused).context("cannot create the group").unwrap_err();
        assert_eq!(
            sentence(&error, "http://host", "--url"),
            "cannot create the group: only an owner adds members"
        );
    }

    #[test]
    fn an_unreachable_server_comes_with_a_hint_how_to_start_one() {
        let source = std::sync::Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = client::Error::Connect { address: "host:1".into(), source };
        let text = sentence(&error.into(), "http://host:1", "--admin");
        assert!(
            text.contains("cargo run --release")
                && text.contains("--admin")
                && text.matches("refused").count() == 1,
            "{text}"
        );
    }
}
