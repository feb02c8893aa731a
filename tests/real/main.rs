//! `make real`, which proves that oblet can manage the obproxy of a package, with the stand-in's packages of both versions.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "what a test prints is shown when it fails")]

#[path = "../support/skip.rs"]
mod skip;

use oblet_standins::package::{self, Options};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One version, where its hosts are, and what nothing else on this machine uses meanwhile.
struct Check {
    options: fn(PathBuf, &Path) -> Options,
    met: &'static str,
    /// Number of the lab; none for a host below a directory.
    lab: Option<u8>,
    first_port: u16,
}

fn old(program: PathBuf, directory: &Path) -> Options {
    Options::new(program, directory)
}

/// As one that was built from a program: it requires a library that no package of the host provides.
fn modern(program: PathBuf, directory: &Path) -> Options {
    Options { requires: vec!["libnowhere.so.1()(64bit)".into()], ..Options::modern(program, directory) }
}

fn run(check: &Check) {
    let name = format!("real-{}", check.first_port);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let packages = directory.with_extension("rpm");
    fs::create_dir_all(&packages).unwrap();
    let options = (check.options)(oblet_standins::program("obproxy").unwrap(), &packages);
    let package = package::build(&options).unwrap();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/real.sh"));
    if let Some(number) = check.lab {
        command.arg("--lab").env("REAL_LAB", number.to_string());
    }
    let ports = ["SQL_PORT", "EXPORTER_PORT", "RPC_PORT"].into_iter().zip(check.first_port..);
    command.envs(ports.map(|(name, port)| (name, port.to_string())));
    let output = command.arg(package).env("REAL_DIR", &directory).output().unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}{complaints}");
    assert!(output.status.success());
    assert!(said.starts_with(check.met), "the first line tells which of the two it met");
    assert!(!directory.exists(), "it takes everything away");
    fs::remove_dir_all(packages).unwrap();
}

fn rpm_is_missing() -> bool {
    let missing = Command::new("rpm").arg("--version").output().is_err();
    if missing {
        skip::skip("it needs rpm");
    }
    missing
}

const OLD: &str = "real: met the stand-in of obproxy 1.9.1.1 ";
const MODERN: &str = "real: met the stand-in of obproxy 4.3.1.0 ";

#[test]
fn a_host_manages_obproxy_1_9() {
    if !rpm_is_missing() {
        run(&Check { options: old, met: OLD, lab: None, first_port: 18_883 });
    }
}

#[test]
fn a_host_manages_obproxy_4_3() {
    if !rpm_is_missing() {
        run(&Check { options: modern, met: MODERN, lab: None, first_port: 18_893 });
    }
}

fn no_lab() -> bool {
    let checked = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab.sh")).arg("check").output();
    let checked = checked.unwrap();
    if !checked.status.success() {
        skip::skip(&String::from_utf8_lossy(&checked.stderr));
    }
    !checked.status.success()
}

#[test]
fn lab_a_systemd_host_manages_obproxy_1_9() {
    if !no_lab() {
        run(&Check { options: old, met: OLD, lab: Some(217), first_port: 2883 });
    }
}

#[test]
fn lab_a_systemd_host_manages_obproxy_4_3() {
    if !no_lab() {
        run(&Check { options: modern, met: MODERN, lab: Some(218), first_port: 2893 });
    }
}
