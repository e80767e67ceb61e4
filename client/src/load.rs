//! x
use crate::{
    Server,
    cli::{LoadCommand, Output},
};
pub(crate) async fn run(
    _server: Server,
    _out: Output,
    _command: LoadCommand,
) -> anyhow::Result<std::process::ExitCode> {
    Ok(std::process::ExitCode::SUCCESS)
}
