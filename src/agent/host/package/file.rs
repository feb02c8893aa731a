//! Whether a package file is the one that was asked for, before rpm sees it. The payload streams through, it is never
//! held in memory.

use super::content;
use crate::{
    agent::{
        host::{checks::instance, settings::HostSettings},
        step::StepError,
    },
    deb::{self, DebError},
    steps::{InstallPackage, values::PackageFormat},
};
use rpm::{IndexTag, PackageMetadata};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// A file whose name, digests and architecture are right.
#[derive(Debug)]
pub(in crate::agent::host) struct CheckedPackage {
    pub path: PathBuf,
    /// Paths of its files once it is installed, seen from outside of `root_dir`. Of a deb they are not read.
    pub files: Vec<PathBuf>,
    /// First components of the paths of its files, such as `home`.
    pub top_levels: BTreeSet<String>,
}

pub(in crate::agent::host) fn path(settings: &HostSettings, step: &InstallPackage) -> PathBuf {
    settings.state_dir.join("packages").join(step.sha256.as_str()).join(step.package.file_name())
}

fn unfit(reason: &'static str, message: String) -> StepError {
    StepError::new(reason, message, "upload the right package to the coordinator, then retry the subtask")
}

/// Errors: PACKAGE_MISSING, PACKAGE_DAMAGED, PACKAGE_MISMATCH, HOST_UNFIT, CANCELED.
pub(in crate::agent::host) fn check(
    settings: &HostSettings,
    step: &InstallPackage,
    cancel: &CancellationToken,
) -> Result<CheckedPackage, StepError> {
    let path = path(settings, step);
    let damaged = |error: rpm::Error| unfit("PACKAGE_DAMAGED", format!("{} is damaged", step.package)).because(error);
    if !path.is_file() {
        return Err(unfit("PACKAGE_MISSING", format!("{} was not put to the agent", step.package.file_name())));
    }
    if step.package.format() == PackageFormat::Deb {
        return check_deb(settings, step, path, cancel);
    }
    let metadata = PackageMetadata::open(&path).map_err(damaged)?;
    let digests = metadata.check_digests().map_err(damaged)?;
    if !digests.has_header_digest() {
        return Err(unfit("PACKAGE_DAMAGED", format!("the header of {} has no digest", step.package)));
    }
    digests.result().map_err(damaged)?;
    let found = format!(
        "{}-{}-{}.{}",
        metadata.get_name().map_err(damaged)?,
        metadata.get_version().map_err(damaged)?,
        metadata.get_release().map_err(damaged)?,
        metadata.get_arch().map_err(damaged)?
    );
    if found != step.package.to_string() || metadata.is_source_package() {
        return Err(unfit("PACKAGE_MISMATCH", format!("the file of {} holds {found}", step.package)));
    }
    let payload = metadata.header.get_entry_data_as_string(IndexTag::RPMTAG_PAYLOADSHA256).ok();
    check_content(&path, payload, step, cancel)?;
    check_host(settings, step, metadata.get_installed_size().map_err(damaged)?)?;
    let paths = metadata.get_file_paths().map_err(damaged)?;
    let top_levels = paths.iter().filter_map(|path| top_level(path)).collect();
    let files = paths.iter().map(|path| settings.below_root(path)).collect();
    Ok(CheckedPackage { path, files, top_levels })
}

/// A deb carries no digest of its own that is considered safe, so the announced one has to do.
fn check_deb(
    settings: &HostSettings,
    step: &InstallPackage,
    path: PathBuf,
    cancel: &CancellationToken,
) -> Result<CheckedPackage, StepError> {
    let damaged = |error: DebError| unfit("PACKAGE_DAMAGED", format!("{} is damaged", step.package)).because(error);
    check_content(&path, None, step, cancel)?;
    let control =
        File::open(&path).map_err(DebError::from).and_then(|mut file| deb::read(&mut file)).map_err(damaged)?;
    if control.package != step.package {
        return Err(unfit("PACKAGE_MISMATCH", format!("the file of {} holds {}", step.package, control.package)));
    }
    check_host(settings, step, control.installed_bytes)?;
    Ok(CheckedPackage { path, files: Vec::new(), top_levels: BTreeSet::new() })
}

