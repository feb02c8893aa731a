//! Proxies start again without a step: by their supervisor, by an administrator, with the host, in a hot restart. Each time
//! they print hashes into their logs, which [`super::redaction`] takes out.

use super::{super::settings::HostSettings, record::Record, redaction::Redaction};
use crate::{
    agent::host::process::{identity::ProcessId, runs, supervisor::Supervisor},
    blocking,
    steps::values::Port,
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};

const EVERY: Duration = Duration::from_secs(5);
/// A log that is written by a thread of its own comes late, and so does one of a proxy that waits for names (C22).
const ATTENTION: Duration = Duration::from_secs(90);

/// What is known of one proxy.
#[derive(Default)]
struct Known {
    serving: Option<ProcessId>,
    /// Its log is looked at until then.
    until: Option<Instant>,
    redaction: Redaction,
    failed: bool,
}

/// Looks at the proxies of this agent again and again; never ends.
pub(in crate::agent::host) async fn watch(settings: Arc<HostSettings>, supervisor: Arc<dyn Supervisor>) {
    let mut known = BTreeMap::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        let (settings, supervisor) = (Arc::clone(&settings), Arc::clone(&supervisor));
        let looked = blocking::run(move || {
            look(&settings, &*supervisor, &mut known, now);
            known
        });
        known = match looked.await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "the look at the logs of the proxies ended unexpectedly");
                BTreeMap::new()
            }
        };
    }
}

fn look(settings: &HostSettings, supervisor: &dyn Supervisor, known: &mut BTreeMap<Port, Known>, now: Instant) {
    let records = match Record::all(settings) {
        Ok(records) => records,
        Err(error) => return tracing::warn!(%error, "what the agent knows of its proxies could not be read"),
    };
    known.retain(|port, _| records.iter().any(|record| record.step.sql_port == *port));
    for record in records {
        let port = record.step.sql_port;
        let known = known.entry(port).or_default();
        // Whoever cannot be asked is asked again at the next look.
        let Ok(serving) = serving(supervisor, settings, &record.run) else { continue };
        if serving.is_some() && serving != known.serving {
            known.serving = serving;
            known.until = Some(now + ATTENTION);
        }
        if known.until.is_none_or(|until| until < now) {
            continue;
        }
        match known.redaction.look(&settings.instance_dir(port)) {
            Ok(count) => {
                known.failed = false;
                if count > 0 {
                    tracing::info!(%port, count, "hashes of passwords were taken out of the log of a proxy");
                }
            }
            Err(error) if !known.failed => {
                known.failed = true;
                tracing::warn!(%port, %error, "the log of a proxy may hold hashes of passwords: it cannot be changed");
            }
            Err(_) => {}
        }
    }
}

/// After a hot restart another process of the run serves.
fn serving(supervisor: &dyn Supervisor, settings: &HostSettings, run: &str) -> io::Result<Option<ProcessId>> {
    let run_dir = runs::dir(settings, run);
    match supervisor.peek(&run_dir)? {
        Some(process) => Ok(Some(process)),
        None => {
            Ok(supervisor.processes(&run_dir)?.into_iter().max_by_key(|process| (process.start_ticks, process.pid)))
        }
    }
}
