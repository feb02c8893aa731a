//! What the agent looks after: a small file, replaced whole, and its copy in memory.

use super::durable::{read_json, write_json};
use crate::steps::{Instance, InstanceKind, values::Port};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

const SCHEMA: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    schema: u32,
    /// Grows with every change.
    generation: u64,
    instances: Vec<Instance>,
    exporters: Vec<Instance>,
}

/// The two lists of the managed state.
#[derive(Debug, Clone, Copy)]
pub(super) enum List {
    Instances,
    Exporters,
}

pub(super) struct Managed {
    path: PathBuf,
    state: Mutex<State>,
}

impl State {
    fn list(&self, list: List) -> &Vec<Instance> {
        match list {
            List::Instances => &self.instances,
            List::Exporters => &self.exporters,
        }
    }

    fn list_mut(&mut self, list: List) -> &mut Vec<Instance> {
        match list {
            List::Instances => &mut self.instances,
            List::Exporters => &mut self.exporters,
        }
    }
}

impl Managed {
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("managed.json");
        let empty = State { schema: SCHEMA, generation: 0, instances: Vec::new(), exporters: Vec::new() };
        let state = read_json(&path)?.unwrap_or(empty);
        if state.schema != SCHEMA {
            let found = state.schema;
            return Err(io::Error::other(format!("{} has schema {found}, known is {SCHEMA}", path.display())));
        }
        Ok(Self { path, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half written: it is replaced as a whole after the file was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub(super) fn all(&self, list: List) -> Vec<Instance> {
        self.lock().list(list).clone()
    }

    pub(super) fn get(&self, list: List, kind: InstanceKind, port: Port) -> Option<Instance> {
        self.lock().list(list).iter().find(|entry| entry.kind == kind && entry.sql_port == port).cloned()
    }

    /// Makes `entry` what the list says of this kind and port. `false`: it was so.
    pub(super) fn set(&self, list: List, kind: InstanceKind, port: Port, entry: Option<&Instance>) -> io::Result<bool> {
        let mut state = self.lock();
        let mut next = state.clone();
        let entries = next.list_mut(list);
        entries.retain(|other| other.kind != kind || other.sql_port != port);
        entries.extend(entry.cloned());
        entries.sort_by_key(|entry| (entry.kind, entry.sql_port));
        if next == *state {
            return Ok(false);
        }
        next.generation += 1;
        write_json(&self.path, &next)?;
        *state = next;
        Ok(true)
    }
}