fn check_host(settings: &HostSettings, step: &InstallPackage, installed_bytes: u64) -> Result<(), StepError> {
    let problems: Vec<String> = instance::architecture_problem(step.package.machine())
        .into_iter()
        .chain(instance::disk_problem(&settings.root_dir, installed_bytes))
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(StepError::new(
        "HOST_UNFIT",
        problems.join("; "),
        "make room on the host or choose a package for its architecture, then retry the subtask",
    ))
}

fn top_level(path: &Path) -> Option<String> {
    path.components().find_map(|part| match part {
        Component::Normal(name) => Some(name.to_str()?.to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    })
}

fn check_content(
    path: &Path,
    payload_digest: Option<&str>,
    step: &InstallPackage,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    let unreadable = |error: io::Error| {
        StepError::new(
            "PACKAGE_UNREADABLE",
            format!("{} could not be read", path.display()),
            "look at the disk of the host, then retry the subtask",
        )
        .because(error)
    };
    let digests = content::digests(path, || cancel.is_cancelled()).map_err(unreadable)?;
    let digests = digests.ok_or_else(|| StepError::canceled("the check of the package"))?;
    if digests.whole != step.sha256.as_str() {
        return Err(unfit("PACKAGE_DAMAGED", format!("the SHA-256 of {} is not the announced one", step.package)));
    }
    if payload_digest.is_some_and(|digest| digests.payload.as_deref() != Some(digest)) {
        return Err(unfit("PACKAGE_DAMAGED", format!("the payload of {} does not fit its header", step.package)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::host::testing::settings, steps::values::PackageRef};
    use content::hex;
    use sha2::{Digest as _, Sha256};

    fn put(settings: &HostSettings, package: &PackageRef, bytes: &[u8]) -> InstallPackage {
        let step = InstallPackage { package: package.clone(), sha256: hex(&Sha256::digest(bytes)).parse().unwrap() };
        let path = path(settings, &step);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        step
    }

    fn build(name: &str, architecture: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        rpm::PackageBuilder::new(name, "1.0", "Apache-2.0", architecture, "test")
            .using_config(rpm::BuildConfig::v4().compression(rpm::CompressionType::None))
            .release("1")
            .with_file_contents("content", rpm::FileOptions::new("/home/a/bin/tool").permissions(0o755))
            .unwrap()
            .build()
            .unwrap()
            .write(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn only_the_announced_package_passes() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path());
        let cancel = CancellationToken::new();
        let wanted: PackageRef = "tool-1.0-1.noarch".parse().unwrap();
        let bytes = build("tool", "noarch");
        let good = put(&settings, &wanted, &bytes);
        let checked = check(&settings, &good, &cancel).unwrap();
        assert_eq!(checked.top_levels, BTreeSet::from(["home".to_owned()]));

        let reason = |step: &InstallPackage| check(&settings, step, &cancel).unwrap_err().reason;
        assert_eq!(reason(&put(&settings, &wanted, &build("other", "noarch"))), "PACKAGE_MISMATCH");
        assert_eq!(reason(&put(&settings, &wanted, b"no package at all")), "PACKAGE_DAMAGED");
        let strange: PackageRef = "tool-1.0-1.s390x".parse().unwrap();
        assert_eq!(reason(&put(&settings, &strange, &build("tool", "s390x"))), "HOST_UNFIT");

        let mut flipped = bytes.clone();
        let at = flipped.windows(7).rposition(|window| window == b"content").unwrap();
        flipped[at] ^= 1;
        let step = put(&settings, &wanted, &flipped);
        assert!(check(&settings, &step, &cancel).unwrap_err().message.contains("payload"));

        std::fs::write(path(&settings, &good), &flipped).unwrap();
        assert!(check(&settings, &good, &cancel).unwrap_err().message.contains("announced"));
        std::fs::remove_file(path(&settings, &good)).unwrap();
        assert_eq!(reason(&good), "PACKAGE_MISSING");
    }
}
