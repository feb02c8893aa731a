//! The package that the agent was installed from, as the package manager of the host knows it.

use crate::{
    agent::host::checks::commands::find_command,
    steps::values::{PackageFormat, PackageRef},
};
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

/// A package of the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) package: PackageRef,
    /// Its installation was not broken off.
    pub(super) is_whole: bool,
}

/// None if no package manager of the host knows the program.
pub(super) async fn owner(search_path: &[PathBuf], program: &Path) -> io::Result<Option<Owner>> {
    let program = program.to_str().ok_or_else(|| io::Error::other("the path of the program is not UTF-8"))?;
    // A host may have both managers, of which one only serves to unpack foreign packages.
    let format = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH} installed\\n";
    if let Some(text) = ask(search_path, "rpm", &["-qf", "--qf", format, program]).await? {
        return first(&text, PackageFormat::Rpm).map(Some);
    }
    let Some(text) = ask(search_path, "dpkg-query", &["-S", program]).await? else { return Ok(None) };
    // "name: path", with the architecture behind the name where several are installed.
    let name = text.lines().find_map(|line| line.split([':', ',']).next()).unwrap_or_default();
    let format = "${Package}_${Version}_${Architecture}.deb ${db:Status-Status}\\n";
    match ask(search_path, "dpkg-query", &["-W", "-f", format, name]).await? {
        Some(text) => first(&text, PackageFormat::Deb).map(Some),
        None => Ok(None),
    }
}

/// Reads "package state".
fn first(text: &str, format: PackageFormat) -> io::Result<Owner> {
    let line = text.lines().next().unwrap_or_default();
    let (package, state) = line.split_once(' ').unwrap_or((line, ""));
    let package: PackageRef = package.parse().map_err(io::Error::other)?;
    if package.format() == format {
        Ok(Owner { package, is_whole: state == "installed" })
    } else {
        Err(io::Error::other(format!("{line:?} is no package")))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::script;

    const PROGRAM: &str = "/usr/bin/oblet-agent";

    /// Answers queries of the arguments `$*`, as the managers do.
    async fn asked(rpm: &str, dpkg: &str) -> io::Result<Option<Owner>> {
        let dir = tempfile::tempdir().unwrap();
        script(&dir.path().join("rpm"), rpm);
        script(&dir.path().join("dpkg-query"), &format!("case $* in {dpkg}\n*) exit 1 ;;\nesac"));
        owner(&[dir.path().into()], Path::new(PROGRAM)).await
    }

    fn told(package: &str, is_whole: bool) -> Option<Owner> {
        Some(Owner { package: package.parse().unwrap(), is_whole })
    }

    #[tokio::test]
    async fn the_manager_that_knows_the_program_is_the_one_that_counts() {
        let dpkg = "'-S /usr/bin/oblet-agent') echo 'oblet-agent:amd64: /usr/bin/oblet-agent' ;;\n\
                    -W*' oblet-agent') echo 'oblet-agent_0.1.0-2_amd64.deb installed' ;;";
        let deb = told("oblet-agent_0.1.0-2_amd64.deb", true);
        assert_eq!(asked("exit 1", dpkg).await.unwrap(), deb);
        let rpm = r#"[ "$1" = -qf ] && [ "$4" = /usr/bin/oblet-agent ] && echo 'oblet-agent-0.1.0-2.x86_64 installed'"#;
        assert_eq!(asked(rpm, dpkg).await.unwrap(), told("oblet-agent-0.1.0-2.x86_64", true));
        let broken_off = dpkg.replace("deb installed", "deb half-configured");
        assert_eq!(asked("exit 1", &broken_off).await.unwrap(), told("oblet-agent_0.1.0-2_amd64.deb", false));
        assert_eq!(asked("exit 1", "").await.unwrap(), None);
        assert!(asked("echo what is this", dpkg).await.is_err());
    }

    #[tokio::test]
    async fn a_host_without_a_manager_knows_nothing() {
        assert_eq!(owner(&[], Path::new(PROGRAM)).await.unwrap(), None);
    }
}
