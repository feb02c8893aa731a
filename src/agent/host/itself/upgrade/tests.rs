use super::*;
use crate::agent::host::{
    ProcessId, Supervisor,
    itself::service::{ManagerError, Order},
    testing::{Identities, context, script, settings},
};
use futures_util::future::BoxFuture;
use std::{
    fs,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

const OLD: &str = "oblet-agent_0.1.0-1_amd64.deb";
const NEW: &str = "oblet-agent_0.1.0-2_amd64.deb";

/// Ends every run at once, with a verdict, and installs what is to be installed as far as a query shows.
struct Jobs {
    outlives: bool,
    verdict: Mutex<Option<Verdict>>,
    database: PathBuf,
    plans: Mutex<Vec<Plan>>,
}

impl Supervisor for Arc<Jobs> {
    fn start<'a>(&'a self, run_dir: &'a Path, launch: &'a Launch) -> BoxFuture<'a, io::Result<()>> {
        let plan: Plan = durable::read_json(Path::new(&launch.arguments[1])).unwrap().unwrap();
        assert_eq!(launch.program, run_dir.join(PROGRAM));
        let mode = fs::metadata(&launch.program).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let verdict = self.verdict.lock().unwrap().clone();
        if let Some(verdict) = &verdict {
            verdict.write(&run_dir.join(PLAN)).unwrap();
        }
        match (&plan.change, verdict) {
            (Change::Install { package, .. }, Some(Verdict::Replaced)) => {
                fs::write(&self.database, package.to_string()).unwrap();
                durable::remove(&plan.mark).unwrap();
            }
            (Change::Install { package, .. }, Some(Verdict::RolledBack(_))) => {
                fs::write(&self.database, package.to_string()).unwrap();
                fs::write(&plan.mark, "").unwrap();
            }
            (Change::Restore { .. }, Some(Verdict::Replaced)) => fs::write(&plan.mark, "").unwrap(),
            _ => {}
        }
        self.plans.lock().unwrap().push(plan);
        Box::pin(async { Ok(()) })
    }

    fn find<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<RunState>> {
        let state =
            if run_dir.join(PLAN).exists() { RunState::Ended(RunOutcome::ExitCode(0)) } else { RunState::Nothing };
        Box::pin(async { Ok(state) })
    }

    fn peek(&self, _run_dir: &Path) -> io::Result<Option<ProcessId>> {
        Ok(None)
    }

    fn processes(&self, _run_dir: &Path) -> io::Result<Vec<ProcessId>> {
        Ok(Vec::new())
    }

    fn keep<'a>(&'a self, _run_dir: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn stop<'a>(&'a self, _run_dir: &'a Path, _grace: Duration) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn outlives_the_agent(&self) -> bool {
        self.outlives
    }
}

struct Service {
    known: bool,
    directory: PathBuf,
    /// What is called whenever somebody asks whether a unit is to run, and tells so.
    due: Box<dyn Fn() -> bool + Send + Sync>,
}

impl ServiceManager for Service {
    fn own_service(&self) -> BoxFuture<'_, Result<String, ManagerError>> {
        let known = self.known.then(|| "oblet-agent.service".to_owned());
        Box::pin(async { known.ok_or_else(|| ManagerError::NotMain("session-1.scope".into())) })
    }

    fn order<'a>(&'a self, _order: Order, _service: &'a str) -> BoxFuture<'a, Result<(), ManagerError>> {
        Box::pin(async { Ok(()) })
    }

    fn is_due<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<bool, ManagerError>> {
        assert_eq!(unit, guard::UNIT);
        let due = (self.due)();
        Box::pin(async move { Ok(due) })
    }

    fn unit_directory(&self) -> PathBuf {
        self.directory.clone()
    }
}

struct Place {
    dir: TempDir,
    jobs: Arc<Jobs>,
    host: Host,
}

