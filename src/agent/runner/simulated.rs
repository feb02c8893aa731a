//! A host in memory whose steps stop where a test wants them to.

use crate::{
    agent::{
        HostView,
        operation::{Key, Order, Phase, Record, UndoTarget},
        runner::Runner,
        step::{Carrier, Done, StepContext, StepError, Undoes},
    },
    graph::{Direction, Effect},
    rpc::v1,
    steps::{
        AgentStep, CheckCommands, InstallPackage, OBPROXY_SYS_PASSWORD, RefreshConfig, SyncObproxyParameters,
        fingerprint,
    },
};
use futures_util::future::BoxFuture;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Semaphore;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What a step does when it is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Succeed,
    /// Waits for the gate, or to be canceled, after this phase was reached.
    HoldAt(Phase),
    /// Waits for the gate and does not listen when it is told to stop.
    Deaf,
    Fail,
    Panic,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) direction: Direction,
    pub(crate) run_id: String,
    pub(crate) identity: Option<String>,
    pub(crate) undoes: Vec<Undoes>,
    pub(crate) password: Option<String>,
    pub(crate) timeout: Option<Duration>,
}

pub(crate) struct Simulated {
    pub(crate) behaviour: Mutex<Behaviour>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) gate: Semaphore,
    /// Effects that exist on the host, by identity.
    pub(crate) effects: Mutex<Vec<String>>,
    /// Runs that have left files on the host.
    pub(crate) runs: Mutex<Vec<String>>,
}

impl Simulated {
    pub(crate) fn new(behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self {
            behaviour: Mutex::new(behaviour),
            calls: Mutex::default(),
            gate: Semaphore::new(0),
            effects: Mutex::default(),
            runs: Mutex::default(),
        })
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    async fn hold(&self, here: Phase, context: &StepContext) -> Result<(), StepError> {
        let behaviour = *self.behaviour.lock().unwrap();
        if behaviour == Behaviour::Deaf && here == Phase::Running {
            drop(self.gate.acquire().await);
        }
        if behaviour != Behaviour::HoldAt(here) {
            return Ok(());
        }
        context.log.line(&format!("holding at {here:?}"));
        tokio::select! {
            _ = self.gate.acquire() => Ok(()),
            () = context.cancel.cancelled() => {
                context.log.line("stopped");
                Err(StepError::canceled("the simulated step"))
            }
        }
    }

    fn note(&self, direction: Direction, context: &StepContext, undoes: &[Undoes]) {
        self.calls.lock().unwrap().push(Call {
            direction,
            run_id: context.run_id.clone(),
            identity: context.identity.clone(),
            undoes: undoes.to_vec(),
            timeout: context.timeout,
            password: context.secrets.get(OBPROXY_SYS_PASSWORD).map(ToOwned::to_owned),
        });
    }

    fn end(&self) -> Result<(), StepError> {
        match *self.behaviour.lock().unwrap() {
            Behaviour::Fail => {
                let mut error = StepError::new("RPM_FAILED", "rpm failed", "read the log")
                    .because(std::io::Error::other("the package is damaged"));
                error.exit_code = Some(1);
                Err(error)
            }
            Behaviour::Succeed | Behaviour::HoldAt(_) | Behaviour::Deaf | Behaviour::Panic => Ok(()),
        }
    }
}

