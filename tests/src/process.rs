//! A program of this workspace as a child process: its output, signals and exit.

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

/// Lines of output that are kept per process.
const KEPT_LINES: usize = 2_000;

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Output>>,
    /// The threads that read the output. They end at its end.
    readers: Vec<JoinHandle<()>>,
}

/// The output of a process.
#[derive(Debug, Default)]
struct Output {
    /// The last lines.
    lines: VecDeque<String>,
    /// A file that gets all lines.
    file: Option<File>,
}

impl Output {
    fn add(&mut self, line: String) {
        if let Some(file) = &mut self.file {
            // A failing log file must not stop the process.
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
        // The variables that configure the tests must not configure the programs, except for a deliberate defect.
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
        let output = Arc::new(Mutex::new(Output::default()));
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        let read = |pipe: Box<dyn Read + Send>| {
            let output = Arc::clone(&output);
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    output.lock().unwrap_or_else(PoisonError::into_inner).add(line);
                }
            })
        };
        let readers = pipes.into_iter().flatten().map(read).collect();
        Ok(Self { name: name.to_owned(), child, output, readers })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Takes its standard input. `None` if it was already taken.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// The last lines of its standard output and standard error.
    pub fn output(&self) -> Vec<String> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }

    /// Appends its output to a file: the lines that are still kept, and all later ones.
    ///
    /// # Errors
    /// If the file can't be opened or written.
    pub fn log_to(&self, file: &Path) -> Result<()> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = File::options().create(true).append(true).open(file)?;
        for line in &output.lines {
            writeln!(opened, "{line}")?;
        }
        output.file = Some(opened);
        Ok(())
    }

    /// Waits for a line that begins with `prefix` and returns the rest of the line.
    ///
    /// # Errors
    /// If the process exits first, or there is no such line in time.
    pub async fn line(&mut self, prefix: &str) -> Result<String> {
        let output = Arc::clone(&self.output);
        let process = Mutex::new(&mut *self);
        let found = eventually(&format!("a line '{prefix}...'"), async || {
            let ended = process.lock().unwrap_or_else(PoisonError::into_inner).try_ended()?;
            let line = output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .lines
                .iter()
                .find_map(|line| line.strip_prefix(prefix).map(str::to_owned));
            // An exit ends the wait: no further line can come.
            match (line, ended) {
                (Some(line), _) => Ok(Ok(line)),
                (None, Some(status)) => Ok(Err(anyhow!("it exited with {status}"))),
                (None, None) => bail!("no such line yet"),
            }
        })
        .await;
        found
            .and_then(|found| found)
            .with_context(|| format!("output of {}:\n{}", self.name, self.output().join("\n")))
    }

    /// Kills it (SIGKILL).
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

    /// Waits until it exits.
    ///
    /// # Errors
    /// If it does not exit in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let (name, process) = (self.name.clone(), Mutex::new(self));
        eventually(&format!("{name} exits"), async || {
            let ended = process.lock().unwrap_or_else(PoisonError::into_inner).try_ended()?;
            ended.ok_or_else(|| anyhow!("it is running"))
        })
        .await
    }

    /// Its exit status, once it has exited and all its output has been read.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        Ok(ended.filter(|_| self.readers.iter().all(JoinHandle::is_finished)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The path of a program of this workspace: in the folder of the running program, or above that of the running test.
///
/// # Errors
/// If it was not built; the error tells how to build it.
pub fn path(program: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("find the running test")?;
    let folder = test.parent().context("the test is not in a target folder")?;
    // The executables of tests are one folder below the programs.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(program);
    if !path.exists() {
        bail!("{} was not built: run `cargo build --workspace --bins`, or `tests/run`", path.display());
    }
    Ok(path)
}
