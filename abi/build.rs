//! Generates code from `proto/` without `protoc`: messages, gRPC clients and servers, proto3 JSON, and descriptors for reflection.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

const FILES: [&str; 4] =
    ["godwit/v1/entry.proto", "godwit/v1/client.proto", "godwit/v1/services.proto", "godwit/v1/export.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, [&root])?;
    let encoded = descriptors.encode_to_vec();
    fs::write(out.join("godwit.v1.descriptors.bin"), &encoded)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    pbjson_build::Builder::new().register_descriptors(&encoded)?.build(&[".godwit.v1"])?;
    Ok(())
}