impl Place {
    /// The test itself is the agent, and dpkg says that it is of the old package.
    fn new(verdict: Option<Verdict>, outlives: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("database");
        fs::write(&database, OLD).unwrap();
        let answers = format!(
            "case $1 in\n-S) echo \"oblet-agent: $2\" ;;\n-W) echo \"$(/bin/cat {}) installed\" ;;\nesac",
            database.display()
        );
        script(&dir.path().join("dpkg-query"), &answers);
        let jobs = Arc::new(Jobs { outlives, verdict: Mutex::new(verdict), database, plans: Mutex::default() });
        let settings = HostSettings { search_path: vec![dir.path().into()], ..settings(dir.path()) };
        let host = Host::open(settings, Box::new(Arc::clone(&jobs))).unwrap();
        Self { dir, jobs, host }
    }

    /// A step whose package lies in the store of the agent.
    fn step(&self, package: &str) -> UpgradeAgent {
        let content = crate::deb::testing::deb(&format!(
            "Package: oblet-agent\nVersion: {}\nArchitecture: amd64\n",
            package.split('_').nth(1).unwrap()
        ));
        let sha256: String = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&content))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let directory = self.host.settings.state_dir.join("packages").join(&sha256);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(package), content).unwrap();
        let package = AgentPackage { package: package.parse().unwrap(), sha256: sha256.parse().unwrap() };
        UpgradeAgent { packages: vec![package] }
    }

    fn service(&self) -> Service {
        Service { known: true, directory: self.dir.path().into(), due: Box::new(|| false) }
    }

    async fn execute(&self, step: &UpgradeAgent, context: &StepContext) -> Result<Done, StepError> {
        execute(&self.host, &self.service(), step, context).await
    }

    async fn undo(&self, context: &StepContext, undoes: &[Undoes]) -> Result<Done, StepError> {
        undo(&self.host, &self.service(), context, undoes).await
    }

    fn is_guarded(&self) -> bool {
        self.dir.path().join(guard::UNIT).exists()
    }

    fn database(&self) -> String {
        fs::read_to_string(&self.jobs.database).unwrap()
    }
}

/// A context, and what it chose.
fn keeping(run: &str) -> (StepContext, Arc<Identities>) {
    let kept = Arc::new(Identities::default());
    let mut context = context(run);
    context.identities = kept.clone();
    (context, kept)
}

