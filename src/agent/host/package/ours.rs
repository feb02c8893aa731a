//! Which packages this agent has installed. Others were there before it or came by another hand, and stay when a proxy goes.
//!
//! A note names the transaction of rpm that installed the package, so it says nothing of one that was erased and installed
//! again by hand. It is on disk before the installation is told as made; one that is lost keeps a package that could go.

use super::{
    super::{
        durable::{make_directory, read_json, remove, write_json},
        settings::HostSettings,
    },
    rpm_database::RpmDatabase,
};
use crate::{
    agent::step::{StepContext, StepError},
    steps::values::PackageRef,
    telemetry::chain,
};
use std::{io, path::PathBuf};

fn path(settings: &HostSettings, package: &PackageRef) -> PathBuf {
    settings.state_dir.join("installed").join(format!("{package}.json"))
}

fn unusable(error: io::Error) -> StepError {
    StepError::new(
        "STATE_UNWRITABLE",
        "the note of an installed package could not be written or read",
        "free space in the agent's state directory, then retry the subtask",
    )
    .because(error)
}

/// A disk that is full costs the note and not the installation.
pub(super) async fn note(
    settings: &HostSettings,
    database: &RpmDatabase<'_>,
    package: &PackageRef,
    context: &StepContext,
) {
    let noted = async {
        let transaction = database.transaction_of(package).await?;
        let path = path(settings, package);
        let directory = path.parent().map_or(Ok(()), make_directory);
        directory.and_then(|()| write_json(&path, &transaction)).map_err(unusable)
    };
    if let Err(error) = noted.await {
        context.log.line(&format!("{package} will stay when its last proxy goes: {}", chain(&error)));
    }
}

pub(super) fn forget(settings: &HostSettings, package: &PackageRef) -> Result<(), StepError> {
    remove(&path(settings, package)).map_err(unusable)
}

/// Whether this agent has installed the package as it is now.
pub(in crate::agent::host) async fn is_ours(
    settings: &HostSettings,
    database: &RpmDatabase<'_>,
    package: &PackageRef,
) -> Result<bool, StepError> {
    match read_json::<String>(&path(settings, package)).map_err(unusable)? {
        Some(noted) => Ok(noted == database.transaction_of(package).await?),
        None => Ok(false),
    }
}
