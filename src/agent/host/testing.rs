//! What the tests of this room share.

use super::settings::HostSettings;
use crate::agent::step::{IdentityStore, Secrets, StepContext, StepLog};
use futures_util::future::BoxFuture;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

#[derive(Default)]
pub(super) struct Lines(Mutex<Vec<String>>);

impl StepLog for Lines {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.into());
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }

    fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

#[derive(Default)]
pub(super) struct Identities(pub Mutex<Option<String>>);

impl IdentityStore for Identities {
    fn choose(&self, identity: String) -> BoxFuture<'_, std::io::Result<()>> {
        *self.0.lock().unwrap() = Some(identity);
        Box::pin(async { Ok(()) })
    }

    fn confirm(&self) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

pub(super) fn context(run_id: &str) -> StepContext {
    StepContext {
        run_id: run_id.into(),
        log: Arc::new(Lines::default()),
        cancel: Default::default(),
        secrets: Secrets::default(),
        timeout: None,
        identity: None,
        identities: Arc::new(Identities::default()),
    }
}

/// Writes a program of the shell. A process of its own does: a file that is open for writing in this one, or in a child
/// that another test is just starting, could not be executed.
pub(super) fn script(path: &Path, text: &str) {
    let mut writer = std::process::Command::new("/bin/sh");
    writer.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#]).arg(path).arg(text);
    assert!(writer.status().unwrap().success());
}

pub(super) fn settings(root: &Path) -> HostSettings {
    HostSettings {
        root_dir: root.into(),
        state_dir: root.join("state"),
        address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        run_user: nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name,
        run_path: "/run/obproxy".into(),
        rpm_scriptlets: false,
        rpm_dependencies: false,
        search_path: HostSettings::default_search_path(),
    }
}
