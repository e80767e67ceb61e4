//! A filesystem that can be filled up.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    io::{ErrorKind, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::process::Process;

/// Its size. It takes memory only for written data.
const SIZE: &str = "3g";
/// The file that occupies the free space.
const FILLER: &str = "filler";

/// The filesystem for the data of a program.
///
/// It is a tmpfs in a mount namespace, which a process holds open. So it needs no privileges and leaves nothing behind. Where
/// user namespaces are not available, a limit on the size of files replaces it.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// The process that holds the namespace open.
    namespace_holder: Option<Process>,
}

impl Disk {
    /// Creates the folder and mounts the filesystem on it.
    pub(super) async fn start(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={SIZE} godwit \"$0\" && echo mounted && exec cat");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(path);
        let mut namespace_holder = Process::spawn("a small disk", command)?;
        let mounted = namespace_holder.line("mounted").await.is_ok();
        Ok(Self { path: path.to_owned(), namespace_holder: mounted.then_some(namespace_holder) })
    }

    /// Whether the folder is a filesystem of its own.
    pub(super) fn has_own_filesystem(&self) -> bool {
        self.namespace_holder.is_some()
    }

    /// The folder for the data, as the program sees it.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The command that runs a program inside the namespace.
    pub(super) fn command_prefix(&self) -> Vec<String> {
        let Some(namespace_holder) = &self.namespace_holder else { return vec![] };
        let namespace_holder = namespace_holder.id().to_string();
        ["nsenter", "--target", &namespace_holder, "--user", "--mount", "--preserve-credentials", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// The folder's path outside the namespace.
    fn host_path(&self) -> PathBuf {
        match &self.namespace_holder {
            Some(namespace_holder) => {
                let root = PathBuf::from(format!("/proc/{}/root", namespace_holder.id()));
                root.join(self.path.strip_prefix("/").unwrap_or(&self.path))
            }
            None => self.path.clone(),
        }
    }

    /// Fills the disk. A program can still overwrite existing files for a while: the store overwrites its journal in place.
    pub(super) fn fill(&self) -> Result<()> {
        if self.namespace_holder.is_none() {
            return Ok(());
        }
        let path = self.host_path().join(FILLER);
        let mut filler = File::create(&path)?;
        // Large pieces are allocated without writing; the rest is written page by page.
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

    /// Makes all file writes of a process fail, also those in place.
    pub(super) fn deny_writes(process: u32) -> Result<()> {
        limit_files(process, "0")
    }

    /// Undoes [`Disk::fill`] and [`Disk::deny_writes`].
    pub(super) fn free(&self, process: u32) -> Result<()> {
        limit_files(process, "unlimited")?;
        if self.namespace_holder.is_some() {
            fs::remove_file(self.host_path().join(FILLER))?;
        }
        Ok(())
    }

    /// Copies the data to a folder.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        copy(&self.host_path().join("data"), to)
    }
}

/// Extends a file. Returns whether there was enough space.
fn allocate(file: &Path, offset: u64, length: u64) -> Result<bool> {
    let [offset, length] = [offset, length].map(|bytes| bytes.to_string());
    let mut command = Command::new("fallocate");
    command.args(["--offset", &offset, "--length", &length]).arg(file).stderr(Stdio::null());
    Ok(command.status().context("run fallocate of util-linux")?.success())
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
    ensure!(status.context("run prlimit of util-linux")?.success(), "prlimit {limit} failed");
    Ok(())
}
