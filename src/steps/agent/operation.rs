use serde::{Deserialize, Serialize};

/// What is done with the agent of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentOperation {
    Restart,
    Stop,
}
