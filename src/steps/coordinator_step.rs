//! The kinds of steps that the coordinator carries out itself: what each says of itself, and the one list of them.

use super::{Step, StepInfo};
use serde::{Deserialize, Serialize};

/// A kind of step that needs no host: its arguments are the implementing type. Every one may run twice.
pub trait CoordinatorKind {
    fn info(&self) -> &'static StepInfo;

    /// A cancel can break it off. One that cannot be taken back is not broken off in the middle.
    fn is_cancelable(&self) -> bool {
        true
    }

    /// What its undo takes back was written by the request and not by the step, so a retry still needs it.
    fn stands_for_request(&self) -> bool {
        false
    }
}

macro_rules! coordinator_steps {
    ($($room:ident::$file:ident::$kind:ident),+ $(,)?) => {
        $(pub use super::$room::$file::$kind;)+

        /// A step that the coordinator carries out.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum CoordinatorStep {
            $($kind($kind)),+
        }

        impl CoordinatorStep {
            /// How many there are.
            #[cfg(test)]
            pub(crate) const KINDS: usize = [$(stringify!($kind)),+].len();

            fn of_kind(&self) -> &dyn CoordinatorKind {
                match self {
                    $(Self::$kind(step) => step),+
                }
            }
        }

        $(impl From<$kind> for Step {
            fn from(step: $kind) -> Self {
                Self::Coordinator(CoordinatorStep::$kind(step))
            }
        })+
    };
}

// The one list of kinds; the store keeps their names in lower case.
coordinator_steps! {
    obproxy::prepare_install::PrepareObproxyInstall,
    obproxy::update_status::UpdateObproxyStatus,
    obproxy::prepare_offline::PrepareObproxyOffline,
    obproxy::delete_info::DeleteObproxyInfo,
    obproxy::finish_offline::FinishClusterOffline,
    task::start::Begin,
    task::finish::Finish,
    host::prepare::PrepareHost,
    host::update_status::UpdateHostStatus,
    host::unreserve::UnreserveHosts,
    agent::prepare_operation::PrepareAgentOperation,
    agent::finish_operation::FinishAgentOperation,
    agent::prepare_upgrade::PrepareAgentUpgrade,
    agent::finish_upgrade::FinishAgentUpgrade,
    task::wait::Wait,
}

impl CoordinatorStep {
    pub fn info(&self) -> &'static StepInfo {
        self.of_kind().info()
    }

    pub fn is_cancelable(&self) -> bool {
        self.of_kind().is_cancelable()
    }

    pub fn stands_for_request(&self) -> bool {
        self.of_kind().stands_for_request()
    }
}
