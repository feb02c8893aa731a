//! The real rpm of the machine: queries directly, transactions through the supervisor.

use super::file::CheckedPackage;
use crate::{
    agent::{
        host::{
            beneath::Directory,
            checks::commands::find_command,
            process::{
                runs,
                supervisor::{Kind, Launch, RunOutcome, Supervisor},
            },
            settings::HostSettings,
        },
        step::{StepContext, StepError},
    },
    steps::values::PackageRef,
};
use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

const QUERY_FORMAT: &str = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n";
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// rpm ends cleanly between two files; it must have the time to get there.
pub(super) const RPM_GRACE: Duration = Duration::from_secs(60);

pub(in crate::agent::host) struct RpmDatabase<'a> {
    settings: &'a HostSettings,
    rpm: PathBuf,
}

fn broken(message: impl Into<String>) -> StepError {
    StepError::new(
        "RPM_DATABASE",
        message,
        "run `rpm -qa` on the host; repair the database with `rpm --rebuilddb` if it fails, then retry the subtask",
    )
}

impl<'a> RpmDatabase<'a> {
    /// Creates the database of a nested host if there is none.
    pub(in crate::agent::host) async fn open(settings: &'a HostSettings) -> Result<Self, StepError> {
        let rpm = find_command(&settings.search_path, "rpm").ok_or_else(|| {
            StepError::new("COMMAND_MISSING", "no command:{rpm}", "install rpm on this host, then retry the subtask")
        })?;
        let database = Self { settings, rpm };
        if settings.is_nested() && !database.has_files() {
            database.initialise().await?;
        }
        Ok(database)
    }

