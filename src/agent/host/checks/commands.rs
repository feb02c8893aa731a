//! Programs on the fixed search path, found without a shell.

use crate::{
    agent::{
        host::{Host, adapter::Adapter, settings::HostSettings},
        step::{Done, StepContext, StepError},
    },
    steps::CheckCommands,
};
use futures_util::future::BoxFuture;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The first executable regular file called `name`.
pub(in crate::agent::host) fn find_command(search_path: &[PathBuf], name: &str) -> Option<PathBuf> {
    search_path.iter().map(|dir| dir.join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

impl Adapter for CheckCommands {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { check(&host.settings, self, context) })
    }
}

fn check(settings: &HostSettings, step: &CheckCommands, context: &StepContext) -> Result<Done, StepError> {
    let mut missing = Vec::new();
    for command in &step.commands {
        match find_command(&settings.search_path, command.as_str()) {
            Some(path) => context.log.line(&format!("{command}: {}", path.display())),
            None => missing.push(command.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(Done::already());
    }
    let names = missing.join(", ");
    Err(StepError::new(
        "COMMAND_MISSING",
        format!("no command:{{{names}}}"),
        format!("install the packages that bring {names} on this host, then retry the subtask"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::{context, settings};

    #[test]
    fn every_missing_command_is_named_at_once() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path());
        settings.search_path = vec![root.path().into()];
        std::fs::write(root.path().join("plain"), "").unwrap();
        std::fs::create_dir(root.path().join("dir")).unwrap();
        std::fs::write(root.path().join("nc"), "").unwrap();
        std::fs::set_permissions(root.path().join("nc"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let step = CheckCommands { commands: ["nc", "plain", "dir", "gone"].map(|name| name.parse().unwrap()).into() };
        let error = check(&settings, &step, &context("c")).unwrap_err();
        assert_eq!((error.reason, error.message.as_str()), ("COMMAND_MISSING", "no command:{plain, dir, gone}"));
        assert!(error.next_move.contains("plain, dir, gone"));
        let there = CheckCommands { commands: vec!["nc".parse().unwrap()] };
        assert_eq!(check(&settings, &there, &context("c")).unwrap(), Done::already());
    }
}
