//! The unit file of a service: what it says, and whose it is.
//!
//! It is whole in itself and lies in `/etc/systemd/system`, so an instance comes back after a reboot although the agent
//! may be gone. Everyone may read it: no secret stands in it.

use super::bus::Version;
use crate::agent::host::{
    durable::read_text,
    process::{
        supervisor::{Launch, ServiceName},
        unit_helper,
    },
};
use std::{
    fmt::Write as _,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// The first systemd that waits for the execution of the program, and that appends output to files.
pub(super) const EXEC_AND_APPEND: Version = Version(240);
const RUN_KEY: &str = "X-Oblet-Run=";
// With the ends of the lines: a description may hold the same words.
const ONCE: &str = "\nRestart=no\n";
const AGAIN: &str = "\nRestart=always\n";
/// As units had it that were started again after a failure only.
const AGAIN_AFTER_FAILURE: &str = "\nRestart=on-failure\n";
/// The first systemd whose limit of starts is a setting of the unit, under another name.
const LIMIT_OF_THE_UNIT: Version = Version(230);
/// The first systemd that runs single commands of a unit with all privileges.
const PRIVILEGED_COMMANDS: Version = Version(231);

pub(in crate::agent::host) const UNIT_DIRECTORY: &str = "/etc/systemd/system";
/// Wants the units that start with the host.
pub(in crate::agent::host) const TARGET: &str = "multi-user.target";

/// Limits that OceanBase asks of its hosts.
const LIMITS: &str = "\
LimitNOFILE=655350
LimitNPROC=655360
LimitCORE=infinity
LimitSTACK=20480K
";

pub(super) fn unit_name(service: &ServiceName) -> String {
    format!("oblet-{service}.service")
}

pub(super) fn path(unit: &str) -> PathBuf {
    Path::new(UNIT_DIRECTORY).join(unit)
}

/// A unit file as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitFile {
    text: String,
}

