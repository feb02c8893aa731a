//! Operations: what an operator asks for, turned into a task as data.

mod agent;
mod host;
mod obproxy;

pub use agent::{operate::operate_agents, upgrade::upgrade_agents};
pub use host::{HostToPrepare, prepare_host};
pub use obproxy::{
    install::{NewProxy, ObproxyInstall, create_cluster, install_obproxy},
    offline::{ObproxyRemoval, RemovedProxy, remove_obproxies},
};

use crate::{
    graph::{Direction, Graph, GraphError, Node, NodeIndex, wire_enum},
    steps::{Step, StepInfo},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};
use uuid::Uuid;

/// OCP's context of a task: two maps that its clients read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub list_map: BTreeMap<String, Vec<String>>,
    pub string_map: BTreeMap<String, String>,
}

/// One node of a task: the step, where it runs, and the names under which an agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedNode {
    pub step: Step,
    /// Host of an agent step.
    pub host_id: Option<i64>,
    /// OCP's index of the template node; parallel copies share it.
    pub series_id: u32,
    /// -1, or the index in the list that was split.
    pub parallel_index: i32,
    pub upstreams: Vec<NodeIndex>,
    /// Fixed for the life of the task, so that an agent recognises a repeated call.
    pub execute_id: Uuid,
    pub undo_id: Uuid,
}

impl PlannedNode {
    pub fn info(&self) -> &'static StepInfo {
        self.step.info()
    }

    pub fn operation_id(&self, direction: Direction) -> Uuid {
        match direction {
            Direction::Execute => self.execute_id,
            Direction::Undo => self.undo_id,
        }
    }
}

wire_enum! {
    /// Kinds of objects that a task can reserve.
    ObjectKind { Host => "host", ObproxyCluster => "obproxy_cluster", Obproxy => "obproxy" }
}

/// An object that a task reserves from its creation until it is SUCCESSFUL, or an operator releases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLock {
    pub kind: ObjectKind,
    pub id: i64,
    /// Nobody else may reserve the object at all; else all may who do not want it for themselves.
    pub exclusive: bool,
}

impl ObjectLock {
    pub fn exclusive(kind: ObjectKind, id: i64) -> Self {
        Self { kind, id, exclusive: true }
    }

    pub fn shared(kind: ObjectKind, id: i64) -> Self {
        Self { kind, id, exclusive: false }
    }
}

impl fmt::Display for ObjectLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str().replace('_', " "), self.id)
    }
}

/// A task before it is run: everything that its graph needs, and nothing secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlan {
    pub name: String,
    pub context: Context,
    /// The one host that the task is about, if it is about one.
    pub host_id: Option<i64>,
    /// Proxy cluster whose passwords the steps need.
    pub obproxy_cluster_id: Option<i64>,
    #[serde(default)]
    pub locks: Vec<ObjectLock>,
    pub nodes: Vec<PlannedNode>,
}

impl TaskPlan {
    pub fn graph(&self) -> Result<Graph, GraphError> {
        let node = |node: &PlannedNode| Node { upstreams: node.upstreams.clone(), prohibit_rollback: false };
        Graph::new(self.nodes.iter().map(node).collect())
    }

    pub fn node(&self, index: NodeIndex) -> Option<&PlannedNode> {
        self.nodes.get(index.0 as usize)
    }
}

/// Collects nodes in the order in which they run.
#[derive(Default)]
struct Builder {
    nodes: Vec<PlannedNode>,
}

impl Builder {
    fn add(&mut self, series_id: u32, place: Place, step: Step, upstreams: &[NodeIndex]) -> NodeIndex {
        let index = NodeIndex(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(PlannedNode {
            step,
            host_id: place.host_id,
            series_id,
            parallel_index: place.parallel_index,
            upstreams: upstreams.to_vec(),
            execute_id: Uuid::now_v7(),
            undo_id: Uuid::now_v7(),
        });
        index
    }
}

/// Where a node runs and which copy of its template it is.
#[derive(Clone, Copy)]
struct Place {
    host_id: Option<i64>,
    parallel_index: i32,
}

const NOWHERE: Place = Place { host_id: None, parallel_index: -1 };
