//! The command line, environment and directory of an obproxy.

use super::{
    super::{
        durable::{read_json, write_json},
        install_package,
        settings::HostSettings,
        supervisor::{Kind, Launch, ServiceName},
    },
    config::proxy_hash,
};
use crate::{
    agent::step::StepError,
    steps::{InstanceKind, StartObproxy, WorkMode, values::Port},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Directories that obproxy expects below its root.
const DIRECTORIES: [&str; 5] = ["etc", "log", ".conf", "control-config", "sharding-config"];

/// Says in the instance's own directory who made it and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent::host) struct Marker {
    pub schema: u32,
    /// The run that started the instance.
    pub(in crate::agent::host) run: String,
    pub step: StartObproxy,
}

impl Marker {
    pub(super) fn of(run: &str, step: &StartObproxy) -> Self {
        Self { schema: 1, run: run.into(), step: step.clone() }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join(".oblet.json")
    }

    /// The run user could have written the marker: it may name a run, never a path.
    pub(in crate::agent::host) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match read_json::<Self>(&Self::path(dir))? {
            Some(marker) if marker.run.is_empty() || marker.run.starts_with('.') || marker.run.contains('/') => {
                Err(io::Error::other("the marker names no run"))
            }
            marker => Ok(marker),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        write_json(&Self::path(dir), self)
    }
}

/// uid and gid that the program runs as; none when it is the agent's own user.
pub(super) fn run_user(settings: &HostSettings) -> Result<Option<(u32, u32)>, StepError> {
    let next_move = format!("create the user {} on this host, then retry the subtask", settings.run_user);
    let user = nix::unistd::User::from_name(&settings.run_user).ok().flatten().ok_or_else(|| {
        StepError::new("USER_MISSING", format!("user {} does not exist", settings.run_user), next_move)
    })?;
    let me = nix::unistd::geteuid();
    Ok((me.is_root() && user.uid != me).then(|| (user.uid.as_raw(), user.gid.as_raw())))
}

/// Makes the directory and what obproxy expects in it.
pub(super) fn make_directory(dir: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
    for parent in missing.into_iter().rev() {
        fs::create_dir(parent)?;
        // The run user has to pass, whatever the agent's umask.
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
    }
    let own = |path: &Path| {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ if path.symlink_metadata()?.is_dir() => {}
            _ => return Err(io::Error::other(format!("{} is no directory", path.display()))),
        }
        match user {
            // Without following links: the run user owns the place and could have planted one.
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    };
    own(dir)?;
    DIRECTORIES.iter().try_for_each(|name| own(&dir.join(name)))
}

