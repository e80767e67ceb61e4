//! One instance of a service of the cluster.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use tests::{
    process::{self, Process},
    system::Instance,
};

/// The programs of the services.
#[derive(Clone, Copy, Debug)]
pub enum Programs<'a> {
    /// Those of this build.
    Own,
    /// Those of another version, in a folder.
    In(&'a Path),
}

impl Programs<'_> {
    fn file(self, program: &str) -> Result<PathBuf> {
        match self {
            Self::Own => process::path(program),
            Self::In(folder) => Ok(folder.join(program)),
        }
    }
}

/// An instance of a service, running or not.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) program: &'static str,
    pub(super) number: usize,
    pub(super) settings: Vec<String>,
    /// A gateway's own address.
    pub(super) listen: String,
    /// The running process; `None` before the start and after a kill.
    pub(super) instance: Option<Instance>,
}

impl Service {
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.program, self.number)
    }

    /// Starts it. It may become ready only later, because the servers that it needs may be down.
    pub(super) async fn start(&mut self, logs: &Path, programs: Programs<'_>) -> Result<()> {
        let file = programs.file(self.program)?;
        let mut instance =
            Instance::start_of(&file, self.program, self.settings.clone(), &self.listen).await?;
        instance.process().log_to(&logs.join(format!("{}-{}.log", self.program, self.number)))?;
        self.instance = Some(instance);
        Ok(())
    }

    pub(super) async fn ready(&self) -> Result<()> {
        self.instance.as_ref().context("the service was killed")?.ready().await
    }

    pub(super) fn process(&mut self) -> Result<&mut Process> {
        Ok(self.instance.as_mut().context("the service was killed")?.process())
    }
}
