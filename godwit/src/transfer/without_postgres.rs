//! Stands in for `postgres` in a program without the feature `distributed`: refuses every call.

use abi::config::Config;
use anyhow::bail;
use db_service::transfer::{Place, Summary};
use std::io::Write;

const MISSING: &str = "this godwit was built without PostgreSQL and Kafka; \
    --distributed needs one built with `cargo build --release -p godwit --features distributed`";

pub(super) async fn export(
    _: &Config,
    _: Box<dyn Write + Send>,
    _despite_lag: bool,
) -> anyhow::Result<Summary> {
    bail!(MISSING)
}

pub(super) fn place(_: &Config) -> anyhow::Result<Place> {
    bail!(MISSING)
}

pub(super) async fn restored(_: &Config) -> anyhow::Result<()> {
    bail!(MISSING)
}
