//! The command lines, environment and directory of an obproxy.

use super::{
    super::{beneath::Directory, settings::HostSettings},
    sql::proxy_hash,
};
use crate::{
    agent::{
        host::{
            package::install,
            process::supervisor::{Kind, Launch, ServiceName},
        },
        step::StepError,
    },
    steps::{
        InstanceKind, OBPROXY_SYS_PASSWORD, StartObproxy, WorkMode,
        values::{Parameter, Port},
    },
};
use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Directories that obproxy expects below its root (D2).
const DIRECTORIES: [&str; 5] = ["etc", "log", ".conf", "control-config", "sharding-config"];
/// obproxy writes hashes that are as good as passwords into files that everybody may read (A11, D5).
pub(in crate::agent::host) const DIRECTORY_MODE: u32 = 0o750;
/// Keeps obproxy in the foreground.
const FOREGROUND: &str = "-N";

/// uid and gid that the program runs as; none when it is the agent's own user.
pub(super) fn run_user(settings: &HostSettings) -> Result<Option<(u32, u32)>, StepError> {
    let next_move = format!("create the user {} on this host, then retry the subtask", settings.run_user);
    let user = nix::unistd::User::from_name(&settings.run_user).ok().flatten().ok_or_else(|| {
        StepError::new("USER_MISSING", format!("user {} does not exist", settings.run_user), next_move)
    })?;
    let me = nix::unistd::geteuid();
    Ok((me.is_root() && user.uid != me).then(|| (user.uid.as_raw(), user.gid.as_raw())))
}

/// Makes the directory and what obproxy expects in it, closed to everybody but the run user and his group.
pub(super) fn make_directory(dir: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the directory has no parent"));
    };
    // The run user has to pass the way to it.
    let own = Directory::make(parent, 0o755)?.child(Path::new(name), DIRECTORY_MODE, user)?;
    DIRECTORIES.iter().try_for_each(|name| own.child(Path::new(name), DIRECTORY_MODE, user).map(drop))
}

/// Items that are to be in force: the operator's own, and defaults that he did not name.
pub(super) fn items(settings: &HostSettings, step: &StartObproxy) -> Vec<(String, String)> {
    let pair = |parameter: &Parameter| (parameter.name.to_string(), parameter.value.to_string());
    let mut items: Vec<(String, String)> = step.startup_parameters.iter().map(pair).collect();
    let mut default = |name: &str, value: String| {
        if !items.iter().any(|(named, _)| named == name) {
            items.push((name.into(), value));
        }
    };
    if let Some(address) = settings.address {
        default("local_bound_ip", address.to_string());
    }
    // OCP's own defaults: the meta database is not used, and root@proxysys may log in over any address.
    if matches!(step.work_mode, WorkMode::ConfigUrl { .. }) {
        default("enable_metadb_used", "false".into());
    }
    default("skip_proxy_sys_private_check", "true".into());
    items
}

/// What the first start needs to begin at all; everything else is set over SQL, where a mistake is told with its name.
/// The password opens nothing but a proxy that nobody can reach, and not even that once it has the one of its cluster.
fn first_arguments(step: &StartObproxy, one_time_password: &str) -> Vec<String> {
    let mut arguments = vec![FOREGROUND.to_owned(), "-p".into(), step.sql_port.to_string()];
    arguments.extend(["-l".into(), step.exporter_port.to_string()]);
    if let Some(port) = step.rpc_port {
        arguments.extend(["-s".into(), port.to_string()]);
    }
    arguments.extend(["-n".into(), step.app_name.to_string()]);
    let mut items = vec![
        format!("{OBPROXY_SYS_PASSWORD}={}", proxy_hash(one_time_password)),
        // The address that an earlier try has left in the configuration is not in the network of a first start.
        "local_bound_ip=0.0.0.0".into(),
    ];
    match &step.work_mode {
        WorkMode::RsList { cluster_name, servers } => {
            let list: Vec<&str> = servers.iter().map(|server| server.as_str()).collect();
            arguments.extend(["-r".into(), list.join(";"), "-c".into(), cluster_name.to_string()]);
        }
        WorkMode::ConfigUrl { url } => items.push(format!("obproxy_config_server_url={url}")),
    }
    arguments.extend(["-o".into(), items.join(",")]);
    arguments
}

fn service_name(port: Port) -> ServiceName {
    ServiceName::new(InstanceKind::Obproxy, port)
}

/// Where the proxy's own words before its log begins are found.
pub(super) fn log(settings: &HostSettings, port: Port) -> PathBuf {
    settings.instance_log(service_name(port))
}

/// Makes the directory of [`log`].
pub(super) fn make_log_directory(log: &Path) -> io::Result<()> {
    let dir = log.parent().ok_or_else(|| io::Error::other("the log has no directory"))?;
    DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

/// A proxy that is to be launched: once alone, to take its configuration, and then as a service that needs no arguments.
pub(super) struct Launcher<'a> {
    pub(super) settings: &'a HostSettings,
    pub(super) step: &'a StartObproxy,
    /// `<home>/bin/obproxy`; its path is absolute because a hot restart executes it again (H3).
    pub(super) program: PathBuf,
    pub(super) user: Option<(u32, u32)>,
}