fn undoes(kept: &Identities, effect: Effect) -> [Undoes; 1] {
    [Undoes { identity: kept.0.lock().unwrap().clone(), effect }]
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn an_upgrade_is_done_once_and_read_by_whoever_serves_then() {
    let place = Place::new(Some(Verdict::Replaced), true);
    let step = place.step(NEW);
    let (context, kept) = keeping("r");
    let done = place.execute(&step, &context).await.unwrap();
    assert_eq!(done, Done::made().with("package", NEW));
    assert_eq!(place.jobs.plans.lock().unwrap().len(), 1);

    let (mut next, _) = keeping("r");
    next.identity = kept.0.lock().unwrap().clone();
    assert_eq!(place.execute(&step, &next).await.unwrap(), done, "the next process reads the verdict");
    assert_eq!(place.execute(&step, &keeping("s").0).await.unwrap().effect, Effect::None, "it serves already");
    assert_eq!(place.jobs.plans.lock().unwrap().len(), 1);
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_run_that_was_lost_is_made_up_for() {
    let place = Place::new(None, true);
    let step = place.step(NEW);
    let (context, kept) = keeping("r");
    let error = place.execute(&step, &context).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("INTERRUPTED", Effect::Unknown));
    assert!(!place.is_guarded(), "nothing begins by itself at the next boot");
    *place.jobs.verdict.lock().unwrap() = Some(Verdict::Replaced);
    let (mut next, _) = keeping("r");
    next.identity = kept.0.lock().unwrap().clone();
    assert_eq!(place.execute(&step, &next).await.unwrap().effect, Effect::Done);
    let plans = place.jobs.plans.lock().unwrap();
    assert_ne!(plans[0].fallback, plans[1].fallback, "a run of its own");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn what_a_lost_run_left_is_unknown_while_the_package_manager_does_not_answer() {
    let place = Place::new(None, true);
    let step = place.step(NEW);
    let (context, kept) = keeping("r");
    place.execute(&step, &context).await.unwrap_err();
    script(&place.dir.path().join("dpkg-query"), "exit 2");
    let (mut next, _) = keeping("r");
    next.identity = kept.0.lock().unwrap().clone();
    let error = place.execute(&step, &next).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("NOT_FROM_A_PACKAGE", Effect::Unknown));
    // The verdict of a run that has one cannot be read.
    let run_dir = place.jobs.plans.lock().unwrap()[0].fallback.parent().unwrap().to_owned();
    fs::write(run_dir.join(VERDICT), "{").unwrap();
    let error = place.execute(&step, &next).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("SUPERVISOR", Effect::Unknown));
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_failed_upgrade_is_undone_by_the_package_from_before_or_is_undone_already() {
    for has_old in [true, false] {
        let place = Place::new(Some(Verdict::RolledBack("it failed".into())), true);
        let step = place.step(NEW);
        if has_old {
            let AgentPackage { package, sha256 } = &place.step(OLD).packages[0];
            Origin::write(&origin(&place.host.settings), package, sha256, Path::new(RUNNING)).unwrap();
        }
        let (context, kept) = keeping("r");
        let error = place.execute(&step, &context).await.unwrap_err();
        assert_eq!((error.reason, error.effect), ("ROLLED_BACK", Effect::Done));
        assert!(error.message.contains("it failed"), "{error}");

        *place.jobs.verdict.lock().unwrap() = Some(Verdict::Replaced);
        let undone = place.undo(&keeping("u").0, &undoes(&kept, Effect::Done)).await.unwrap();
        assert_eq!(undone.effect, if has_old { Effect::Done } else { Effect::None });
        assert_eq!(place.database(), if has_old { OLD } else { NEW });
        let again = place.undo(&keeping("v").0, &undoes(&kept, Effect::Done)).await.unwrap();
        assert_eq!(again, Done::already());

        // The database may say so already, but the program is not that of the package.
        let done = place.execute(&step, &keeping("w").0).await.unwrap();
        assert_eq!(done.effect, Effect::Done, "a retry installs again");
    }
}

/// A file of that name may lie there that nobody installed.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_package_that_only_has_the_name_of_the_one_from_before_is_not_installed() {
    let place = Place::new(Some(Verdict::Replaced), true);
    let old = place.step(OLD).packages.remove(0);
    let (context, kept) = keeping("r");
    place.execute(&place.step(NEW), &context).await.unwrap();
    let undone = place.undo(&keeping("u").0, &undoes(&kept, Effect::Done)).await.unwrap();
    assert_eq!((undone.effect, place.database().as_str()), (Effect::Done, NEW), "the saved program is put back");

    let place = Place::new(Some(Verdict::Replaced), true);
    let other = place.step(OLD).packages.remove(0);
    Origin::write(&origin(&place.host.settings), &old.package, &other.sha256, Path::new(RUNNING)).unwrap();
    let (context, kept) = keeping("r");
    place.execute(&place.step(NEW), &context).await.unwrap();
    fs::write(file::path(&place.host.settings, &InstallPackage { package: other.package, sha256: other.sha256 }), "x")
        .unwrap();
    place.undo(&keeping("u").0, &undoes(&kept, Effect::Done)).await.unwrap();
    assert_eq!(place.database(), NEW, "what is no longer the file that was installed is not installed");
}

