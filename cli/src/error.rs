//! Errors of the command line: wrong usage, and the sentence that a person reads.

use std::io;

/// A command line or an argument that makes no sense. The exit code is 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One sentence for people. `option` is what names another server.
pub(crate) fn sentence(error: &anyhow::Error, url: &str, option: &str) -> String {
    let text = causes(error);
    match error.chain().find_map(|cause| cause.downcast_ref::<client::Error>()) {
        Some(client::Error::Connect { .. }) => format!(
            "{text}\nis the server running at {url}? start it with `cargo run --release`, or name another with {option}"
        ),
        Some(client::Error::Closed { code: Some(abi::error::ErrorCode::Replaced), .. }) => {
            "another godwit-cli of this user has taken over the connection".to_owned()
        }
        _ => text,
    }
}

/// An error and what is behind it. Some causes are part of the sentence that they cause: those are not said again.
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
    fn nothing_is_said_twice() {
        let fault = client::Error::from(ApiError::forbidden("only an owner adds members"));
        let error = Err::<(), _>(fault).context("cannot make the group").unwrap_err();
        assert_eq!(
            sentence(&error, "http://host", "--url"),
            "cannot make the group: only an owner adds members"
        );
    }

    #[test]
    fn who_finds_no_server_is_told_how_to_start_one() {
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
