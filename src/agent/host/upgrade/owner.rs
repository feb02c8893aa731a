//! The package that the agent was installed from, as the package manager of the host knows it.

use super::super::commands::find_command;
use crate::steps::values::{PackageFormat, PackageRef};
use std::{
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

const QUERY_DEADLINE: Duration = Duration::from_secs(60);

/// Programs are found on the search path of the agent, and get no other environment than this.
pub(super) fn environment(search_path: &[PathBuf]) -> Vec<(String, String)> {
    let path = std::env::join_paths(search_path).unwrap_or_default();
    vec![
        ("PATH".into(), path.to_string_lossy().into_owned()),
        ("LC_ALL".into(), "C".into()),
        ("DEBIAN_FRONTEND".into(), "noninteractive".into()),
    ]
}

/// None if no package manager of the host knows the program.
pub(super) async fn owner(search_path: &[PathBuf], program: &Path) -> io::Result<Option<PackageRef>> {
    let program = program.to_str().ok_or_else(|| io::Error::other("the path of the program is not UTF-8"))?;
    // A host may have both managers, of which one only serves to unpack foreign packages.
    let format = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n";
    if let Some(text) = ask(search_path, "rpm", &["-qf", "--qf", format, program]).await? {
        return first(&text, PackageFormat::Rpm).map(Some);
    }
    let Some(text) = ask(search_path, "dpkg-query", &["-S", program]).await? else { return Ok(None) };
    // "name: path", with the architecture behind the name where several are installed.
    let name = text.lines().find_map(|line| line.split([':', ',']).next()).unwrap_or_default();
    let format = "${Package}_${Version}_${Architecture}.deb\\n";
    match ask(search_path, "dpkg-query", &["-W", "-f", format, name]).await? {
        Some(text) => first(&text, PackageFormat::Deb).map(Some),
        None => Ok(None),
    }
}

fn first(text: &str, format: PackageFormat) -> io::Result<PackageRef> {
    let line = text.lines().next().unwrap_or_default();
    let package: PackageRef = line.parse().map_err(io::Error::other)?;
    if package.format() == format { Ok(package) } else { Err(io::Error::other(format!("{line:?} is no package"))) }
}

/// What the manager answers; none if it is not there, or does not know.
async fn ask(search_path: &[PathBuf], manager: &str, arguments: &[&str]) -> io::Result<Option<String>> {
    let Some(manager) = find_command(search_path, manager) else { return Ok(None) };
    let answer = tokio::process::Command::new(manager)
        .args(arguments)
        .env_clear()
        .envs(environment(search_path))
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Output { status, stdout, .. } = tokio::time::timeout(QUERY_DEADLINE, answer)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the package manager did not answer within a minute"))??;
    Ok(status.success().then(|| String::from_utf8_lossy(&stdout).into_owned()))
}