impl Launcher<'_> {
    /// `log` is where only the agent reads: obproxy begins by printing its arguments (C1).
    pub(super) fn first(&self, one_time_password: &str, log: PathBuf) -> Launch {
        let kind = Kind::SecludedJob { port: self.step.sql_port.get() };
        self.launch(kind, first_arguments(self.step, one_time_password), log)
    }

    pub(super) fn service(&self) -> Launch {
        let name = service_name(self.step.sql_port);
        let log = log(self.settings, self.step.sql_port);
        self.launch(Kind::Service { name, foreground: vec![FOREGROUND.into()] }, Vec::new(), log)
    }

    fn launch(&self, kind: Kind, arguments: Vec<String>, log: PathBuf) -> Launch {
        let directory = self.settings.instance_dir(self.step.sql_port);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let library = install::home(&self.program).unwrap_or(Path::new("/")).join("lib");
        let search = std::env::join_paths(&self.settings.search_path).unwrap_or_default();
        let environment = vec![
            ("PATH".into(), search.to_string_lossy().into_owned()),
            ("HOME".into(), text(&directory)),
            ("OBPROXY_ROOT".into(), text(&directory)),
            ("LD_LIBRARY_PATH".into(), text(&library)),
        ];
        Launch {
            kind,
            description: format!("OBProxy {} on port {}, started by oblet", self.step.app_name, self.step.sql_port),
            program: self.program.clone(),
            arguments,
            environment,
            directory,
            user: self.user,
            log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::settings;

    fn step(work_mode: WorkMode, parameters: &[(&str, &str)]) -> StartObproxy {
        StartObproxy {
            package: "obproxy-ce-4.3.1.0-1.el8.x86_64".parse().unwrap(),
            app_name: "odp".parse().unwrap(),
            sql_port: 2883.try_into().unwrap(),
            exporter_port: 2884.try_into().unwrap(),
            rpc_port: Some(2885.try_into().unwrap()),
            work_mode,
            startup_parameters: parameters
                .iter()
                .map(|(name, value)| Parameter { name: name.parse().unwrap(), value: value.parse().unwrap() })
                .collect(),
        }
    }

    fn listed() -> WorkMode {
        let servers = vec!["10.0.0.1:2881".parse().unwrap(), "10.0.0.2:2881".parse().unwrap()];
        WorkMode::RsList { cluster_name: "obc".parse().unwrap(), servers }
    }

    fn launcher<'a>(settings: &'a HostSettings, step: &'a StartObproxy) -> Launcher<'a> {
        Launcher { settings, step, program: "/h/bin/obproxy".into(), user: None }
    }

    #[test]
    fn both_work_modes_have_their_first_command_line() {
        let settings = settings(Path::new("/r"));
        let hash = "7c4a8d09ca3762af61e59520943dc26494f8941b";
        let line = |step: &StartObproxy| {
            let launch = launcher(&settings, step).first("123456", "/log".into());
            assert!(matches!(launch.kind, Kind::SecludedJob { port: 2883 }));
            launch.arguments.join(" ")
        };
        assert_eq!(
            line(&step(listed(), &[("proxy_id", "3")])),
            format!(
                "-N -p 2883 -l 2884 -s 2885 -n odp -r 10.0.0.1:2881;10.0.0.2:2881 -c obc -o obproxy_sys_password={hash},local_bound_ip=0.0.0.0"
            )
        );
        let url = StartObproxy { rpc_port: None, ..step(WorkMode::ConfigUrl { url: "http://c/s?A=Get".into() }, &[]) };
        assert_eq!(
            line(&url),
            format!(
                "-N -p 2883 -l 2884 -n odp -o obproxy_sys_password={hash},local_bound_ip=0.0.0.0,obproxy_config_server_url=http://c/s?A=Get"
            )
        );
    }

    #[test]
    fn the_service_has_no_arguments_and_no_secrets() {
        let settings = settings(Path::new("/r"));
        let step = step(listed(), &[]);
        let launch = launcher(&settings, &step).service();
        assert!(launch.arguments.is_empty(), "arguments would win over what the proxy has kept");
        let environment: std::collections::BTreeMap<_, _> = launch.environment.iter().cloned().collect();
        assert_eq!(environment["LD_LIBRARY_PATH"], "/h/lib");
        assert_eq!(environment["OBPROXY_ROOT"], "/r/run/obproxy/2883");
        assert_eq!(environment.len(), 4);
    }

    #[test]
    fn defaults_yield_to_what_the_operator_names() {
        let settings = settings(Path::new("/r"));
        let pairs = |step: &StartObproxy| {
            items(&settings, step).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let own = [("proxy_id", "3"), ("skip_proxy_sys_private_check", "false")];
        assert_eq!(
            pairs(&step(listed(), &own)),
            "proxy_id=3 skip_proxy_sys_private_check=false local_bound_ip=127.0.0.1"
        );
        let url = WorkMode::ConfigUrl { url: "http://c/?".into() };
        assert_eq!(
            pairs(&step(url, &[])),
            "local_bound_ip=127.0.0.1 enable_metadb_used=false skip_proxy_sys_private_check=true"
        );
    }
}
