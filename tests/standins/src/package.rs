//! Builds a package of obproxy around the stand-in, laid out as the enterprise package or as obproxy-ce
//! (V8 of `docs/facts/obproxy.md`).

use rpm::{BuildConfig, CompressionType, FileOptions, PackageBuilder};
use std::{fs, path::PathBuf};

/// Version and build number as `SHOW PROXYINFO BINARY` joins them.
pub const DEFAULT_VERSION: &str = "1.9.1.1-1919579";

/// A fixed build time, so that the same program gives the same package.
const BUILD_TIME_SECONDS: u32 = 1_600_000_000;

const CONTROL_SCRIPT: &str = r#"#!/bin/bash
# Starts and stops the stand-in as obproxyd.sh starts and stops obproxy; health is a port that answers.
set -u
home=$(cd "$(dirname "$0")/.." && pwd)
port=${OBPROXY_PORT:-2883}
case "${1:-}" in
  start) shift; cd "$home" && exec ./bin/obproxy "$@" ;;
  checkalive) exec nc -z -w 2 127.0.0.1 "$port" ;;
  *) echo "usage: $0 start [OPTIONS] | checkalive" >&2; exit 64 ;;
esac
"#;

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that is installed as `bin/obproxy`.
    pub binary: PathBuf,
    /// Directory that takes the package.
    pub directory: PathBuf,
    pub name: String,
    pub version: String,
    /// Build number and distribution, such as `1919579.el7`.
    pub release: String,
    pub architecture: String,
    /// A `%post` scriptlet; None for a package without one.
    pub scriptlet: Option<String>,
    /// A `%pre` scriptlet; one that fails keeps the package out.
    pub before_install: Option<String>,
    /// A `%postun` scriptlet.
    pub after_erase: Option<String>,
    /// What it requires beside a shell, as a package that was built from a program requires its libraries.
    pub requires: Vec<String>,
    /// The directory that holds `obproxy-<version>`.
    pub parent: String,
    /// Items of the stand-in that hold at every start, the first one included.
    pub faults: Vec<(String, String)>,
}

impl Options {
    /// `obproxy-1.9.1.1-1919579.el7` for the machine this runs on.
    pub fn new(binary: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            directory: directory.into(),
            name: "obproxy".into(),
            version: "1.9.1.1".into(),
            release: "1919579.el7".into(),
            architecture: std::env::consts::ARCH.into(),
            scriptlet: Some("echo obproxy stand-in is installed".into()),
            before_install: None,
            after_erase: None,
            requires: Vec::new(),
            parent: "/opt/taobao/install".into(),
            faults: Vec::new(),
        }
    }

    /// `obproxy-ce-4.3.1.0-1.el8` for the machine this runs on.
    pub fn modern(binary: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self {
            name: "obproxy-ce".into(),
            version: "4.3.1.0".into(),
            release: "1.el8".into(),
            parent: "/home/admin".into(),
            ..Self::new(binary, directory)
        }
    }

    /// `bin` and `lib` are below it.
    pub fn install_path(&self) -> String {
        format!("{}/obproxy-{}", self.parent, self.version)
    }

    /// Version and release as the program tells them: before 4 the distribution is left out.
    fn told_version(&self) -> String {
        let old =
            self.version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major < 4);
        let release = if old { self.release.split('.').next().unwrap_or_default() } else { &self.release };
        format!("{}-{release}", self.version)
    }

    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.{}.rpm", self.name, self.version, self.release, self.architecture)
    }
}

/// Writes the package and answers its path.
pub fn build(options: &Options) -> Result<PathBuf, rpm::Error> {
    let install = options.install_path();
    let faults: String = options.faults.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    // Format 4 is what rpm of EL7 to EL9 reads.
    let config = BuildConfig::v4().compression(CompressionType::None).source_date(BUILD_TIME_SECONDS);
    let mut builder = PackageBuilder::new(
        &options.name,
        &options.version,
        "Apache-2.0",
        &options.architecture,
        "Stands in for obproxy",
    );
    builder
        .using_config(config)
        .release(options.release.as_str())
        .description("A stand-in for obproxy that tests and the demo install.");
    for directory in ["", "/bin", "/lib"] {
        builder.with_dir_entry(FileOptions::dir(format!("{install}{directory}")).permissions(0o755))?;
    }
    builder
        .with_file(&options.binary, FileOptions::new(format!("{install}/bin/obproxy")).permissions(0o755))?
        .with_file_contents(CONTROL_SCRIPT, FileOptions::new(format!("{install}/bin/obproxyd.sh")).permissions(0o755))?
        .with_file_contents(
            format!("{}\n", options.told_version()),
            FileOptions::new(format!("{install}/lib/standin-version")).permissions(0o644),
        )?;
    if !faults.is_empty() {
        let file = FileOptions::new(format!("{install}/lib/standin-faults")).permissions(0o644);
        builder.with_file_contents(faults, file)?;
    }
    for requirement in &options.requires {
        builder.requires(rpm::Dependency::any(requirement));
    }
    if let Some(scriptlet) = &options.scriptlet {
        builder.post_install_script(scriptlet.as_str());
    }
    if let Some(scriptlet) = &options.before_install {
        builder.pre_install_script(scriptlet.as_str());
    }
    if let Some(scriptlet) = &options.after_erase {
        builder.post_uninstall_script(scriptlet.as_str());
    }
    let package = builder.build()?;
    fs::create_dir_all(&options.directory)?;
    let path = options.directory.join(options.file_name());
    package.write_file(&path)?;
    Ok(path)
}
