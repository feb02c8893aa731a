//! systemd over D-Bus: a connection that is opened when it is needed and again after it was lost, calls with a deadline.

use super::status::UnitStatus;
use futures_util::StreamExt as _;
use std::{collections::HashMap, io, time::Duration};
use tokio::{sync::Mutex, time::timeout};
use zbus::{
    Connection, DBusError as _, OwnedObjectPath, OwnedVariant, Variant,
    connection::Builder,
    fdo::{self, PropertiesProxy},
    proxy::CacheProperties,
};

/// systemd answers within milliseconds, unless it is loading all its units again.
const CALL_DEADLINE: Duration = Duration::from_secs(25);
/// Loading all units takes seconds on a large host.
const RELOAD_DEADLINE: Duration = Duration::from_secs(90);
const SIGKILL: i32 = 9;

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        auxiliary: &[(&str, Vec<(&str, Variant<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<(String, String, String)>)>;
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Vec<(String, String, String)>>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// Why systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error("systemd cannot be reached over D-Bus ({call})")]
    Unreachable {
        call: &'static str,
        #[source]
        source: zbus::Error,
    },
    #[error("systemd did not answer {call} within {} s", deadline.as_secs())]
    Late { call: &'static str, deadline: Duration },
    #[error("systemd refused {call}: {message}")]
    Refused { call: &'static str, name: String, message: String },
}

impl BusError {
    fn is_no_such_unit(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if name == "org.freedesktop.systemd1.NoSuchUnit")
    }
}

impl From<BusError> for io::Error {
    fn from(error: BusError) -> Self {
        Self::other(error)
    }
}

/// The first number of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32);

struct Session {
    systemd: ManagerProxy<'static>,
    version: Version,
}

pub(super) struct Bus {
    address: String,
    connection: Mutex<Option<Connection>>,
}

/// The one of the machine, whatever the agent's environment says.
impl Default for Bus {
    fn default() -> Self {
        Self::at("unix:path=/run/dbus/system_bus_socket")
    }
}

/// `None`: there is no such unit, which is as good as a success for whoever wants it gone.
fn unless_gone<T>(answer: Result<T, BusError>) -> Result<Option<T>, BusError> {
    match answer {
        Err(error) if error.is_no_such_unit() => Ok(None),
        answer => answer.map(Some),
    }
}

/// systemd has answered, not somebody for it.
fn is_refusal(error: &fdo::Error) -> bool {
    !matches!(
        error,
        fdo::Error::ZBus(_)
            | fdo::Error::NoReply(_)
            | fdo::Error::Timeout(_)
            | fdo::Error::TimedOut(_)
            | fdo::Error::Disconnected(_)
            | fdo::Error::NoServer(_)
            | fdo::Error::ServiceUnknown(_)
            | fdo::Error::NameHasNoOwner(_)
    )
}

async fn bounded<T>(
    call: &'static str,
    deadline: Duration,
    answer: impl Future<Output = zbus::Result<T>>,
) -> Result<T, BusError> {
    match timeout(deadline, answer).await {
        Err(_) => Err(BusError::Late { call, deadline }),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(zbus::Error::MethodError(name, message, _))) => {
            Err(BusError::Refused { call, name: name.to_string(), message: message.unwrap_or_default() })
        }
        Ok(Err(zbus::Error::FDO(error))) if is_refusal(&error) => {
            let message = error.description().unwrap_or_default().into();
            Err(BusError::Refused { call, name: error.name().to_string(), message })
        }
        Ok(Err(source)) => Err(BusError::Unreachable { call, source }),
    }
}

async fn ask<T>(call: &'static str, answer: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    bounded(call, CALL_DEADLINE, answer).await
}

impl Bus {
    pub(super) fn at(address: &str) -> Self {
        Self { address: address.into(), connection: Mutex::default() }
    }

    /// Asking for the version tells whether the connection still lives, so that a call which must not be repeated is
    /// sent over one that does.
    async fn session(&self) -> Result<Session, BusError> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = connection.as_ref()
            && let Ok(session) = Self::greet(known).await
        {
            return Ok(session);
        }
        let fresh = ask("the connection", Builder::address(self.address.as_str()).build()).await?;
        let session = Self::greet(&fresh).await?;
        // Without this systemd sends no signals to whoever is not root's own session.
        ask("Subscribe", session.systemd.subscribe()).await?;
        *connection = Some(fresh);
        Ok(session)
    }

    async fn greet(connection: &Connection) -> Result<Session, BusError> {
        let systemd = ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build();
        let systemd = ask("the connection", systemd).await?;
        let version = ask("Version", systemd.version()).await?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        // A version that begins with no number has never been seen; the oldest one promises the least.
        Ok(Session { systemd, version: Version(digits.parse().unwrap_or(0)) })
    }

    pub(super) async fn version(&self) -> Result<Version, BusError> {
        Ok(self.session().await?.version)
    }

    /// What systemd says of a unit; of one that is not loaded it says what it would of one that never began.
    pub(super) async fn status(&self, unit: &str) -> Result<UnitStatus, BusError> {
        let systemd = self.session().await?.systemd;
        let Some(path) = unless_gone(ask("GetUnit", systemd.get_unit(unit)).await)? else {
            return Ok(UnitStatus::default());
        };
        let all = async {
            let object = PropertiesProxy::builder(systemd.inner().connection())
                .destination("org.freedesktop.systemd1")
                .path(path)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            let of = |interface: &'static str| {
                let object = &object;
                async move { object.get_all(interface.try_into()?).await }
            };
            let mut properties: HashMap<String, OwnedVariant> = of("org.freedesktop.systemd1.Unit").await?;
            properties.extend(of("org.freedesktop.systemd1.Service").await?);
            Ok(properties)
        };
        match ask("GetAll", all).await {
            Ok(properties) => Ok(UnitStatus::from(&properties)),
            // Unloaded between the two questions.
            Err(BusError::Refused { name, .. }) if name.ends_with(".UnknownObject") => Ok(UnitStatus::default()),
            Err(error) => Err(error),
        }
    }

    /// Starts a unit that is loaded or can be, and waits for the end of the job; answers its result, such as `done`.
    pub(super) async fn start(&self, unit: &str, deadline: Duration) -> Result<String, BusError> {
        let systemd = self.session().await?.systemd;
        let mut removed = ask("the subscription", systemd.receive_job_removed()).await?;
        let job = ask("StartUnit", systemd.start_unit(unit, "fail")).await?;
        finish("the job of StartUnit", &mut removed, &job, deadline).await
    }

    pub(super) async fn start_transient(
        &self,
        unit: &str,
        properties: &[(&str, Variant<'_>)],
        deadline: Duration,
    ) -> Result<String, BusError> {
        let systemd = self.session().await?.systemd;
        let mut removed = ask("the subscription", systemd.receive_job_removed()).await?;
        let job = ask("StartTransientUnit", systemd.start_transient_unit(unit, "fail", properties, &[])).await?;
        finish("the job of StartTransientUnit", &mut removed, &job, deadline).await
    }

    /// Stops a unit with all its processes: those that do not listen are killed after `grace`.
    pub(super) async fn stop(&self, unit: &str, grace: Duration, insist: Duration) -> Result<(), BusError> {
        let systemd = self.session().await?.systemd;
        let mut removed = ask("the subscription", systemd.receive_job_removed()).await?;
        let Some(job) = unless_gone(ask("StopUnit", systemd.stop_unit(unit, "replace")).await)? else {
            return Ok(());
        };
        match finish("the job of StopUnit", &mut removed, &job, grace).await {
            Err(BusError::Late { .. }) => {}
            ended => return ended.map(drop),
        }
        match ask("KillUnit", systemd.kill_unit(unit, "all", SIGKILL)).await {
            // It ended at this very moment, or another process of it was gone already.
            Ok(()) | Err(BusError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        finish("the job of StopUnit", &mut removed, &job, insist).await.map(drop)
    }

    pub(super) async fn reset_failed(&self, unit: &str) -> Result<(), BusError> {
        let systemd = self.session().await?.systemd;
        unless_gone(ask("ResetFailedUnit", systemd.reset_failed_unit(unit)).await).map(drop)
    }

    pub(super) async fn reload(&self) -> Result<(), BusError> {
        let systemd = self.session().await?.systemd;
        bounded("Reload", RELOAD_DEADLINE, systemd.reload()).await
    }

    /// Makes a unit start with the host.
    pub(super) async fn enable(&self, unit: &str) -> Result<(), BusError> {
        let systemd = self.session().await?.systemd;
        ask("EnableUnitFiles", systemd.enable_unit_files(&[unit], false, true)).await.map(drop)
    }

    pub(super) async fn disable(&self, unit: &str) -> Result<(), BusError> {
        let systemd = self.session().await?.systemd;
        ask("DisableUnitFiles", systemd.disable_unit_files(&[unit], false)).await.map(drop)
    }
}

/// Waits until a job is removed; `removed` was subscribed to before the job was made, so its end cannot be missed.
async fn finish(
    call: &'static str,
    removed: &mut JobRemovedStream,
    job: &OwnedObjectPath,
    deadline: Duration,
) -> Result<String, BusError> {
    let result = async {
        while let Some(signal) = removed.next().await {
            let arguments = signal.args()?;
            if arguments.job() == job {
                return Ok(arguments.result().clone());
            }
        }
        // The connection is gone; whoever looks at the unit over another one learns the rest.
        Err(zbus::Error::Failure("the connection was lost".into()))
    };
    bounded(call, deadline, result).await
}