/// Nothing but what [`make_directory`] makes is there: no proxy has ever run in it.
pub(super) fn is_bare(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let expected = DIRECTORIES.iter().any(|name| entry.file_name() == *name) && entry.file_type()?.is_dir();
        if !expected || fs::read_dir(entry.path())?.next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `k=v` items for `-o`: the operator's own and the defaults he did not name.
fn options(settings: &HostSettings, step: &StartObproxy) -> Result<Vec<(String, String)>, StepError> {
    let unfit = |message: String| {
        StepError::new(
            "PARAMETER_UNFIT",
            message,
            "correct the start-up parameters of the request, then start it again",
        )
    };
    let mut options = Vec::new();
    if let WorkMode::ConfigUrl { url } = &step.work_mode {
        options.push(("obproxy_config_server_url".into(), url.clone()));
    }
    for parameter in &step.startup_parameters {
        let (name, value) = (parameter.name.as_str(), parameter.value.as_str());
        if name.contains("password") {
            return Err(unfit(format!("{name} may not stand on a command line")));
        }
        options.push((name.into(), value.into()));
    }
    let mut default = |name: &str, value: String| {
        if !options.iter().any(|(named, _)| named == name) {
            options.push((name.into(), value));
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
    match options.iter().find(|(_, value)| value.contains(',')) {
        Some((name, _)) => Err(unfit(format!("the value of {name} holds a comma, which obproxy cannot read with -o"))),
        None => Ok(options),
    }
}

/// The argument vector; no secret stands in it.
pub(super) fn arguments(settings: &HostSettings, step: &StartObproxy) -> Result<Vec<String>, StepError> {
    let options = options(settings, step)?;
    let mut arguments = vec!["-N".into(), "-p".into(), step.sql_port.to_string()];
    arguments.extend(["-l".into(), step.exporter_port.to_string(), "-n".into(), step.app_name.to_string()]);
    if let WorkMode::RsList { cluster_name, servers } = &step.work_mode {
        let list: Vec<&str> = servers.iter().map(|server| server.as_str()).collect();
        arguments.extend(["-r".into(), list.join(";"), "-c".into(), cluster_name.to_string()]);
    }
    let joined: Vec<String> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    arguments.extend(["-o".into(), joined.join(",")]);
    Ok(arguments)
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

/// `program` is `<home>/bin/obproxy`; its path is absolute because a hot restart executes it again.
pub(super) fn launch(
    settings: &HostSettings,
    step: &StartObproxy,
    program: PathBuf,
    user: Option<(u32, u32)>,
    observer_password: Option<&str>,
) -> Result<Launch, StepError> {
    let directory = settings.instance_dir(step.sql_port);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let library = install_package::home(&program).unwrap_or(Path::new("/")).join("lib");
    let search = std::env::join_paths(&settings.search_path).unwrap_or_default();
    let environment = vec![
        ("PATH".into(), search.to_string_lossy().into_owned()),
        ("HOME".into(), text(&directory)),
        ("OBPROXY_ROOT".into(), text(&directory)),
        ("LD_LIBRARY_PATH".into(), text(&library)),
    ];
    // The environment is the one way in that does not show in the process list; there it is taken as a hash.
    let secret = |password| (crate::steps::OBSERVER_SYS_PASSWORD.to_owned(), Zeroizing::new(proxy_hash(password)));
    Ok(Launch {
        kind: Kind::Service {
            name: service_name(step.sql_port),
            secrets: observer_password.map(secret).into_iter().collect(),
        },
        description: format!("OBProxy {} on port {}, started by oblet", step.app_name, step.sql_port),
        program,
        arguments: arguments(settings, step)?,
        environment,
        directory,
        user,
        log: log(settings, step.sql_port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::settings;
    use crate::steps::values::Parameter;

    fn step(work_mode: WorkMode, parameters: &[(&str, &str)]) -> StartObproxy {
        StartObproxy {
            package: "obproxy-1.9.1.1-1919579.el7.x86_64".parse().unwrap(),
            app_name: "odp".parse().unwrap(),
            sql_port: 2883.try_into().unwrap(),
            exporter_port: 2884.try_into().unwrap(),
            rpc_port: None,
            work_mode,
            startup_parameters: parameters
                .iter()
                .map(|(name, value)| Parameter { name: name.parse().unwrap(), value: value.parse().unwrap() })
                .collect(),
        }
    }

    #[test]
    fn both_work_modes_have_their_command_line() {
        let settings = settings(Path::new("/r"));
        let servers = vec!["10.0.0.1:2881".parse().unwrap(), "10.0.0.2:2881".parse().unwrap()];
        let listed = step(WorkMode::RsList { cluster_name: "obc".parse().unwrap(), servers }, &[("proxy_id", "3")]);
        assert_eq!(
            arguments(&settings, &listed).unwrap().join(" "),
            "-N -p 2883 -l 2884 -n odp -r 10.0.0.1:2881;10.0.0.2:2881 -c obc \
             -o proxy_id=3,local_bound_ip=127.0.0.1,skip_proxy_sys_private_check=true"
        );
        let url = step(WorkMode::ConfigUrl { url: "http://c/services?Action=Get".into() }, &[]);
        assert_eq!(
            arguments(&settings, &url).unwrap().join(" "),
            "-N -p 2883 -l 2884 -n odp -o obproxy_config_server_url=http://c/services?Action=Get,\
             local_bound_ip=127.0.0.1,enable_metadb_used=false,skip_proxy_sys_private_check=true"
        );
    }

    #[test]
    fn secrets_travel_in_the_environment_only() {
        let settings = settings(Path::new("/r"));
        let url = || WorkMode::ConfigUrl { url: "http://c/?".into() };
        let launch = launch(&settings, &step(url(), &[]), "/h/bin/obproxy".into(), None, Some("123456")).unwrap();
        let environment: std::collections::BTreeMap<_, _> = launch.environment.iter().cloned().collect();
        let Kind::Service { secrets, .. } = &launch.kind else { panic!("a proxy is a service") };
        assert_eq!(secrets[0].0, "observer_sys_password");
        assert_eq!(secrets[0].1.as_str(), "7c4a8d09ca3762af61e59520943dc26494f8941b");
        assert!(!environment.contains_key("observer_sys_password"));
        assert_eq!(environment["LD_LIBRARY_PATH"], "/h/lib");
        assert_eq!(environment["OBPROXY_ROOT"], "/r/run/obproxy/2883");
        assert!(!launch.arguments.concat().contains("7c4a"));
        for bad in [("observer_sys_password", "x"), ("whitelist", "a,b")] {
            assert_eq!(arguments(&settings, &step(url(), &[bad])).unwrap_err().reason, "PARAMETER_UNFIT");
        }
    }
}
