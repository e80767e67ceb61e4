//! Generates `deploy/godwit.toml` and `docs/configuration.md` from the definitions of the keys.

use abi::config::reference;
use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::write(root.join("deploy/godwit.toml"), reference::file())?;
    fs::write(root.join("docs/configuration.md"), reference::page())
}