impl UnitFile {
    pub(super) fn read(unit: &str) -> io::Result<Option<Self>> {
        Ok(read_text(&path(unit))?.map(|text| Self { text }))
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The run that it was written for; none if it is not of this program.
    pub(super) fn run(&self) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(RUN_KEY))
    }

    /// The service is started again when it fails.
    pub(super) fn is_kept(&self) -> bool {
        self.text.contains(AGAIN) || self.text.contains(AGAIN_AFTER_FAILURE)
    }

    pub(super) fn keep(&self) -> Self {
        Self { text: self.text.replacen(ONCE, AGAIN, 1) }
    }

    /// Refuses what a unit file cannot carry.
    pub(super) fn render(
        launch: &Launch,
        run: &str,
        service: &ServiceName,
        helper: &Path,
        version: Version,
    ) -> io::Result<Self> {
        let program = text(&launch.program)?;
        // What has this sign in it is a variable for env(1).
        if program.contains('=') || !program.starts_with('/') {
            return Err(unfit("the path of the program"));
        }
        // Not Environment=, which holds for root's commands of the unit too: the run user may be able to exchange the
        // directory that LD_LIBRARY_PATH names, and what root loads is root's power.
        let variables = launch.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let words = variables.chain([program.to_owned()]).chain(launch.arguments.iter().cloned());
        let mut command = String::from("/usr/bin/env -i");
        for word in words {
            command.push(' ');
            command.push_str(&quoted(&word.replace('$', "$$")));
        }
        let mut unit = String::new();
        // The key is read by this program only: systemd ignores what begins with X-.
        let _ = write!(
            unit,
            "# Written by oblet-agent, which replaces it when the instance is started again.\n\
             [Unit]\n\
             Description={}\n\
             {RUN_KEY}{}\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             # Started again for as long as it ends; the pause between two starts grows up to a minute.\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n",
            plain(&launch.description)?,
            plain(run)?,
        );
        // In a hot restart obproxy hands over to a child of its own. The unit goes on with it only if its main process is
        // told by a file (docs/facts/obproxy.md, H3 and H4); with every other type the child goes with its parent.
        let _ = writeln!(unit, "Type=forking\nPIDFile={}", plain(text(&unit_helper::pid_file(service))?)?);
        if version < LIMIT_OF_THE_UNIT {
            unit.push_str("StartLimitInterval=0\n");
        }
        let as_root = if version >= PRIVILEGED_COMMANDS { "+" } else { "" };
        if as_root.is_empty() {
            unit.push_str("PermissionsStartOnly=true\n");
        }
        let helped = |task: unit_helper::Task| {
            let words = [text(helper)?, unit_helper::SUBCOMMAND, task.as_str(), &service.to_string()].map(quoted);
            io::Result::Ok(format!("{as_root}{}", words.join(" ")))
        };
        // A pause that cannot be made keeps no proxy down.
        let _ = writeln!(unit, "ExecStartPre=-{}", helped(unit_helper::Task::Pause)?);
        let _ = writeln!(unit, "ExecStart={command}");
        let _ = writeln!(unit, "ExecStartPost={}", helped(unit_helper::Task::NoteMainProcess)?);
        // What obproxy ends with when it is told to end (X2).
        unit.push_str("SuccessExitStatus=1\n");
        if let Some((uid, gid)) = launch.user {
            let _ = writeln!(unit, "User={uid}\nGroup={gid}");
        }
        let _ = writeln!(unit, "WorkingDirectory={}", plain(text(&launch.directory)?)?);
        if version >= EXEC_AND_APPEND {
            let log = plain(text(&launch.log)?)?;
            let _ = writeln!(unit, "StandardOutput=append:{log}\nStandardError=append:{log}");
        }
        unit.push_str(LIMITS);
        unit.push_str("UMask=0022\nOOMScoreAdjust=-500");
        unit.push_str(ONCE);
        unit.push_str("RestartSec=1\nKillMode=control-group\nTimeoutStartSec=150\nTimeoutStopSec=30\n\n[Install]\n");
        let _ = writeln!(unit, "WantedBy={TARGET}");
        Ok(Self { text: unit })
    }
}

/// Makes what was enabled or disabled last: systemd makes and removes the links, and the directory that holds them, and
/// syncs neither.
pub(super) fn sync_links() -> io::Result<()> {
    let directory = Path::new(UNIT_DIRECTORY);
    match File::open(directory.join(format!("{TARGET}.wants"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        links => links?.sync_all()?,
    }
    File::open(directory)?.sync_all()
}

/// The unit that was written for a run whose own files are gone.
pub(super) fn of_run(run: &str) -> io::Result<Option<String>> {
    let entries = match std::fs::read_dir(UNIT_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let Ok(unit) = entry?.file_name().into_string() else { continue };
        let ours = unit.starts_with("oblet-") && unit.contains('@') && unit.ends_with(".service");
        if ours && UnitFile::read(&unit)?.is_some_and(|file| file.run() == Some(run)) {
            return Ok(Some(unit));
        }
    }
    Ok(None)
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} cannot stand in a unit file"))
}

pub(in crate::agent::host) fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| unfit("a path that is not UTF-8"))
}

/// A value that reaches to the end of its line: only specifiers mean something there.
pub(in crate::agent::host) fn plain(value: &str) -> io::Result<String> {
    if value.chars().any(char::is_control) || value.ends_with('\\') || value.trim() != value || value.is_empty() {
        return Err(unfit("a value with control characters or blanks at its ends"));
    }
    Ok(value.replace('%', "%%"))
}