/// The job has ended with the power, and its guard takes the exchange up while the agent boots.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn an_agent_waits_for_the_guard_of_its_exchange() {
    let place = Place::new(None, true);
    let step = place.step(NEW);
    let (context, kept) = keeping("r");
    let cut = Service { due: Box::new(|| panic!("the power is gone")), ..place.service() };
    let exchange = std::panic::AssertUnwindSafe(execute(&place.host, &cut, &step, &context));
    assert!(futures_util::FutureExt::catch_unwind(exchange).await.is_err());
    assert!(place.is_guarded());

    let (mut next, _) = keeping("r");
    next.identity = kept.0.lock().unwrap().clone();
    let plan = {
        let run = read_identity(next.identity.as_deref()).unwrap().run;
        runs::dir(&place.host.settings, &run).join(PLAN)
    };
    let asked = std::sync::atomic::AtomicU32::new(0);
    let database = place.jobs.database.clone();
    let due = move || {
        if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1 {
            fs::write(&database, NEW).unwrap();
            Verdict::Replaced.write(&plan).unwrap();
        }
        true
    };
    let booting = Service { due: Box::new(due), ..place.service() };
    let done = execute(&place.host, &booting, &step, &next).await.unwrap();
    assert_eq!(done.effect, Effect::Done);
    assert!(!place.is_guarded());
    assert_eq!(place.jobs.plans.lock().unwrap().len(), 1, "it began no exchange of its own");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn an_upgrade_without_the_package_from_before_is_undone_by_the_saved_program() {
    let place = Place::new(Some(Verdict::Replaced), true);
    let (context, kept) = keeping("r");
    place.execute(&place.step(NEW), &context).await.unwrap();
    let undo = async |run| place.undo(&keeping(run).0, &undoes(&kept, Effect::Done)).await.unwrap().effect;
    assert_eq!(undo("u").await, Effect::Done);
    assert_eq!(undo("v").await, Effect::None);
    let plans = place.jobs.plans.lock().unwrap();
    let Change::Restore { program } = &plans[1].change else { panic!("{:?}", plans[1]) };
    assert_eq!(*program, plans[0].fallback);
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn what_changed_nothing_is_not_undone() {
    let place = Place::new(Some(Verdict::Unchanged("dpkg is busy".into())), true);
    let (context, kept) = keeping("r");
    let error = place.execute(&place.step(NEW), &context).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("NOT_INSTALLED", Effect::None));
    let undone = place.undo(&keeping("u").0, &undoes(&kept, Effect::Unknown)).await.unwrap();
    assert_eq!(undone, Done::already());
    assert_eq!(place.jobs.plans.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_journal_has_forgotten_cannot_be_undone() {
    let place = Place::new(Some(Verdict::Replaced), true);
    let forgotten = [Undoes { identity: None, effect: Effect::Done }];
    let error = place.undo(&context("u"), &forgotten).await.unwrap_err();
    assert_eq!(error.reason, "NOT_KNOWN_ANY_MORE");
    let never = [Undoes { identity: None, effect: Effect::None }];
    assert_eq!(place.undo(&context("u"), &never).await.unwrap(), Done::already());
}

#[tokio::test]
async fn a_host_that_no_package_fits_is_left_alone() {
    let place = Place::new(Some(Verdict::Replaced), true);
    let sha256 = "a".repeat(64);
    let packages = ["oblet-agent-0.1.0-2.x86_64.rpm", "oblet-agent_0.1.0-2_arm64.deb"]
        .map(|name| AgentPackage { package: name.parse().unwrap(), sha256: sha256.parse().unwrap() });
    let error = place.execute(&UpgradeAgent { packages: packages.into() }, &context("r")).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("NO_FIT_PACKAGE", Effect::None));
    assert!(error.message.contains(OLD), "{error}");
    fs::remove_file(place.host.settings.search_path[0].join("dpkg-query")).unwrap();
    let error = place.execute(&place.step(NEW), &context("r")).await.unwrap_err();
    assert_eq!(error.reason, "NOT_FROM_A_PACKAGE");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn an_agent_that_could_not_be_restarted_refuses_before_it_names_a_run() {
    for (service, outlives) in [(false, true), (true, false)] {
        let place = Place::new(Some(Verdict::Replaced), outlives);
        let (context, kept) = keeping("r");
        let service = Service { known: service, ..place.service() };
        let refused = execute(&place.host, &service, &place.step(NEW), &context).await.unwrap_err();
        assert_eq!((refused.reason, refused.effect), ("NOT_UNDER_A_SERVICE_MANAGER", Effect::None));
        assert!(kept.0.lock().unwrap().is_none() && place.host.settings.state_dir.join("runs").read_dir().is_err());
    }
}
