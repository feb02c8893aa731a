//! Programs that stand in for OceanBase's own in tests and in the demo, and the package that carries one of them.

pub mod client;
pub mod mysql;
pub mod obproxy;
pub mod package;

use std::{env, io, path::PathBuf};

/// Where cargo put a program of this workspace, seen from a test of any of its packages.
/// Fails when the program was not built: `cargo build --workspace` makes all of them.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let test = env::current_exe()?;
    let built = test.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    built
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is not built: cargo build --workspace")))
}
