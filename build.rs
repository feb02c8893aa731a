//! Compiles the contract without protoc and keeps its descriptor for gRPC reflection.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["oblet/agent/v1/agent.proto"], ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("agent_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().skip_debug(["oblet.agent.v1.Secret"]).compile_fds(descriptors)?;
    Ok(())
}
