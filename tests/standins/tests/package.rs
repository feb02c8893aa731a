//! The packages are ones that rpm's own reader accepts (V8 of `docs/facts/obproxy.md`).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use oblet_standins::package::{Options, build};
use std::{
    env, fs,
    path::PathBuf,
    process::{Command, id},
};

/// What is packed does not matter here.
const PACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        Self(env::temp_dir().join(format!("oblet-package-{}-{test}", id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Name, version and architecture, the paths, and the contents of the text file that ends in `text`.
fn read(path: &PathBuf, text: &str) -> (String, Vec<String>, Option<String>) {
    let package = rpm::Package::open(path).unwrap();
    let metadata = &package.metadata;
    let name = format!(
        "{}-{}-{}.{}",
        metadata.get_name().unwrap(),
        metadata.get_version().unwrap(),
        metadata.get_release().unwrap(),
        metadata.get_arch().unwrap()
    );
    let mut paths = Vec::new();
    let mut found = None;
    for file in package.files().unwrap() {
        let file = file.unwrap();
        let path = file.metadata.path().display().to_string();
        if path.ends_with(text) {
            found = Some(String::from_utf8(file.content().unwrap().to_vec()).unwrap());
        }
        paths.push(path);
    }
    (name, paths, found)
}

#[test]
fn the_enterprise_package_has_its_layout() {
    let directory = Directory::new("old");
    let mut options = Options::new(PACKED, &directory.0);
    options.architecture = "aarch64".into();
    let path = build(&options).unwrap();
    assert!(path.ends_with("obproxy-1.9.1.1-1919579.el7.aarch64.rpm"));
    let (name, paths, version) = read(&path, "lib/standin-version");
    assert_eq!(name, "obproxy-1.9.1.1-1919579.el7.aarch64");
    assert_eq!(version.as_deref(), Some("1.9.1.1-1919579\n"));
    let install = "/opt/taobao/install/obproxy-1.9.1.1";
    let files = ["", "/bin", "/bin/obproxy", "/bin/obproxyd.sh", "/lib", "/lib/standin-version"];
    assert_eq!(paths, files.map(|file| format!("{install}{file}")));
}

#[test]
fn the_program_builds_the_community_package_with_faults() {
    let directory = Directory::new("new");
    let output = Command::new(env!("CARGO_BIN_EXE_build-rpm"))
        .args([PACKED, directory.0.to_str().unwrap(), "--modern", "--arch", "x86_64"])
        .args(["--fault", "standin_no_metrics=1", "--fault", "standin_exit_code=3"])
        .output()
        .unwrap();
    let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    assert!(path.ends_with("obproxy-ce-4.3.1.0-1.el8.x86_64.rpm"), "{}", path.display());
    let (name, paths, faults) = read(&path, "lib/standin-faults");
    assert_eq!(name, "obproxy-ce-4.3.1.0-1.el8.x86_64");
    assert_eq!(faults.as_deref(), Some("standin_no_metrics=1\nstandin_exit_code=3\n"));
    assert!(paths.contains(&"/home/admin/obproxy-4.3.1.0/bin/obproxy".to_owned()), "{paths:?}");
    let (_, _, version) = read(&path, "lib/standin-version");
    assert_eq!(version.as_deref(), Some("4.3.1.0-1.el8\n"));
}
