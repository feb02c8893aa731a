//! Which supervisor a host gets.

use super::{direct::DirectSupervisor, supervisor::Supervisor, systemd::SystemdSupervisor};
use serde::Deserialize;
use std::{io, path::Path};

/// The setting `supervisor`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorChoice {
    /// systemd where it is PID 1 and the agent manages the whole machine as root, else direct.
    #[default]
    Auto,
    Systemd,
    Direct,
}

impl SupervisorChoice {
    /// Makes the supervisor and says in the log which one it is.
    pub fn open(self, root_dir: &Path) -> io::Result<Box<dyn Supervisor>> {
        let systemd = match self {
            Self::Systemd => true,
            Self::Direct => false,
            // What sd_booted(3) looks at.
            Self::Auto => {
                let whole_machine = root_dir == Path::new("/") && nix::unistd::geteuid().is_root();
                whole_machine && Path::new("/run/systemd/system").is_dir()
            }
        };
        if systemd {
            tracing::info!("processes are started by systemd");
            Ok(Box::new(SystemdSupervisor::new()?))
        } else {
            tracing::info!("processes are started directly; after a reboot they are not started again");
            Ok(Box::new(DirectSupervisor::new()))
        }
    }
}
