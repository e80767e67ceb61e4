//! Files of compressed JSON.

use anyhow::{Context as _, Result, ensure};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// Writes a value as JSON compressed with gzip.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut gzip =
        Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(file).spawn().context("run gzip")?;
    let mut out = BufWriter::new(gzip.stdin.take().context("gzip has no standard input")?);
    serde_json::to_writer(&mut out, value)?;
    out.flush()?;
    drop(out);
    ensure!(gzip.wait()?.success(), "gzip failed to write {}", path.display());
    Ok(())
}

/// Reads a file of [`write`].
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(file).stdout(Stdio::piped()).spawn().context("run gzip")?;
    let out = gzip.stdout.take().context("gzip has no standard output")?;
    let value = serde_json::from_reader(BufReader::new(out))?;
    gzip.wait()?;
    Ok(value)
}
