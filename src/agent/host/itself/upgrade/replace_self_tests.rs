//! The exchange of a program on a host made of scripts: a package is a text that says how its program behaves.

use super::{
    guard::Guard,
    origin::Origin,
    plan::{Change, Plan, Verdict},
    replace_self::Replacement,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

const OLD: &str = "good, old";
const NEW: &str = "good, new";

struct Place {
    dir: TempDir,
}

impl Place {
    /// A service that is ready with the old program.
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        for directory in ["bin", "proc/7", "state"] {
            fs::create_dir_all(place.path(directory)).unwrap();
        }
        for program in ["program", "saved"] {
            fs::write(place.path(program), OLD).unwrap();
        }
        fs::hard_link(place.path("program"), place.path("proc/7/exe")).unwrap();
        fs::write(place.path("state/now"), "active").unwrap();
        // A process runs the file that lay there when it was started.
        place.script(
            "systemctl",
            r#"echo "$1" >>DIR/calls
case $1 in
  restart)
    case $(cat DIR/program) in
      good*) ln -f DIR/program DIR/proc/7/exe && echo active >DIR/state/now ;;
      slow*) ln -f DIR/program DIR/proc/7/exe && echo activating >DIR/state/now ;;
      deaf*) echo active >DIR/state/now ;;
      *) echo failed >DIR/state/now; exit 1 ;;
    esac ;;
  show) echo "ActiveState=$(cat DIR/state/now)"; echo MainPID=7 ;;
esac"#,
        );
        place.manager("dpkg", "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let text = text.replace("DIR", self.dir.path().to_str().unwrap());
        crate::agent::host::testing::script(&self.path("bin").join(name), &text);
    }

    /// Lays the file, its last argument, in the place of the program, and then does `scriptlet`.
    fn manager(&self, name: &str, scriptlet: &str) {
        let install = "for file; do :; done\ncp \"$file\" DIR/unpacked && mv DIR/unpacked DIR/program";
        self.script(name, &format!("{install}\n{scriptlet}"));
    }

    fn installs(&self, package: &str, program: &str) -> Plan {
        let package = package.parse().unwrap();
        let file = self.path("package");
        fs::write(&file, program).unwrap();
        self.plan(Change::Install { package, file, sha256: "a".repeat(64).parse().unwrap() })
    }

    fn plan(&self, change: Change) -> Plan {
        Plan {
            change,
            program: self.path("program"),
            fallback: self.path("saved"),
            service: "oblet-agent.service".into(),
            mark: self.path("mark"),
            origin: self.path("origin"),
            guard: Guard::below(self.dir.path()),
            search_path: [self.path("bin"), "/usr/bin".into(), "/bin".into()].into(),
            install_limit: Duration::from_secs(60),
            ready_limit: Duration::from_secs(60),
        }
    }

    async fn carry_out(&self, plan: &Plan) -> Verdict {
        Replacement { plan, is_first: true, processes: &self.path("proc") }.carry_out().await
    }

    /// After a power cut.
    async fn carry_out_again(&self, plan: &Plan) -> Verdict {
        Replacement { plan, is_first: false, processes: &self.path("proc") }.carry_out().await
    }

    fn serves(&self) -> String {
        let running = fs::read_to_string(self.path("proc/7/exe")).unwrap();
        assert_eq!(running, self.installed(), "what runs is what is installed");
        running
    }

    fn installed(&self) -> String {
        fs::read_to_string(self.path("program")).unwrap()
    }

    fn is_marked(&self) -> bool {
        self.path("mark").exists()
    }
}

const DEB: &str = "oblet-agent_0.1.0-2_amd64.deb";

#[tokio::test]
async fn the_program_of_a_good_package_serves_in_the_end() {
    for (package, manager) in [(DEB, "dpkg"), ("oblet-agent-0.1.0-2.x86_64", "rpm")] {
        let place = Place::new();
        place.manager(manager, "");
        fs::write(place.path("mark"), "").unwrap();
        assert_eq!(place.carry_out(&place.installs(package, NEW)).await, Verdict::Replaced);
        assert_eq!((place.serves().as_str(), place.is_marked()), (NEW, false));
        let package = package.parse().unwrap();
        assert!(Origin::read(&place.path("origin"), &package, &place.path("program")).unwrap().is_some());
    }
}

#[tokio::test]
async fn what_a_power_cut_ended_is_finished_or_taken_back() {
    // The files were exchanged already, or they were not.
    for installed in [OLD, NEW] {
        let place = Place::new();
        let plan = place.installs(DEB, NEW);
        fs::write(place.path("program"), installed).unwrap();
        assert_eq!(place.carry_out_again(&plan).await, Verdict::Replaced);
        assert_eq!((place.serves().as_str(), place.is_marked()), (NEW, false));
    }
    let place = Place::new();
    let plan = place.installs(DEB, "bad");
    fs::write(place.path("program"), "bad").unwrap();
    assert!(matches!(place.carry_out_again(&plan).await, Verdict::RolledBack(_)));
    assert_eq!((place.serves().as_str(), place.is_marked()), (OLD, true));
    // What the files look like does not tell how far the package manager had come.
    place.script("dpkg", "exit 2");
    let verdict = place.carry_out_again(&place.installs(DEB, NEW)).await;
    assert!(matches!(verdict, Verdict::RolledBack(_)), "{verdict:?}");
}

