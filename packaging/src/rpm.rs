//! RPM packages that every rpm from 4.11 (EL7) on reads: format 4, gzip.

use crate::package::{Build, Entry, Kind, Package};
use anyhow::Context as _;
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};
use std::{collections::BTreeSet, path::Path};

/// Writes the package into `directory` and answers its file name.
pub(crate) fn write(package: &Package, build: &Build, directory: &Path) -> anyhow::Result<String> {
    let machine = package.programs.first().context("a package without a program")?.machine.rpm_name();
    let config = BuildConfig::v4().compression(CompressionType::Gzip).source_date(build.time_seconds);
    let mut builder = PackageBuilder::new(package.name, &build.version, "Apache-2.0", machine, package.summary);
    builder
        .using_config(config)
        .release(build.release.to_string())
        .build_host("localhost")
        .description(package.description);
    for entry in &package.entries {
        add(&mut builder, entry)?;
    }
    for dependency in libraries(package) {
        builder.requires(Dependency::any(dependency));
    }
    for name in package.rpm_recommends {
        builder.recommends(Dependency::any(*name));
    }
    if let Some(scripts) = package.service.as_ref().map(|service| service.rpm()) {
        builder
            .post_install_script(scripts.post)
            .pre_uninstall_script(scripts.preun)
            .post_uninstall_script(scripts.postun)
            .post_trans_script(scripts.posttrans);
    }
    let name = format!("{}-{}-{}.{machine}.rpm", package.name, build.version, build.release);
    builder.build()?.write_file(directory.join(&name))?;
    Ok(name)
}

fn add(builder: &mut PackageBuilder, entry: &Entry) -> Result<(), rpm::Error> {
    let file = || FileOptions::new(&entry.path).permissions(entry.mode);
    match &entry.kind {
        Kind::Directory => builder.with_dir_entry(FileOptions::dir(&entry.path).permissions(entry.mode))?,
        Kind::File(content) => builder.with_file_contents(content.as_slice(), file())?,
        Kind::Configuration(content) => builder.with_file_contents(content.as_slice(), file().config().noreplace())?,
        Kind::Documentation(content) => builder.with_file_contents(content.as_slice(), file().doc())?,
        Kind::License(content) => builder.with_file_contents(content.as_slice(), file().license())?,
    };
    Ok(())
}

/// What rpmbuild's elfdeps would find: `libc.so.6(GLIBC_2.17)(64bit)`.
fn libraries(package: &Package) -> BTreeSet<String> {
    let of_libraries = package.programs.iter().flat_map(|program| &program.libraries);
    let of_versions = package.programs.iter().flat_map(|program| &program.versions);
    let libraries = of_libraries.map(|library| format!("{library}()(64bit)"));
    libraries.chain(of_versions.map(|(library, version)| format!("{library}({version})(64bit)"))).collect()
}