/// One word, whatever is in it.
pub(in crate::agent::host) fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for character in word.chars() {
        match character {
            '%' => text.push_str("%%"),
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::host::process::supervisor::Kind, steps::InstanceKind};

    fn name() -> ServiceName {
        ServiceName::new(InstanceKind::Obproxy, 2883.try_into().unwrap())
    }

    fn launch() -> Launch {
        Launch {
            kind: Kind::Service { name: name(), foreground: vec!["-N".into()] },
            description: "OBProxy odp on port 2883, 100% managed by oblet".into(),
            program: "/opt/my proxy/bin/obproxy".into(),
            arguments: vec!["-o".into(), r#"a=%i,b="$HOME",c=\x"#.into(), String::new(), "two\nlines".into()],
            environment: vec![("PATH".into(), "/bin:/a b".into()), ("PERCENT".into(), "%n$".into())],
            directory: "/home/admin/ob proxy/2883".into(),
            user: Some((500, 501)),
            log: "/var/log/oblet/obproxy@2883.out".into(),
        }
    }

    fn render(launch: &Launch, version: u32) -> io::Result<UnitFile> {
        UnitFile::render(launch, "run-1", &name(), Path::new("/var/lib/oblet-agent/helper"), Version(version))
    }

    #[test]
    fn everything_that_means_something_to_systemd_is_escaped() {
        let file = render(&launch(), 252).unwrap();
        let lines: Vec<&str> = file.text().lines().collect();
        for line in [
            "Description=OBProxy odp on port 2883, 100%% managed by oblet",
            concat!(
                r#"ExecStart=/usr/bin/env -i "PATH=/bin:/a b" "PERCENT=%%n$$" "/opt/my proxy/bin/obproxy""#,
                r#" "-o" "a=%%i,b=\"$$HOME\",c=\\x" "" "two\nlines""#
            ),
            "WorkingDirectory=/home/admin/ob proxy/2883",
            "StandardOutput=append:/var/log/oblet/obproxy@2883.out",
            "User=500",
            "Group=501",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{}", file.text());
        }
    }

    #[test]
    fn the_unit_follows_its_main_process_by_a_file_of_root() {
        let file = render(&launch(), 252).unwrap();
        for line in [
            "Type=forking",
            "PIDFile=/run/oblet-agent/obproxy@2883.pid",
            r#"ExecStartPre=-+"/var/lib/oblet-agent/helper" "unit" "pause" "obproxy@2883""#,
            r#"ExecStartPost=+"/var/lib/oblet-agent/helper" "unit" "note-main-process" "obproxy@2883""#,
            "SuccessExitStatus=1",
            "StartLimitIntervalSec=0",
        ] {
            assert!(file.text().lines().any(|held| held == line), "{line} is not in\n{}", file.text());
        }
        assert!(!file.text().contains("Environment"), "what root runs takes nothing from the program's environment");
        assert!(!file.text().contains("\"-N\""), "in the foreground nothing could take over");
    }

    #[test]
    fn what_a_unit_file_cannot_carry_is_refused() {
        for launch in [
            Launch { program: "/opt/a=b/obproxy".into(), ..launch() },
            Launch { program: "obproxy".into(), ..launch() },
            Launch { description: "two\nlines".into(), ..launch() },
            Launch { directory: "/ends with a blank ".into(), ..launch() },
        ] {
            assert_eq!(render(&launch, 252).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn an_old_systemd_is_asked_for_what_it_knows() {
        let file = render(&launch(), 219).unwrap();
        assert!(file.text().contains("\nStartLimitInterval=0\n"));
        assert!(file.text().contains("\nPermissionsStartOnly=true\n") && !file.text().contains("append:"));
        assert!(!file.text().contains("=+"), "no prefix that it would take for a part of the path");
    }

    #[test]
    fn a_service_is_started_again_once_it_is_kept() {
        let file = render(&launch(), 252).unwrap();
        assert_eq!((file.run(), file.is_kept()), (Some("run-1"), false));
        let kept = file.keep();
        assert_eq!((kept.run(), kept.is_kept(), kept.keep()), (Some("run-1"), true, kept.clone()));
        assert!(kept.text().contains("\nRestart=always\n"), "also one that ends with 0 by itself");
    }
}
