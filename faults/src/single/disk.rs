//! A disk that can be full.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    io::{ErrorKind, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::process::Process;

/// Its size. Nothing is taken before it is written.
const SIZE: &str = "3g";
/// What takes the rest of the space.
const FILLER: &str = "filler";

/// The filesystem that a program has its data on.
///
/// A small one in memory, in a mount namespace that a process holds open, so that no privilege is needed and nothing is
/// left behind. Where the system does not let its users have namespaces, a limit on the size of files has to do.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Keeps the namespace.
    holder: Option<Process>,
}

impl Disk {
    /// Makes it, on a folder that is made as well.
    pub(super) async fn start(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={SIZE} godwit \"$0\" && echo mounted && exec cat");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(path);
        let mut holder = Process::spawn("a small disk", command)?;
        let mounted = holder.line("mounted").await.is_ok();
        Ok(Self { path: path.to_owned(), holder: mounted.then_some(holder) })
    }

    /// Whether it is a filesystem of its own.
    pub(super) fn is_real(&self) -> bool {
        self.holder.is_some()
    }

    /// The folder for the data, as the program sees it.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What has to come before a program that is to see it.
    pub(super) fn within(&self) -> Vec<String> {
        let Some(holder) = &self.holder else { return vec![] };
        let holder = holder.id().to_string();
        ["nsenter", "--target", &holder, "--user", "--mount", "--preserve-credentials", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// The folder, as this process sees it.
    fn seen(&self) -> PathBuf {
        match &self.holder {
            Some(holder) => {
                let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
                root.join(self.path.strip_prefix("/").unwrap_or(&self.path))
            }
            None => self.path.clone(),
        }
    }

    /// Leaves no space. A program can go on for a while in files that it has: the store overwrites its journal in place.
    pub(super) fn fill(&self) -> Result<()> {
        if self.holder.is_none() {
            return Ok(());
        }
        let path = self.seen().join(FILLER);
        let mut filler = File::create(&path)?;
        // Large pieces are given without being written; the last ones are of the size of a page.
        for size in [256 << 20, 16 << 20, 1 << 20] {
            let mut length = filler.metadata()?.len();
            while allocate(&path, length, size)? {
                length += size;
            }
        }
        filler.seek(SeekFrom::End(0))?;
        loop {
            match filler.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
    }

    /// Lets the process write nothing, not even in place.
    pub(super) fn deny(process: u32) -> Result<()> {
        limit_files(process, "0")
    }

    /// Undoes [`Disk::fill`] and [`Disk::deny`].
    pub(super) fn free(&self, process: u32) -> Result<()> {
        limit_files(process, "unlimited")?;
        if self.holder.is_some() {
            fs::remove_file(self.seen().join(FILLER))?;
        }
        Ok(())
    }

    /// Copies the data to a folder.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        copy(&self.seen().join("data"), to)
    }
}

/// Lengthens a file, as long as there is space for it.
fn allocate(file: &Path, offset: u64, length: u64) -> Result<bool> {
    let [offset, length] = [offset, length].map(|bytes| bytes.to_string());
    let mut command = Command::new("fallocate");
    command.args(["--offset", &offset, "--length", &length]).arg(file).stderr(Stdio::null());
    Ok(command.status().context("fallocate of util-linux")?.success())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn limit_files(process: u32, size: &str) -> Result<()> {
    let limit = format!("--fsize={size}:unlimited");
    let status = Command::new("prlimit").args(["--pid", &process.to_string(), &limit]).status();
    ensure!(status.context("prlimit of util-linux")?.success(), "prlimit {limit} failed");
    Ok(())
}
