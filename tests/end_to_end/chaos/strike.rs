//! Blows fall, and what they hit is written down.

use super::{
    blow::{Blow, How, Victim},
    operator::{INSTALLATION, Operator, text},
    plan::Work,
    site::{Site, running},
};
use crate::lab::{Lab, Process, command_lines};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeSet, path::Path, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Phase of the proxies' tasks at the moment of a blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Executing,
    RollingBack,
    AtRest,
}

/// A blow that fell.
pub(super) struct Strike {
    pub(super) blow: String,
    pub(super) kind: String,
    pub(super) aim: Work,
    pub(super) at: Duration,
    pub(super) phase: Phase,
    /// What ran of the proxies' tasks, in words.
    pub(super) ran: String,
    /// What was under way and needed the victims.
    pub(super) hit: BTreeSet<Work>,
}

/// Lets the blows fall; answers when the last victim came back.
pub(super) async fn strike(site: &Site, blows: &[Blow], begin: Instant, strikes: &mut Vec<Strike>) -> Instant {
    let mut back = begin;
    for (stage, blow) in blows.iter().enumerate() {
        site.open(stage);
        sleep_until(back + blow.after).await;
        let (phase, ran) = under_way(&site.operator).await;
        let at = begin.elapsed();
        let hit = site.concerned(&blow.victims);
        for victim in &blow.victims {
            fell(&mut site.lab(), *victim, blow.how);
        }
        strikes.push(Strike { blow: blow.to_string(), kind: blow.kind(), aim: blow.aim, at, phase, ran, hit });
        sleep(blow.outage).await;
        for victim in &blow.victims {
            raise(&mut site.lab(), *victim, blow.how);
        }
        back = Instant::now();
    }
    back
}

fn program(lab: &mut Lab, victim: Victim) -> &mut Option<Process> {
    match victim {
        Victim::Agent(index) => &mut lab.hosts[index].agent,
        Victim::Coordinator => &mut lab.coordinator,
    }
}

fn fell(lab: &mut Lab, victim: Victim, how: How) {
    // A host that is being enrolled has no agent yet.
    let Some(process) = running(program(lab, victim)) else { return };
    match how {
        How::Pause => process.pause(),
        How::Kill | How::KillWithShims => process.kill(),
    }
    if let (How::KillWithShims, Victim::Agent(index)) = (how, victim) {
        let runs = lab.hosts[index].directory.join("state/runs").display().to_string();
        for (pid, line) in command_lines() {
            let run = line.trim_end().rsplit(' ').next().unwrap_or_default();
            let is_shim = line.starts_with("oblet-agent shim") && run.starts_with(&runs);
            // That of a service that serves stands in for a service manager, and obproxy goes with it (C12).
            if is_shim && !Path::new(run).join("kept").exists() {
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

fn raise(lab: &mut Lab, victim: Victim, how: How) {
    if how == How::Pause {
        if let Some(process) = running(program(lab, victim)) {
            process.resume();
        }
        return;
    }
    match victim {
        Victim::Coordinator => lab.start_coordinator(),
        Victim::Agent(index) => {
            let host = &mut lab.hosts[index];
            // Who is still without a certificate, and who was started meanwhile, is left to his errand.
            let enrolled = host.directory.join("tls/agent.pem").exists();
            if enrolled && running(&mut host.agent).is_none() {
                host.start_agent();
            }
        }
    }
}

/// What the proxies' tasks do at this moment, if the coordinator tells at once.
async fn under_way(operator: &Operator) -> (Phase, String) {
    let look = async {
        let list = operator.rest.get("/api/v2/tasks/instances?size=100").await.ok()?["data"]["contents"].clone();
        let ours = |row: &&serde_json::Value| {
            row["name"] == INSTALLATION && operator.batches.iter().any(|batch| batch["hostIds"][0] == row["hostId"])
        };
        let mut phase = Phase::AtRest;
        let mut ran = Vec::new();
        for row in list.as_array()?.iter().filter(ours).take(operator.batches.len()) {
            let task = operator.rest.get(&format!("/api/v2/tasks/instances/{}", row["id"])).await.ok()?["data"].clone();
            phase = match (text(&task["status"]), text(&task["operation"])) {
                ("RUNNING", "ROLLBACK") => Phase::RollingBack,
                ("RUNNING", _) if phase == Phase::AtRest => Phase::Executing,
                (_, _) => phase,
            };
            let subtasks = task["subtasks"].as_array()?;
            let active = subtasks.iter().find(|subtask| ["RUNNING", "CANCELING"].contains(&text(&subtask["status"])));
            let words = active.map_or("nothing", |subtask| text(&subtask["name"])).split(' ').take(2);
            ran.push(words.collect::<Vec<_>>().join(" "));
        }
        Some((phase, ran.join(", ")))
    };
    match timeout(Duration::from_millis(500), look).await {
        Ok(Some(seen)) => seen,
        // A coordinator that is just coming back has the task before it.
        Ok(None) | Err(_) => (Phase::Executing, "coordinator away".into()),
    }
}