#[tokio::test]
async fn a_scriptlet_that_restarts_the_service_itself_makes_no_difference() {
    let place = Place::new();
    place.manager("dpkg", "systemctl restart oblet-agent");
    assert_eq!(place.carry_out(&place.installs(DEB, NEW)).await, Verdict::Replaced);
    assert_eq!(place.serves(), NEW);
}

#[tokio::test]
async fn the_old_program_comes_back_when_the_other_one_fails() {
    let place = Place::new();
    let verdict = place.carry_out(&place.installs(DEB, "bad")).await;
    let Verdict::RolledBack(why) = verdict else { panic!("{verdict:?}") };
    assert!(why.contains("oblet-agent.service has failed"), "{why}");
    assert_eq!((place.serves().as_str(), place.is_marked()), (OLD, true));
    let calls = fs::read_to_string(place.path("calls")).unwrap();
    assert_eq!(calls.matches("restart").count(), 2, "{calls}");
}

#[tokio::test]
async fn the_old_program_comes_back_when_the_other_one_is_not_ready_in_time() {
    for (behaviour, told) in [("slow", "it is activating"), ("deaf", "process 7 does not run the installed program")] {
        let place = Place::new();
        let plan = Plan { ready_limit: Duration::from_millis(500), ..place.installs(DEB, behaviour) };
        // The old one needs no time at all, but the scripts may.
        let verdict = place.carry_out(&plan).await;
        let (Verdict::RolledBack(why) | Verdict::Stranded(why)) = &verdict else { panic!("{verdict:?}") };
        assert!(why.contains("was not ready within") && why.contains(told), "{why}");
        assert_eq!(place.installed(), OLD);
    }
}

#[tokio::test]
async fn a_package_that_is_not_installed_changes_nothing() {
    let place = Place::new();
    place.script("dpkg", "echo the database is locked >&2; exit 2");
    let verdict = place.carry_out(&place.installs(DEB, NEW)).await;
    assert!(
        matches!(&verdict, Verdict::Unchanged(why) if why.contains("dpkg ended with exit status: 2")),
        "{verdict:?}"
    );
    assert_eq!((place.serves().as_str(), place.is_marked()), (OLD, false));
    assert!(!place.path("calls").exists(), "nothing was restarted");
}

#[tokio::test]
async fn a_manager_that_is_not_there_or_does_not_end_changes_nothing() {
    let place = Place::new();
    let rpm = place.installs("oblet-agent-0.1.0-2.x86_64", NEW);
    let absent = Plan { search_path: vec![place.path("bin")], ..rpm };
    let verdict = place.carry_out(&absent).await;
    assert_eq!(verdict, Verdict::Unchanged("rpm is not on the search path".into()));
    place.script("dpkg", "exec sleep 600");
    let endless = Plan { install_limit: Duration::ZERO, ..place.installs(DEB, NEW) };
    let verdict = place.carry_out(&endless).await;
    assert_eq!(verdict, Verdict::Unchanged("it took longer than 0 s".into()));
}

#[tokio::test]
async fn a_package_whose_scriptlet_fails_is_taken_back() {
    let place = Place::new();
    place.manager("dpkg", "exit 1");
    let verdict = place.carry_out(&place.installs(DEB, NEW)).await;
    assert!(matches!(verdict, Verdict::RolledBack(_)), "{verdict:?}");
    assert_eq!((place.serves().as_str(), place.is_marked()), (OLD, true));
}

#[tokio::test]
async fn a_service_that_serves_with_neither_program_is_told() {
    let place = Place::new();
    fs::write(place.path("saved"), "worse").unwrap();
    let verdict = place.carry_out(&place.installs(DEB, "bad")).await;
    assert!(matches!(&verdict, Verdict::Stranded(why) if why.contains("does not serve either")), "{verdict:?}");
    fs::remove_file(place.path("saved")).unwrap();
    let verdict = place.carry_out(&place.installs(DEB, "bad")).await;
    assert!(matches!(&verdict, Verdict::Stranded(why) if why.contains("could not be put back")), "{verdict:?}");
}

#[tokio::test]
async fn a_saved_program_takes_the_place_of_the_installed_one() {
    let place = Place::new();
    fs::write(place.path("from before"), "good, older").unwrap();
    let plan = place.plan(Change::Restore { program: place.path("from before") });
    assert_eq!(place.carry_out(&plan).await, Verdict::Replaced);
    assert_eq!((place.serves().as_str(), place.is_marked()), ("good, older", true));
    assert_eq!(fs::metadata(place.path("program")).unwrap().permissions().mode() & 0o777, 0o755);
    let absent = place.plan(Change::Restore { program: Path::new("/nowhere").into() });
    assert!(matches!(place.carry_out(&absent).await, Verdict::Unchanged(_)));
}

#[test]
fn a_plan_and_a_verdict_are_read_as_they_were_written() {
    let place = Place::new();
    let plan = place.installs(DEB, NEW);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    for verdict in [Verdict::Replaced, Verdict::RolledBack("why".into())] {
        verdict.write(&place.path("plan")).unwrap();
        let text = fs::read_to_string(place.path("verdict")).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
    }
    let codes = [Verdict::Replaced, Verdict::Unchanged(String::new()), Verdict::Stranded(String::new())];
    assert_eq!(codes.map(|verdict| verdict.exit_code()), [0, 3, 5]);
}