    /// Beside its place, and moved there once it is whole: rpm may be ended in the middle, and half a database would be
    /// taken for one.
    async fn initialise(&self) -> Result<(), StepError> {
        let dir = self.dir();
        let failed = |error: io::Error| broken(format!("{} could not be made", dir.display())).because(error);
        let parent = dir.parent().unwrap_or(Path::new("/"));
        Directory::make(parent, 0o755).map_err(failed)?;
        let fresh = tempfile::Builder::new().prefix(".rpm-").tempdir_in(parent).map_err(failed)?;
        std::fs::set_permissions(fresh.path(), Permissions::from_mode(0o755)).map_err(failed)?;
        self.run_at(&["--dbpath".into(), fresh.path().to_string_lossy().into_owned()], &["--initdb"]).await?;
        match std::fs::rename(fresh.path(), &dir) {
            Ok(()) => {
                let _moved = fresh.keep();
                Directory::open(parent).and_then(|parent| parent.sync()).map_err(failed)
            }
            // Another step was first.
            Err(_) if self.has_files() => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn dir(&self) -> PathBuf {
        self.settings.below_root(Path::new("/var/lib/rpm"))
    }

    fn has_files(&self) -> bool {
        let packages = |name: &str| self.dir().join(name).exists();
        packages("rpmdb.sqlite") || packages("Packages") || packages("Packages.db")
    }

    fn place(&self) -> Vec<String> {
        if self.settings.is_nested() {
            vec!["--dbpath".into(), self.dir().to_string_lossy().into_owned()]
        } else {
            Vec::new()
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::join_paths(&self.settings.search_path).unwrap_or_default();
        vec![
            ("PATH".into(), path.to_string_lossy().into_owned()),
            ("LC_ALL".into(), "C".into()),
            ("HOME".into(), self.settings.state_dir.to_string_lossy().into_owned()),
        ]
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output, StepError> {
        self.run_at(&self.place(), arguments).await
    }

    async fn run_at(&self, place: &[String], arguments: &[&str]) -> Result<Output, StepError> {
        let output = self.output(place, arguments).await?;
        if output.status.success() {
            return Ok(output);
        }
        let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
        Err(broken(format!("rpm {} failed: {said}", arguments.first().copied().unwrap_or_default())))
    }

    async fn output(&self, place: &[String], arguments: &[&str]) -> Result<Output, StepError> {
        let child = tokio::process::Command::new(&self.rpm)
            .args(place)
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(QUERY_DEADLINE, child)
            .await
            .map_err(|_| broken("rpm did not answer within a minute"))?
            .map_err(|error| broken("rpm could not be started").because(error))
    }

    /// Every installed package of this name.
    pub(super) async fn installed(&self, name: &str) -> Result<Vec<PackageRef>, StepError> {
        // -q looks the name up; -qa reads every package of the host, 50 ms for a thousand small ones against 5 ms.
        let output = self.output(&self.place(), &["-q", "--qf", QUERY_FORMAT, name]).await?;
        let absent = format!("package {name} is not installed");
        if !output.status.success() && output.stderr.is_empty() && output.stdout.trim_ascii() == absent.as_bytes() {
            return Ok(Vec::new());
        }
        // -q says of a database that it cannot read, too, that the package is not installed. -qa answers an absent name
        // with nothing and success, so that absence and failure are not confused.
        let output =
            if output.status.success() { output } else { self.run(&["-qa", "--qf", QUERY_FORMAT, name]).await? };
        let text = String::from_utf8_lossy(&output.stdout);
        let packages = text.lines().filter_map(|line| line.parse::<PackageRef>().ok());
        Ok(packages.filter(|package| package.name() == name).collect())
    }

    pub(in crate::agent::host) async fn has(&self, package: &PackageRef) -> Result<bool, StepError> {
        Ok(self.installed(package.name()).await?.contains(package))
    }

    /// Names the transaction that installed the package.
    pub(super) async fn transaction_of(&self, package: &PackageRef) -> Result<String, StepError> {
        let output = self.run(&["-q", "--qf", "%{INSTALLTID}", &package.to_string()]).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether the files of an installed package are there and, but for those of configuration, have their content.
    pub(super) async fn is_whole(&self, package: &PackageRef) -> Result<bool, StepError> {
        let arguments = ["-V", "--nodeps", "--noscripts", "--nomtime", "--nomode", "--nouser", "--nogroup"];
        let output = self.output(&self.place(), &[&arguments[..], &[&package.to_string()]].concat()).await?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().all(|line| line.contains("  c /")))
    }

    /// Files of an installed package, seen from outside of `root_dir`.
    pub(in crate::agent::host) async fn files(&self, package: &PackageRef) -> Result<Vec<PathBuf>, StepError> {
        let output = self.run(&["-ql", &package.to_string()]).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let root = &self.settings.root_dir;
        let outside = |path: &str| {
            let path = Path::new(path);
            if path.starts_with(root) { path.to_owned() } else { self.settings.below_root(path) }
        };
        Ok(text.lines().filter(|line| line.starts_with('/')).map(outside).collect())
    }

    /// Arguments that install a checked file. Never `-U`: it would erase what the package calls obsolete, and no undo
    /// could bring that back.
    pub(super) fn install_arguments(&self, package: &CheckedPackage) -> Vec<String> {
        let mut arguments = self.transaction("-iv");
        if self.settings.is_nested() {
            for top in &package.top_levels {
                let inside = format!("/{top}");
                let outside = self.settings.below_root(Path::new(&inside));
                arguments.push("--badreloc".into());
                arguments.extend(["--relocate".into(), format!("{inside}={}", outside.display())]);
            }
        }
        arguments.push(package.path.to_string_lossy().into_owned());
        arguments
    }

    pub(super) fn erase_arguments(&self, package: &PackageRef) -> Vec<String> {
        let mut arguments = self.transaction("-ev");
        arguments.push(package.to_string());
        arguments
    }

    fn transaction(&self, verb: &str) -> Vec<String> {
        let mut arguments = self.place();
        arguments.push(verb.into());
        if !self.settings.rpm_scriptlets {
            arguments.push("--noscripts".into());
        }
        if !self.settings.rpm_dependencies {
            arguments.push("--nodeps".into());
        }
        arguments
    }

    /// Runs a transaction to its end, across a restart of the agent if need be.
    pub(super) async fn transact(
        &self,
        supervisor: &dyn Supervisor,
        run: &str,
        arguments: Vec<String>,
        context: &StepContext,
    ) -> Result<RunOutcome, StepError> {
        let run_dir = runs::dir(self.settings, run);
        let log = context.log.path().unwrap_or_else(|| run_dir.join("log"));
        let command = format!("rpm {}", arguments.join(" "));
        context.log.line(&command);
        let launch = Launch {
            kind: Kind::Job,
            description: format!("oblet: {command}"),
            program: self.rpm.clone(),
            arguments,
            environment: self.environment(),
            directory: "/".into(),
            user: None,
            log,
        };
        runs::start(supervisor, &run_dir, &launch, RPM_GRACE, context, "the start of rpm").await?;
        context.confirm_identity().await?;
        runs::wait(supervisor, &run_dir, RPM_GRACE, context, "rpm").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::settings;

    /// What a program that answers like this makes of the question for obproxy.
    async fn asked(answers: &str) -> Result<Vec<PackageRef>, StepError> {
        let root = tempfile::tempdir().unwrap();
        let rpm = root.path().join("rpm");
        // Renamed into place: a program that is open for writing cannot be started.
        std::fs::write(root.path().join("new"), format!("#!/bin/sh\n{answers}\n")).unwrap();
        std::fs::set_permissions(root.path().join("new"), Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(root.path().join("new"), &rpm).unwrap();
        let settings = HostSettings { search_path: vec!["/usr/bin".into(), "/bin".into()], ..settings(Path::new("/")) };
        RpmDatabase { settings: &settings, rpm }.installed("obproxy").await
    }

    #[tokio::test]
    async fn a_package_is_absent_only_if_rpm_says_so_and_has_no_complaint() {
        let absent = "echo package obproxy is not installed; exit 1";
        let all = r#"[ "$1" = -qa ]"#;
        assert_eq!(asked(absent).await.unwrap(), []);
        let found = asked("echo obproxy-1.9.1.1-1.el7.x86_64; echo obproxy-4.3.1.0-2.el8.x86_64").await.unwrap();
        assert_eq!(found.len(), 2);
        let warned =
            format!("echo warning: an old database >&2; if {all}; then echo obproxy-1.0-1.noarch; exit; fi; {absent}");
        assert_eq!(asked(&warned).await.unwrap(), ["obproxy-1.0-1.noarch".parse().unwrap()]);
        let other = format!("if {all}; then exit; fi; echo no such thing; exit 1");
        assert_eq!(asked(&other).await.unwrap(), []);
        let unread = asked(&format!("echo error: cannot open Packages database >&2; {absent}")).await.unwrap_err();
        assert_eq!(unread.reason, "RPM_DATABASE");
        assert!(unread.message.contains("cannot open Packages database"), "{}", unread.message);
    }

    #[test]
    fn settings_for_scriptlets_and_dependencies_hold_on_a_whole_host_too() {
        let flags = |root: &str, rpm_scriptlets, rpm_dependencies| {
            let settings = HostSettings { rpm_scriptlets, rpm_dependencies, ..settings(Path::new(root)) };
            let database = RpmDatabase { settings: &settings, rpm: "rpm".into() };
            let arguments = database.erase_arguments(&"obproxy-1.0-1.el7.noarch".parse().unwrap());
            let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
            (given("--noscripts"), given("--nodeps"))
        };
        for root in ["/", "/srv/host1"] {
            assert_eq!(flags(root, true, true), (false, false), "{root}");
            assert_eq!(flags(root, false, true), (true, false), "{root}");
            assert_eq!(flags(root, true, false), (false, true), "{root}");
        }
    }
}
