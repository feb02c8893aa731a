//! `make real`, which proves that oblet can manage the obproxy of a package, with the stand-in's packages of both versions.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and what it prints is shown then"
)]

#[path = "../support/lab_numbers.rs"]
mod lab_numbers;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/skip.rs"]
mod skip;

use oblet_standins::package::{self, Options};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One version, and where its hosts are.
struct Check {
    options: fn(PathBuf, &Path) -> Options,
    version: &'static str,
    /// On a systemd host; otherwise below a directory.
    in_lab: bool,
}

fn old(program: PathBuf, directory: &Path) -> Options {
    Options::new(program, directory)
}

/// As one that was built from a program: it requires a library that no package of the host provides.
fn modern(program: PathBuf, directory: &Path) -> Options {
    Options { requires: vec!["libnowhere.so.1()(64bit)".into()], ..Options::modern(program, directory) }
}

fn run(check: &Check) {
    let lab = check.in_lab.then(lab_numbers::own);
    let ports = ["SQL_PORT", "EXPORTER_PORT", "RPC_PORT"].map(|name| (name, ports::own().to_string()));
    // Under the same name next time, so that what a killed test has left is taken away.
    let name = match &lab {
        Some((number, _lock)) => format!("real-lab-{number}"),
        None => format!("real-{}", check.version),
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    let packages = directory.with_file_name(format!("{name}-rpm"));
    fs::create_dir_all(&packages).unwrap();
    let obproxy = oblet_standins::program("obproxy").unwrap();
    let programs = obproxy.parent().unwrap().to_owned();
    let options = (check.options)(obproxy, &packages);
    let package = package::build(&options).unwrap();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/real.sh"));
    if let Some((number, _lock)) = &lab {
        command.arg("--lab").env("REAL_LAB", number.to_string());
    }
    let output =
        command.envs(ports).env("PROGRAMS", programs).arg(package).env("REAL_DIR", &directory).output().unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}{complaints}");
    assert!(output.status.success());
    let met = format!("real: met the stand-in of obproxy {} ", check.version);
    assert!(said.starts_with(&met), "the first line tells which of the two it met");
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

const OLD: &str = "1.9.1.1";
const MODERN: &str = "4.3.1.0";

#[test]
fn a_host_manages_obproxy_1_9() {
    if !rpm_is_missing() {
        run(&Check { options: old, version: OLD, in_lab: false });
    }
}

#[test]
fn a_host_manages_obproxy_4_3() {
    if !rpm_is_missing() {
        run(&Check { options: modern, version: MODERN, in_lab: false });
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
        run(&Check { options: old, version: OLD, in_lab: true });
    }
}

#[test]
fn lab_a_systemd_host_manages_obproxy_4_3() {
    if !no_lab() {
        run(&Check { options: modern, version: MODERN, in_lab: true });
    }
}
