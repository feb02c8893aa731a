use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

/// Where a host lies and how steps are carried out on it.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// `/`, or a directory below which everything is installed and run, with an rpm database of its own.
    pub root_dir: PathBuf,
    /// Packages, runs and the managed state; private to the agent.
    pub state_dir: PathBuf,
    /// The address instances listen on; none means every address.
    pub address: Option<IpAddr>,
    /// Database processes run as this user when the agent is root.
    pub run_user: String,
    /// Absolute path inside `root_dir` that holds one directory per instance, named by its SQL port.
    pub run_path: PathBuf,
    /// Run the scriptlets of packages.
    pub rpm_scriptlets: bool,
    /// Check the dependencies of packages.
    pub rpm_dependencies: bool,
    pub search_path: Vec<PathBuf>,
}

impl HostSettings {
    /// The search path of a login shell of root; the agent's own `PATH` is never asked.
    pub fn default_search_path() -> Vec<PathBuf> {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from).into()
    }

    /// The host is a part of the machine, not the machine itself.
    pub(super) fn is_nested(&self) -> bool {
        self.root_dir != Path::new("/")
    }

    /// `path`, seen from outside of `root_dir`.
    pub(super) fn below_root(&self, path: &Path) -> PathBuf {
        self.root_dir.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(super) fn instance_dir(&self, port: impl ToString) -> PathBuf {
        self.below_root(&self.run_path).join(port.to_string())
    }

    /// What an instance writes to its standard output and standard error. The directory is root's own: the run user
    /// could put a link into one of his, and systemd would follow it as root.
    pub(super) fn instance_log(&self, instance: impl Display) -> PathBuf {
        self.below_root(Path::new("/var/log/oblet")).join(format!("{instance}.out"))
    }

    /// Where the agent reaches the instances.
    pub(super) fn reach(&self) -> IpAddr {
        self.address.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// Where instances listen.
    pub(super) fn listen(&self) -> IpAddr {
        self.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }
}
