//! What the agent knows of each proxy that it has started: which run serves its port, and what it was started as.
//!
//! It lies in the agent's own state directory: what lies in the proxy's directory is the run user's to write.

use super::super::{
    beneath::Directory,
    durable::{make_directory, read_json, remove, write_json},
    settings::HostSettings,
};
use crate::steps::{StartObproxy, values::Port};
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf};

const SCHEMA: u32 = 2;
/// Where agents before this one kept it, below the directory of the proxy, and how long it may be at most.
const FORMER_NAME: &str = ".oblet.json";
const FORMER_LIMIT_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent::host) struct Record {
    schema: u32,
    /// The run that serves, or is about to.
    pub(in crate::agent::host) run: String,
    /// The run in which it takes its passwords, before that one.
    #[serde(default)]
    pub(super) first: Option<String>,
    pub(in crate::agent::host) step: StartObproxy,
}

fn path(settings: &HostSettings, port: Port) -> PathBuf {
    settings.state_dir.join("obproxies").join(format!("{port}.json"))
}

impl Record {
    pub(super) fn new(run: &str, first: Option<&str>, step: &StartObproxy) -> Self {
        Self { schema: SCHEMA, run: run.into(), first: first.map(Into::into), step: step.clone() }
    }

    pub(in crate::agent::host) fn read(settings: &HostSettings, port: Port) -> io::Result<Option<Self>> {
        let path = path(settings, port);
        match read_json::<Self>(&path)? {
            Some(record) if record.schema > SCHEMA => {
                let (found, path) = (record.schema, path.display());
                Err(io::Error::other(format!("{path} has schema {found}, the newest known is {SCHEMA}")))
            }
            record => Ok(record),
        }
    }

    pub(super) fn write(&self, settings: &HostSettings) -> io::Result<()> {
        let path = path(settings, self.step.sql_port);
        if let Some(dir) = path.parent() {
            make_directory(dir)?;
        }
        write_json(&path, self)
    }

    pub(super) fn remove(settings: &HostSettings, port: Port) -> io::Result<()> {
        remove(&path(settings, port))
    }

    /// All proxies that this agent has started.
    pub(in crate::agent::host) fn all(settings: &HostSettings) -> io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(settings.state_dir.join("obproxies")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let port = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<i64>().ok());
            let Some(port) = port.and_then(|port| Port::try_from(port).ok()) else { continue };
            records.extend(Self::read(settings, port)?);
        }
        Ok(records)
    }

    pub(in crate::agent::host) fn runs(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.run.as_str()).chain(self.first.as_deref())
    }

    /// Takes over what an agent before this one has noted of the proxy at this port, and closes the proxy's directory.
    /// The run user could have written it: it is a regular file of moderate length, and names a run, never a path.
    pub(in crate::agent::host) fn take_over(settings: &HostSettings, port: Port) -> io::Result<()> {
        #[derive(Deserialize)]
        struct Former {
            run: String,
            step: StartObproxy,
        }
        let Some(dir) = Directory::find(&settings.instance_dir(port))? else { return Ok(()) };
        dir.set_mode(super::launch::DIRECTORY_MODE)?;
        if Self::read(settings, port)?.is_some() {
            return Ok(());
        }
        let bytes = match dir.read_end(FORMER_NAME, 0, FORMER_LIMIT_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let former: Former = serde_json::from_slice(&bytes)?;
        if former.run.is_empty()
            || former.run.starts_with('.')
            || former.run.contains('/')
            || former.step.sql_port != port
        {
            return Err(io::Error::other(format!("{FORMER_NAME} names no run of port {port}")));
        }
        Self::new(&former.run, None, &former.step).write(settings)
    }
}
