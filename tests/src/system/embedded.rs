//! The one-process program.

use super::{CHEAP, System, address, set_arguments};
use crate::process::{self, Process};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

/// `godwit` on a data directory of its own.
#[derive(Debug)]
pub struct Embedded {
    process: Process,
    gateways: Vec<String>,
    admin: String,
    settings: Vec<String>,
    data: Data,
    /// A command that runs the program, such as `nsenter`; usually empty.
    wrapper: Vec<String>,
}

#[derive(Debug)]
enum Data {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Embedded {
    /// Starts it on an empty directory, which is removed when it is dropped.
    ///
    /// # Errors
    /// If it does not start; the error has its output.
    pub async fn start(settings: &[&str]) -> Result<Self> {
        Self::start_on(Data::Own(tempfile::tempdir()?), settings, "127.0.0.1:0", vec![]).await
    }

    /// Starts it on a directory that may hold data and is kept afterwards.
    ///
    /// # Errors
    /// If it does not start; the error has its output.
    pub async fn start_in(data: PathBuf, settings: &[&str]) -> Result<Self> {
        Self::start_on(Data::Given(data), settings, "127.0.0.1:0", vec![]).await
    }

    /// Starts it on a given directory and address, through a wrapper command that gets the program as its arguments.
    ///
    /// # Errors
    /// If it does not start; the error has its output.
    pub async fn start_wrapped(
        wrapper: Vec<String>,
        data: PathBuf,
        settings: &[&str],
        listen: &str,
    ) -> Result<Self> {
        Self::start_on(Data::Given(data), settings, listen, wrapper).await
    }

    async fn start_on(data: Data, settings: &[&str], listen: &str, wrapper: Vec<String>) -> Result<Self> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let (process, gateway, admin) = Self::spawn(&data, &settings, listen, &wrapper).await?;
        Ok(Self { process, gateways: vec![gateway], admin, settings, data, wrapper })
    }

    async fn spawn(
        data: &Data,
        settings: &[String],
        listen: &str,
        wrapper: &[String],
    ) -> Result<(Process, String, String)> {
        let mut command = Self::command(&data.path(), settings, listen)?;
        if let [program, arguments @ ..] = wrapper {
            let mut wrapped = Command::new(program);
            wrapped.args(arguments).arg(command.get_program()).args(command.get_args());
            command = wrapped;
        }
        let mut process = Process::spawn("godwit", command)?;
        let gateway = address(&process.line("listening on ").await?)?;
        let admin = address(&process.line("admin on ").await?)?;
        Ok((process, gateway, admin))
    }

    /// The command that starts the program. It ignores SIGXFSZ, so that tests can make its writes fail with a limit on the size
    /// of files instead of killing it.
    ///
    /// # Errors
    /// If the program was not built.
    pub fn command(data: &std::path::Path, settings: &[String], listen: &str) -> Result<Command> {
        let program = process::path("godwit")?;
        let all = CHEAP.into_iter().chain(["gateway.admin_listen=127.0.0.1:0"]);
        let all = all.chain(settings.iter().map(String::as_str));
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(program)
            .args(["--listen", listen, "--data"])
            .arg(data)
            .args(set_arguments(all));
        Ok(command)
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Address of `/readyz` and `/metrics`. It changes with each start.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.data.path()
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after it has exited, with the same data and the same address.
    ///
    /// # Errors
    /// If it does not start; the error has its output.
    pub async fn start_again(&mut self) -> Result<()> {
        (self.process, _, self.admin) =
            Self::spawn(&self.data, &self.settings, &self.gateways[0], &self.wrapper).await?;
        Ok(())
    }
}

impl Data {
    fn path(&self) -> PathBuf {
        match self {
            Self::Own(folder) => folder.path().to_owned(),
            Self::Given(path) => path.clone(),
        }
    }
}

impl System for Embedded {
    fn mode(&self) -> &'static str {
        "embedded"
    }

    fn gateways(&self) -> &[String] {
        &self.gateways
    }
}
