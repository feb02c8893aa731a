//! Why a proxy is not there, in its own words.

use super::{
    log::{Complaints, LogOfStart},
    redaction::without_hashes,
};
use crate::{
    agent::{
        host::{beneath, blocking, durable, process::supervisor::RunOutcome},
        step::StepError,
    },
    graph::Effect,
    steps::{ObproxyVersion, StartObproxy},
};
use std::{io, path::Path};

/// obproxy's first files need more.
const FULL_BYTES: u64 = 1 << 20;
const TAIL_LINES: usize = 10;
const TAIL_BYTES: u64 = 16 << 10;

pub(super) fn unreadable(error: io::Error) -> StepError {
    StepError::new(
        "STATE_UNREADABLE",
        "what the agent knows of the proxy could not be read or written",
        "look at the cause and at the free space in the agent's state directory, then retry the subtask",
    )
    .because(error)
}

pub(super) fn directory_failed(dir: &Path) -> impl Fn(io::Error) -> StepError + use<> {
    let message = format!("the directory {} could not be used", dir.display());
    move |error| {
        let next_move =
            "look at its owner, its mode, links on the way to it and the free space, then retry the subtask";
        StepError::new("DIRECTORY", message.clone(), next_move).because(error)
    }
}

pub(super) async fn read_complaints(dir: &Path, log: LogOfStart, version: ObproxyVersion) -> Complaints {
    let dir = dir.to_owned();
    match blocking(move || log.complaints(&dir, version).map_err(directory_failed(&dir))).await {
        Ok(complaints) => complaints,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the log of obproxy could not be read");
            Complaints::default()
        }
    }
}

/// A proxy that ended before it served. `said` holds its standard output and standard error.
pub(super) async fn dead(
    step: &StartObproxy,
    dir: &Path,
    said: &Path,
    log: LogOfStart,
    outcome: &RunOutcome,
) -> StepError {
    if let Some(left) = room(dir).await
        && left < FULL_BYTES
    {
        // A program that cannot write cannot say so either.
        let message = format!("obproxy ended before it served, {outcome}: {} has {left} bytes left", dir.display());
        let error = StepError::new("DISK_FULL", message, "make room on that file system, then retry the subtask");
        return outcome.mark(error.leaving(Effect::Done));
    }
    let complaints = read_complaints(dir, log, ObproxyVersion::of(&step.package)).await;
    let lines = if complaints.is_empty() { tail(said).unwrap_or_default() } else { complaints.lines().to_vec() };
    let words = if lines.is_empty() { "it wrote nothing".into() } else { lines.join(" | ") };
    let meaning = complaints.meaning().map(|meaning| format!(" ({meaning})")).unwrap_or_default();
    let next_move = format!(
        "remove the cause (more in {} and {}), then retry the subtask",
        dir.join("log/obproxy.log").display(),
        said.display()
    );
    let error = StepError::new(
        "DEAD_ON_ARRIVAL",
        format!("obproxy ended before it served, {outcome}{meaning}: {words}"),
        next_move,
    );
    outcome.mark(error.leaving(Effect::Done))
}

/// None if it is unknown.
async fn room(dir: &Path) -> Option<u64> {
    let dir = dir.to_owned();
    blocking(move || Ok(beneath::available_bytes(&dir).ok())).await.ok().flatten()
}

fn tail(path: &Path) -> io::Result<Vec<String>> {
    let text = durable::read_end(path, TAIL_BYTES)?;
    // obproxy begins with its arguments (C1): they say nothing new, and a hash among them would worry whoever reads it.
    let told = text.lines().filter(|line| !line.contains(crate::steps::OBPROXY_SYS_PASSWORD));
    let mut lines: Vec<String> = told.rev().take(TAIL_LINES).map(without_hashes).collect();
    lines.reverse();
    Ok(lines)
}
