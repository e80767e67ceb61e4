//! Stands in for `export` in a program without the feature `otlp`: refuses an endpoint.

use super::start_error;
use crate::{Error, Shutdown};
use abi::config::Trace;

pub(crate) fn start(_: &'static str, _: &'static str, config: &Trace, _: &Shutdown) -> Result<(), Error> {
    match start_error(config) {
        Some(reason) => Err(Error::Telemetry { reason: reason.into() }),
        None => Ok(()),
    }
}
