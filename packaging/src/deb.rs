//! Debian packages: an ar archive of a version, the tar of the control files and the tar of the contents; see deb(5).

use crate::package::{Build, Entry, Kind, Package};
use anyhow::Context as _;
use std::{collections::BTreeMap, fmt::Write as _, fs, io::Write as _, path::Path};
use tar::{EntryType, Header};

/// Writes the package into `directory` and answers its file name.
pub(crate) fn write(package: &Package, build: &Build, directory: &Path) -> anyhow::Result<String> {
    let machine = package.programs.first().context("a package without a program")?.machine.debian_name();
    let mut members = vec![Member::file("control", 0o644, control(package, build, machine).into_bytes())];
    members.extend(conffiles(package).map(|list| Member::file("conffiles", 0o644, list.into_bytes())));
    if let Some(scripts) = package.service.as_ref().map(|service| service.debian()) {
        members.push(Member::file("postinst", 0o755, scripts.postinst.into_bytes()));
        members.push(Member::file("prerm", 0o755, scripts.prerm.into_bytes()));
        members.push(Member::file("postrm", 0o755, scripts.postrm.into_bytes()));
    }
    let contents: Vec<_> = package.entries.iter().map(Member::entry).collect();

    let mut archive = b"!<arch>\n".to_vec();
    append(&mut archive, "debian-binary", b"2.0\n", build)?;
    append(&mut archive, "control.tar.gz", &crate::gzip(&tar(members, build)?)?, build)?;
    append(&mut archive, "data.tar.gz", &crate::gzip(&tar(contents, build)?)?, build)?;
    let name = format!("{}_{}-{}_{machine}.deb", package.name, build.version, build.release);
    fs::write(directory.join(&name), archive)?;
    Ok(name)
}

fn control(package: &Package, build: &Build, machine: &str) -> String {
    let mut depends = Vec::new();
    if let Some(glibc) = package.programs.iter().map(|program| program.glibc).max() {
        depends.push(format!("libc6 (>= {glibc})"));
    }
    if package.programs.iter().any(|program| program.libraries.contains("libgcc_s.so.1")) {
        depends.push("libgcc-s1 | libgcc1".to_owned());
    }
    depends.extend(package.debian_depends.iter().map(|name| (*name).to_owned()));
    let bytes: usize = package.entries.iter().filter_map(|entry| entry.kind.content()).map(<[u8]>::len).sum();
    let mut text = format!(
        "Package: {}\nVersion: {}-{}\nArchitecture: {machine}\nMaintainer: The oblet authors\nInstalled-Size: {}\n\
         Section: database\nPriority: optional\nDepends: {}\n",
        package.name,
        build.version,
        build.release,
        bytes.div_ceil(1024),
        depends.join(", "),
    );
    if !package.debian_recommends.is_empty() {
        // Writing into a String does not fail.
        let _ = writeln!(text, "Recommends: {}", package.debian_recommends.join(", "));
    }
    let _ = writeln!(text, "Description: {}", package.summary);
    for line in package.description.lines() {
        let _ = writeln!(text, " {line}");
    }
    text
}

fn conffiles(package: &Package) -> Option<String> {
    let configuration = package.entries.iter().filter(|entry| matches!(entry.kind, Kind::Configuration(_)));
    let list: String = configuration.flat_map(|entry| [entry.path.as_str(), "\n"]).collect();
    (!list.is_empty()).then_some(list)
}

/// Of a tar archive.
struct Member {
    path: String,
    mode: u16,
    /// None for a directory.
    content: Option<Vec<u8>>,
}

impl Member {
    fn file(path: &str, mode: u16, content: Vec<u8>) -> Self {
        Self { path: path.into(), mode, content: Some(content) }
    }

    fn entry(entry: &Entry) -> Self {
        let path = entry.path.trim_start_matches('/').to_owned();
        Self { path, mode: entry.mode, content: entry.kind.content().map(<[u8]>::to_vec) }
    }
}

/// dpkg makes no directory that the archive does not name, so those above each member come with it.
fn tar(members: Vec<Member>, build: &Build) -> anyhow::Result<Vec<u8>> {
    let mut all = BTreeMap::new();
    for member in &members {
        for above in Path::new(&member.path).ancestors().skip(1) {
            all.insert(format!("./{}", above.display()), (0o755, None));
        }
    }
    for member in members {
        all.insert(format!("./{}", member.path), (member.mode, member.content));
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (path, (mode, content)) in all {
        let mut header = Header::new_gnu();
        header.set_mode(mode.into());
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_mtime(build.time_seconds.into());
        let (path, content) = match content {
            Some(content) => (path, content),
            None => {
                header.set_entry_type(EntryType::Directory);
                (format!("{}/", path.trim_end_matches('/')), Vec::new())
            }
        };
        header.set_size(content.len().try_into()?);
        // set_path would drop the leading "./", which deb(5) recommends.
        let name = header.as_old_mut().name.get_mut(..path.len()).context("a path of more than 100 bytes")?;
        name.copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, content.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

/// One member of the ar archive.
fn append(archive: &mut Vec<u8>, name: &str, content: &[u8], build: &Build) -> anyhow::Result<()> {
    writeln!(archive, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", build.time_seconds, 0, 0, "100644", content.len())?;
    archive.extend_from_slice(content);
    if content.len() % 2 == 1 {
        archive.push(b'\n');
    }
    Ok(())
}
