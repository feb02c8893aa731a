//! The package is one that rpm's own reader accepts.

use oblet_standins::package::{Options, build};
use std::{env, fs, process::id};

#[test]
fn package_has_the_layout_of_obproxy() {
    let directory = env::temp_dir().join(format!("oblet-package-{}", id()));
    // What is packed does not matter here.
    let mut options = Options::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), &directory);
    options.architecture = "aarch64".into();
    let path = build(&options).unwrap();
    assert!(path.ends_with("obproxy-1.9.1.1-1919579.el7.aarch64.rpm"));

    let package = rpm::Package::open(&path).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let entries = package.metadata.get_file_entries().unwrap();
    let paths: Vec<String> = entries.iter().map(|entry| entry.path().display().to_string()).collect();
    for file in ["bin/obproxy", "bin/obproxyd.sh", "lib/standin-version"] {
        let expected = format!("/opt/taobao/install/obproxy-1.9.1.1/{file}");
        assert!(paths.contains(&expected), "{expected} is not in {paths:?}");
    }
    assert_eq!(package.metadata.get_arch().unwrap(), "aarch64");
}
