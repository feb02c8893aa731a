//! The kinds of steps that agents carry out: what each says of itself, and the one list of them.

use super::{
    Step, StepInfo,
    fields::{FieldViolation, Fields},
    values::{PackageRef, Sha256 as Digest},
};
use crate::{graph::Direction, rpc::v1};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A kind of step that an agent carries out: its arguments are the implementing type.
pub trait AgentKind {
    /// The message of the contract that carries the arguments.
    type Message
    where
        Self: Sized;

    fn info(&self) -> &'static StepInfo;

    /// What no other operation on the host may touch meanwhile. None for a step that changes nothing.
    fn lock(&self) -> Option<String>;

    /// Packages that the agent needs, by name and digest.
    fn packages(&self) -> Vec<(&PackageRef, &Digest)> {
        Vec::new()
    }

    /// The same, for the undo.
    fn packages_of_undo(&self) -> Vec<(&PackageRef, &Digest)> {
        Vec::new()
    }

    /// Names of the secrets that have to come with the step.
    fn secrets(&self) -> &'static [&'static str] {
        &[]
    }

    /// The same, with the undo.
    fn secrets_of_undo(&self) -> &'static [&'static str] {
        &[]
    }

    fn to_message(&self) -> Self::Message
    where
        Self: Sized;

    /// Whatever comes through is checked.
    fn from_message(message: Self::Message, fields: Fields) -> Result<Self, FieldViolation>
    where
        Self: Sized;
}

macro_rules! agent_steps {
    ($($room:ident::$file:ident::$kind:ident = $name:literal),+ $(,)?) => {
        $(pub use super::$room::$file::$kind;)+

        /// A step that an agent carries out on its host.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum AgentStep {
            $($kind($kind)),+
        }

        impl AgentStep {
            /// How many there are.
            #[cfg(test)]
            pub(crate) const KINDS: usize = [$($name),+].len();

            fn of_kind(&self) -> &dyn AgentKind {
                match self {
                    $(Self::$kind(step) => step),+
                }
            }

            /// Name of the kind, as in the contract's oneof.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $name),+
                }
            }
        }

        $(impl From<$kind> for Step {
            fn from(step: $kind) -> Self {
                Self::Agent(AgentStep::$kind(step))
            }
        })+

        impl From<&AgentStep> for v1::Step {
            fn from(step: &AgentStep) -> Self {
                let kind = match step {
                    $(AgentStep::$kind(step) => v1::step::Kind::$kind(step.to_message())),+
                };
                Self { kind: Some(kind) }
            }
        }

        impl TryFrom<v1::Step> for AgentStep {
            type Error = FieldViolation;

            fn try_from(step: v1::Step) -> Result<Self, FieldViolation> {
                match step.kind {
                    $(Some(v1::step::Kind::$kind(message)) => {
                        AgentKind::from_message(message, Fields($name)).map(Self::$kind)
                    })+
                    None => Err(FieldViolation {
                        field: "step".into(),
                        problem: "is missing, or is of a kind that this agent does not know".into(),
                    }),
                }
            }
        }
    };
}

// The one list of kinds: where each stands, and its name, which the agent's journal and the coordinator's store keep.
agent_steps! {
    host::check_commands::CheckCommands = "check_commands",
    host::check_processes::CheckProcesses = "check_processes",
    obproxy::check_instance::CheckInstance = "check_instance",
    package::install::InstallPackage = "install_package",
    obproxy::start::StartObproxy = "start_obproxy",
    obproxy::sync_parameters::SyncObproxyParameters = "sync_obproxy_parameters",
    obproxy::set_passwords::SetObproxyPasswords = "set_obproxy_passwords",
    agent::refresh_config::RefreshConfig = "refresh_config",
    obproxy::expose_exporter::ExposeExporter = "expose_exporter",
    host::check::CheckHost = "check_host",
    agent::restart::RestartAgent = "restart_agent",
    agent::stop::StopAgent = "stop_agent",
    agent::upgrade::UpgradeAgent = "upgrade_agent",
    obproxy::uninstall::UninstallObproxy = "uninstall_obproxy",
    obproxy::retire_exporter::RetireExporter = "retire_exporter",
}

impl AgentStep {
    pub fn info(&self) -> &'static StepInfo {
        self.of_kind().info()
    }

    pub fn lock(&self) -> Option<String> {
        self.of_kind().lock()
    }

    pub fn packages(&self, direction: Direction) -> Vec<(&PackageRef, &Digest)> {
        match direction {
            Direction::Execute => self.of_kind().packages(),
            Direction::Undo => self.of_kind().packages_of_undo(),
        }
    }

    pub fn secrets(&self, direction: Direction) -> &'static [&'static str] {
        match direction {
            Direction::Execute => self.of_kind().secrets(),
            Direction::Undo => self.of_kind().secrets_of_undo(),
        }
    }
}

/// Grows when the meaning of an existing step changes; part of the fingerprint.
pub const SCHEMA_VERSION: u32 = 1;

/// SHA-256 over schema version, direction and canonical step, in hexadecimal.
///
/// The contract has no maps inside steps, so their encoding is canonical.
pub fn fingerprint(step: &AgentStep, direction: Direction) -> String {
    let mut hash = Sha256::new();
    hash.update(SCHEMA_VERSION.to_be_bytes());
    hash.update([matches!(direction, Direction::Undo).into()]);
    hash.update(v1::Step::from(step).encode_to_vec());
    // Without an allocation for each byte: every call of a check computes it.
    let digits = hash.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
