//! Generates code from `proto/` without `protoc`: messages, gRPC clients and servers, proto3 JSON, and descriptors for reflection.

#[path = "build/json.rs"]
mod json;

use prost::Message as _;
use std::{env, fs, path::PathBuf};

const FILES: [&str; 5] = [
    "godwit/v1/entry.proto",
    "godwit/v1/client.proto",
    "godwit/v1/services.proto",
    "godwit/v1/delivery.proto",
    "godwit/v1/export.proto",
];

/// Files whose messages have a JSON form: devices see no others.
const JSON_FILES: [&str; 2] = ["godwit/v1/entry.proto", "godwit/v1/client.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, [&root])?;
    fs::write(out.join("godwit.v1.descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("godwit.v1.json.rs"), json::generate(&descriptors, &JSON_FILES)?)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
