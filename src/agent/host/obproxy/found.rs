//! What a removal has found at a port, kept in the agent's state until an undo has brought it back or the next removal there
//! begins.

use super::{
    super::{Host, blocking, durable, managed::List, settings::HostSettings, sockets::listener_pid},
    record::Record,
};
use crate::{
    agent::{
        host::process::{runs, supervisor::failed},
        step::StepError,
    },
    steps::{Instance, StartObproxy, UninstallObproxy, values::Port},
};
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf};

/// What was there before the first attempt.
#[derive(Serialize, Deserialize)]
pub(super) struct Found {
    server_id: i64,
    /// The proxy of the agent's record, if there is one.
    pub(super) proxy: Option<FoundProxy>,
    /// The agent looked after it.
    pub(super) listed: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FoundProxy {
    /// The run that the record named.
    run: String,
    pub(super) start: StartObproxy,
    /// It listened on its SQL port.
    pub(super) served: bool,
}

impl Found {
    fn path(settings: &HostSettings, port: Port) -> PathBuf {
        settings.state_dir.join("removals").join(format!("{port}.json"))
    }

    pub(super) async fn look(host: &Host, step: &UninstallObproxy, record: Option<&Record>) -> Result<Self, StepError> {
        let Instance { kind, sql_port, server_id, .. } = step.instance;
        let proxy = match record {
            Some(record) => {
                let served = listens(host, record).await?;
                Some(FoundProxy { run: record.run.clone(), start: record.step.clone(), served })
            }
            None => None,
        };
        Ok(Self { server_id, proxy, listed: host.managed.get(List::Instances, kind, sql_port).is_some() })
    }

    pub(super) fn read(settings: &HostSettings, instance: &Instance) -> io::Result<Option<Self>> {
        let found: Option<Self> = durable::read_json(&Self::path(settings, instance.sql_port))?;
        Ok(found.filter(|found| found.server_id == instance.server_id))
    }

    pub(super) fn write(&self, settings: &HostSettings, port: Port) -> io::Result<()> {
        let path = Self::path(settings, port);
        path.parent().map_or(Ok(()), durable::make_directory)?;
        durable::write_json(&path, self)
    }

    pub(super) fn forget(settings: &HostSettings, port: Port) -> io::Result<()> {
        durable::remove(&Self::path(settings, port))
    }

    /// Whether the proxy of this record is about to go, too.
    pub(super) fn is_going(settings: &HostSettings, record: &Record) -> io::Result<bool> {
        let found: Option<Self> = durable::read_json(&Self::path(settings, record.step.sql_port))?;
        Ok(found.and_then(|found| found.proxy).is_some_and(|proxy| proxy.run == record.run))
    }
}

async fn listens(host: &Host, record: &Record) -> Result<bool, StepError> {
    let (address, port) = (host.settings.reach(), record.step.sql_port.get());
    let listener = blocking(move || Ok(listener_pid(address, port))).await?;
    let own =
        host.supervisor.processes(&runs::dir(&host.settings, &record.run)).map_err(failed("the look for obproxy"))?;
    Ok(own.iter().any(|process| Some(process.pid) == listener))
}
