use serde::{Deserialize, Serialize};
use std::fmt;

/// Position of a node in its graph; also the key of a subtask in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeIndex(pub u32);

impl NodeIndex {
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node: what the engine must know of a subtask. What the subtask does is not the graph's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub upstreams: Vec<NodeIndex>,
    /// The effect of this node cannot be taken back, so a task that touched it cannot be rolled back.
    #[serde(default)]
    pub prohibit_rollback: bool,
}

/// A validated acyclic graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Node>", into = "Vec<Node>")]
pub struct Graph {
    nodes: Vec<Node>,
    downstreams: Vec<Vec<NodeIndex>>,
    topological_order: Vec<NodeIndex>,
}

/// Why a list of nodes is not a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("the graph has no node")]
    Empty,
    #[error("node {node} names upstream {upstream}, which does not exist")]
    UnknownUpstream { node: NodeIndex, upstream: NodeIndex },
    #[error("node {node} names upstream {upstream} twice")]
    RepeatedUpstream { node: NodeIndex, upstream: NodeIndex },
    #[error("node {node} is part of a cycle")]
    Cycle { node: NodeIndex },
}

impl Graph {
    pub fn new(nodes: Vec<Node>) -> Result<Self, GraphError> {
        if nodes.is_empty() {
            return Err(GraphError::Empty);
        }
        let mut downstreams: Vec<Vec<NodeIndex>> = vec![Vec::new(); nodes.len()];
        for (index, node) in indexed(&nodes) {
            for upstream in &node.upstreams {
                let Some(list) = downstreams.get_mut(upstream.at()) else {
                    return Err(GraphError::UnknownUpstream { node: index, upstream: *upstream });
                };
                if list.last() == Some(&index) {
                    return Err(GraphError::RepeatedUpstream { node: index, upstream: *upstream });
                }
                list.push(index);
            }
        }
        let topological_order = sort(&nodes, &downstreams)?;
        Ok(Self { nodes, downstreams, topological_order })
    }

    /// A chain: each node waits for the one before it.
    pub fn chain(length: u32) -> Result<Self, GraphError> {
        let node = |index: u32| Node {
            upstreams: index.checked_sub(1).map(NodeIndex).into_iter().collect(),
            prohibit_rollback: false,
        };
        Self::new((0..length).map(node).collect())
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        indexed(&self.nodes)
    }

    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(index.at())
    }

    pub fn downstreams(&self, index: NodeIndex) -> &[NodeIndex] {
        self.downstreams.get(index.at()).map_or(&[], Vec::as_slice)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never true: a graph without nodes cannot be built.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node after all its upstreams.
    pub(super) fn topological_order(&self) -> &[NodeIndex] {
        &self.topological_order
    }
}

/// Kahn's algorithm: what is never freed of its upstreams is in a cycle or behind one.
fn sort(nodes: &[Node], downstreams: &[Vec<NodeIndex>]) -> Result<Vec<NodeIndex>, GraphError> {
    let mut waiting: Vec<usize> = nodes.iter().map(|node| node.upstreams.len()).collect();
    let mut free: Vec<NodeIndex> =
        indexed(nodes).filter(|(_, node)| node.upstreams.is_empty()).map(|(index, _)| index).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(index) = free.pop() {
        order.push(index);
        for downstream in downstreams.get(index.at()).into_iter().flatten() {
            if let Some(count) = waiting.get_mut(downstream.at()) {
                *count -= 1;
                if *count == 0 {
                    free.push(*downstream);
                }
            }
        }
    }
    match waiting.iter().position(|count| *count > 0) {
        Some(node) => Err(GraphError::Cycle { node: NodeIndex(node as u32) }),
        None => Ok(order),
    }
}

fn indexed(nodes: &[Node]) -> impl Iterator<Item = (NodeIndex, &Node)> {
    (0..).map(NodeIndex).zip(nodes)
}

impl TryFrom<Vec<Node>> for Graph {
    type Error = GraphError;

    fn try_from(nodes: Vec<Node>) -> Result<Self, GraphError> {
        Self::new(nodes)
    }
}

impl From<Graph> for Vec<Node> {
    fn from(graph: Graph) -> Self {
        graph.nodes
    }
}

/// An enum whose variants are spelled on the wire and in the store as OCP spells them.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $(#[serde(rename = $text)] $variant),+ }

        impl $name {
            /// All that [`Self::as_str`] can answer.
            pub const TEXTS: &'static [&'static str] = &[$($text),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("{text:?} is not one of {}", [$($text),+].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use wire_enum;

wire_enum! {
    /// OCP knows no waiting task: it runs from its creation on.
    TaskStatus { Running => "RUNNING", Failed => "FAILED", Successful => "SUCCESSFUL" }
}

wire_enum! {
    SubtaskStatus {
        Pending => "PENDING",
        Ready => "READY",
        Running => "RUNNING",
        Canceling => "CANCELING",
        Failed => "FAILED",
        Successful => "SUCCESSFUL",
    }
}

wire_enum! {
    /// What a task or subtask was last asked to do.
    Operation {
        Execute => "EXECUTE",
        Retry => "RETRY",
        Rollback => "ROLLBACK",
        Skip => "SKIP",
        Cancel => "CANCEL",
    }
}