impl Carrier for Simulated {
    fn execute<'a>(&'a self, step: &'a AgentStep, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            self.note(Direction::Execute, context, &[]);
            context.log.line("begin");
            let behaviour = *self.behaviour.lock().unwrap();
            assert_ne!(behaviour, Behaviour::Panic, "the simulated step panics");
            if matches!(step, AgentStep::InstallPackage(_)) {
                self.hold(Phase::Accepted, context).await?;
                let identity = match &context.identity {
                    Some(identity) => identity.clone(),
                    None => {
                        let identity = format!("unit-{}", context.run_id);
                        context.choose_identity(identity.clone()).await?;
                        identity
                    }
                };
                self.hold(Phase::Starting, context).await?;
                {
                    let mut effects = self.effects.lock().unwrap();
                    if !effects.contains(&identity) {
                        effects.push(identity);
                    }
                }
                context.confirm_identity().await?;
            }
            self.hold(Phase::Running, context).await?;
            self.end()?;
            context.log.line("end");
            Ok(Done::made().with("path", "/home/admin"))
        })
    }

    fn undo<'a>(
        &'a self,
        _step: &'a AgentStep,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            self.note(Direction::Undo, context, undoes);
            self.effects
                .lock()
                .unwrap()
                .retain(|effect| !undoes.iter().any(|undone| undone.identity.as_ref() == Some(effect)));
            self.end()?;
            Ok(Done::made())
        })
    }

    fn runs(&self) -> Vec<String> {
        self.runs.lock().unwrap().clone()
    }

    fn forget_run<'a>(&'a self, run: &'a str) -> BoxFuture<'a, ()> {
        self.runs.lock().unwrap().retain(|kept| kept != run);
        Box::pin(async {})
    }
}

impl HostView for Simulated {
    fn instances(&self) -> Vec<v1::ManagedInstance> {
        vec![v1::ManagedInstance { kind: "obproxy".into(), port: 2883, pid: 7, alive: true }]
    }

    fn config_generation(&self) -> u64 {
        3
    }
}

pub(crate) const PASSWORD: &str = "s3cret-Pa55word-of-proxysys";

pub(crate) fn install() -> AgentStep {
    AgentStep::InstallPackage(InstallPackage {
        package: "obproxy-1.9.1.1-1919579.el7.x86_64".parse().unwrap(),
        sha256: "0".repeat(64).parse().unwrap(),
    })
}

pub(crate) fn refresh() -> AgentStep {
    AgentStep::RefreshConfig(RefreshConfig {
        instance: crate::steps::Instance {
            kind: crate::steps::InstanceKind::Obproxy,
            sql_port: 2883.try_into().unwrap(),
            exporter_port: 2884.try_into().unwrap(),
            cluster_name: "obpc".parse().unwrap(),
            cluster_id: 1,
            server_id: 2,
        },
    })
}

pub(crate) fn sync_parameters() -> AgentStep {
    AgentStep::SyncObproxyParameters(SyncObproxyParameters {
        sql_port: 2883.try_into().unwrap(),
        parameters: Vec::new(),
    })
}

pub(crate) fn check() -> AgentStep {
    AgentStep::CheckCommands(CheckCommands { commands: vec!["nc".parse().unwrap()] })
}

pub(crate) fn order(step: AgentStep) -> Order {
    Order {
        key: Key { operation_id: Uuid::now_v7(), attempt: 1 },
        epoch: 1,
        fingerprint: fingerprint(&step, Direction::Execute),
        secrets: step
            .secrets(Direction::Execute)
            .iter()
            .map(|name| ((*name).to_owned(), Zeroizing::new(PASSWORD.to_owned())))
            .collect(),
        step,
        undoes: None,
        timeout: None,
    }
}

pub(crate) fn undo_of(order: &Order, effect: Effect) -> Order {
    Order {
        key: Key { operation_id: Uuid::now_v7(), attempt: 1 },
        fingerprint: fingerprint(&order.step, Direction::Undo),
        undoes: Some(UndoTarget { operation_id: order.key.operation_id, effect }),
        ..order.clone()
    }
}

/// Waits until the operation is in `phase`, or beyond it.
pub(crate) async fn reached(runner: &Runner, key: Key, phase: Phase) -> Record {
    let mut commits = runner.journal().commits();
    let wait = async {
        loop {
            commits.update();
            let record = runner.get(key).await.unwrap();
            if record.phase >= phase {
                return record;
            }
            commits.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the phase is reached")
}

/// Changes the journal behind the agent's back.
pub(crate) async fn damage(state_dir: &std::path::Path, sql: &'static str) {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(state_dir.join("journal.db"));
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}
