//! A program of this workspace as a process: started, listened to, ended.

use crate::eventually;
use anyhow::{Context as _, Result, anyhow, bail};
use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// Lines that are kept of what a process says.
const KEPT_LINES: usize = 2_000;

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: Arc<Mutex<Said>>,
    /// They end once all that it said is in `said`.
    listeners: Vec<JoinHandle<()>>,
}

/// What a process has said.
#[derive(Debug, Default)]
struct Said {
    /// The last ones.
    lines: VecDeque<String>,
    /// All of them, if somebody asked for that.
    file: Option<File>,
}

impl Said {
    fn hear(&mut self, line: String) {
        if let Some(file) = &mut self.file {
            // A log that can't be kept is no reason to stop what it tells of.
            let _ = writeln!(file, "{line}");
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

impl Process {
    /// Starts a program of this workspace with arguments, in an environment without `GODWIT_*` variables.
    ///
    /// # Errors
    /// If it was not built or can't be started.
    pub fn start<A: AsRef<str>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<Self> {
        let mut command = Command::new(path(program)?);
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        Self::spawn(program, command)
    }

    /// Starts any command; `name` is for messages.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(name: &str, mut command: Command) -> Result<Self> {
        // What configures the tests is not for the programs, but for the defect that one is meant to have.
        let other = |name: &str| name.starts_with("GODWIT_") && name != "GODWIT_DEFECT";
        for (variable, _) in std::env::vars().filter(|(name, _)| other(name)) {
            command.env_remove(variable);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let said = Arc::new(Mutex::new(Said::default()));
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        let listen = |pipe: Box<dyn Read + Send>| {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    said.lock().unwrap_or_else(PoisonError::into_inner).hear(line);
                }
            })
        };
        let listeners = pipes.into_iter().flatten().map(listen).collect();
        Ok(Self { name: name.to_owned(), child, said, listeners })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has said on its standard output and its standard error, line by line.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }

    /// Appends all that it says to a file, from the first line on that is still known.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub fn keep(&self, file: &Path) -> Result<()> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = File::options().create(true).append(true).open(file)?;
        for line in &said.lines {
            writeln!(opened, "{line}")?;
        }
        said.file = Some(opened);
        Ok(())
    }

    /// The rest of the first line that begins with `prefix`, as soon as it is said.
    ///
    /// # Errors
    /// If it ends before, or says nothing of the kind for too long.
    pub async fn line(&mut self, prefix: &str) -> Result<String> {
        let said = Arc::clone(&self.said);
        let process = Mutex::new(&mut *self);
        let found = eventually(&format!("a line '{prefix}...'"), async || {
            let ended = process.lock().unwrap_or_else(PoisonError::into_inner).try_ended()?;
            let line = said
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .lines
                .iter()
                .find_map(|line| line.strip_prefix(prefix).map(str::to_owned));
            // An end is no error of this attempt: it is the answer to all the following ones.
            match (line, ended) {
                (Some(line), _) => Ok(Ok(line)),
                (None, Some(status)) => Ok(Err(anyhow!("it ended with {status}"))),
                (None, None) => bail!("nothing yet"),
            }
        })
        .await;
        found
            .and_then(|found| found)
            .with_context(|| format!("{} said:\n{}", self.name, self.said().join("\n")))
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by its name, such as `TERM`.
    ///
    /// # Errors
    /// If it can't be sent.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let done = Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status()?;
        if done.success() { Ok(()) } else { bail!("kill -{signal} {} failed", self.name) }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let (name, process) = (self.name.clone(), Mutex::new(self));
        eventually(&format!("the end of {name}"), async || {
            let ended = process.lock().unwrap_or_else(PoisonError::into_inner).try_ended()?;
            ended.ok_or_else(|| anyhow!("it is running"))
        })
        .await
    }

    /// How it ended, once it has, and once all that it said before was heard.
    ///
    /// # Errors
    /// If the system can't say.
    pub fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        Ok(ended.filter(|_| self.listeners.iter().all(JoinHandle::is_finished)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a program of this workspace is: beside the running program, or the folder of the running test.
///
/// # Errors
/// A sentence with what to do, if it was not built.
pub fn path(program: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("find the running test")?;
    let folder = test.parent().context("the test is in no target folder")?;
    // Tests are one folder deeper than programs.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(program);
    if !path.exists() {
        bail!("{} was not built: run `cargo build --workspace --bins`, or `tests/run`", path.display());
    }
    Ok(path)
}
