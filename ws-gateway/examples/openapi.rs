//! Writes `docs/openapi.json` from the operations of the gateway. With `--release` it also writes `docs/openapi-promises.txt`, what a
//! release promises to its clients.

use std::{env, fs, io, path::Path};
use ws_gateway::{http, openapi::promises};

fn main() -> io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let document = http::openapi();
    fs::write(docs.join("openapi.json"), format!("{document:#}\n"))?;
    if env::args().any(|argument| argument == "--release") {
        fs::write(docs.join("openapi-promises.txt"), promises::of(&document).join("\n") + "\n")?;
    }
    Ok(())
}
