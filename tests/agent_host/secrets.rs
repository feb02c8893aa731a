//! What others on the host can see of passwords.

use crate::place::{
    ADDRESS, ADMIN, Passwords, Place, VERSIONS, Version, is_refused, item, login, proxy_hash, rpm_is_missing, running,
    until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use oblet::steps::{AgentStep, SetObproxyPasswords, StartObproxy};
use oblet_standins::{client::Client, mysql::unhex};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What a look at all processes again and again has shown.
#[derive(Default)]
struct Seen {
    looks: usize,
    /// Secrets, with where they stood.
    secrets: BTreeSet<String>,
    /// Hashes on command lines of this proxy.
    hashes: BTreeSet<String>,
}

/// The hash on a command line. One that ends in the midst of it was read while its process ended: the kernel hands a line
/// out in pieces.
fn hash_on(line: &str) -> Option<String> {
    const DIGITS: usize = 40;
    let (_, rest) = line.split_once("obproxy_sys_password=")?;
    let hash: String = rest.chars().take_while(char::is_ascii_hexdigit).take(DIGITS).collect();
    (hash.len() == DIGITS).then_some(hash)
}

/// Looks until told to stop.
fn watch(secrets: &[String], port: &str, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        seen.looks += 1;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            for name in ["cmdline", "environ"] {
                // A process that ended meanwhile shows nothing.
                let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                for secret in secrets.iter().filter(|secret| text.contains(secret.as_str())) {
                    seen.secrets.insert(format!("{secret} in {}", entry.path().join(name).display()));
                }
                if name == "cmdline" && text.split('\0').any(|argument| argument == port) {
                    seen.hashes.extend(hash_on(&text));
                }
            }
        }
    }
    seen
}

/// Files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

fn holds(path: &Path, text: &str) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn nothing_secret_is_seen(version: Version) {
    let (mut place, start) = Place::with_obproxy(version, &[("standin_slow_start_ms", "200")]).await;
    let salt = format!("{:?}-{}", version, std::process::id());
    place.passwords = Passwords { sys: format!("sys-{salt}"), observer: format!("observer-{salt}") };
    let clear = [place.passwords.sys.clone(), place.passwords.observer.clone()];
    let hashes = clear.clone().map(|password| proxy_hash(&password));
    let over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (secrets, port, over) =
            ([clear.clone(), hashes.clone()].concat(), start.sql_port.to_string(), over.clone());
        move || watch(&secrets, &port, &over)
    });
    place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
    let set = AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port: start.sql_port });
    place.execute(&set, "p", None).await.result.unwrap();
    over.store(true, Ordering::Relaxed);
    let seen = watcher.join().unwrap();
    assert!(seen.secrets.is_empty(), "{version:?}: {:?}", seen.secrets);
    assert!(seen.looks > 10, "only {} looks", seen.looks);

    assert_eq!(seen.hashes.len(), 1, "the hash of the first start is to be seen: {:?}", seen.hashes);
    for hash in &seen.hashes {
        let login = Client::login_by_hash(&ADDRESS.to_string(), start.sql_port.get(), ADMIN, unhex(hash).unwrap());
        assert!(is_refused(login), "{version:?}: a hash that was seen opens the proxy");
    }
    login(&start, &place.passwords.sys).unwrap();

    let stored = place.instance_dir(&start).join("etc");
    for file in files(place.dir.path()) {
        for password in &clear {
            assert!(!holds(&file, password), "{version:?}: {} holds a password", file.display());
        }
        for hash in &hashes {
            assert_eq!(holds(&file, hash), file.starts_with(&stored), "{version:?}: {}", file.display());
        }
    }
}

#[tokio::test]
async fn no_process_and_no_file_shows_a_password_and_a_hash_that_was_seen_opens_nothing() {
    if !rpm_is_missing() {
        for version in VERSIONS {
            nothing_secret_is_seen(version).await;
        }
    }
}

/// Where the log of the proxy and those that were put aside hold this text.
fn logs_that_hold(place: &Place, start: &StartObproxy, text: &str) -> Vec<PathBuf> {
    files(&place.instance_dir(start).join("log")).into_iter().filter(|file| holds(file, text)).collect()
}

#[tokio::test]
async fn a_proxy_that_starts_again_by_itself_leaves_no_hash_in_its_log() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[]).await;
        place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
        let hashes = [&place.passwords.sys, &place.passwords.observer].map(|password| proxy_hash(password));
        let hold = |place: &Place| hashes.iter().flat_map(|hash| logs_that_hold(place, &start, hash)).count();
        assert_eq!(hold(&place), 0, "{version:?}: after the step");
        let before = running(&place.runs().join("s")).await;
        let log = place.instance_dir(&start).join("log/obproxy.log");
        let reports = || fs::read_to_string(&log).unwrap_or_default().matches("*end proxy config report*").count();
        let look = async {
            kill(Pid::from_raw(before.pid), Signal::SIGKILL).unwrap();
            until("the report of the next start", || reports() > 1).await;
            until("a log without hashes", || hold(&place) == 0).await;
        };
        tokio::select! {
            () = place.host.redact_logs() => unreachable!("it never ends"),
            () = look => {}
        }
        until("a login", || login(&start, &place.passwords.sys).is_ok()).await;
        let log = fs::read_to_string(&log).unwrap();
        assert!(log.contains(&format!("| {:<36} = {}", "observer_sys_password", "*".repeat(40))), "the rest stays");
    }
}

#[tokio::test]
async fn a_password_that_is_set_later_is_not_logged_either() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (mut place, start) = Place::with_obproxy(version, &[]).await;
        place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
        place.passwords.observer = "another-not-to-be-seen".into();
        let set = AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port: start.sql_port });
        place.execute(&set, "p", None).await.result.unwrap();
        let hash = proxy_hash(&place.passwords.observer);
        assert_eq!(item(&mut login(&start, &place.passwords.sys).unwrap(), "observer_sys_password"), hash);
        assert_eq!(logs_that_hold(&place, &start, &hash), [] as [PathBuf; 0], "{version:?}");
    }
}

/// A program of neither root nor the run user, with what it says.
fn as_somebody(program: impl AsRef<OsStr>, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    const SOMEBODY: u32 = 54_321;
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).uid(SOMEBODY).gid(SOMEBODY);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// What somebody finds who looks for hashes in everything below a directory, and in what is known of every process.
fn hashes_that_somebody_finds(directory: &Path) -> BTreeSet<String> {
    const HUNT: &str = r#"{ grep -rhaoE -D skip '[0-9a-fA-F]{40}' "$0"
        cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep -aoE '[0-9a-fA-F]{40}'; } 2>/dev/null"#;
    let (_, found) = as_somebody("/bin/sh", &["-c", HUNT, directory.to_str().unwrap()], &[]);
    found.lines().filter(|line| unhex(line).is_some()).map(String::from).collect()
}

/// Hands out a copy of the program that logs in: the directories of a build are closed to others.
fn login_program(place: &Place) -> PathBuf {
    let copy = place.dir.path().join("sql-login");
    fs::copy(oblet_standins::program("sql-login").unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

#[tokio::test]
async fn root_another_user_reads_nothing_below_the_directory_of_the_proxy() {
    if rpm_is_missing() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return crate::skip::skip("it needs root");
    }
    for version in VERSIONS {
        let place = Place::with_run_user("nobody");
        let (install, start) = place.put_obproxy(version, &[]);
        place.execute(&install, "i", None).await.result.unwrap();
        let StartObproxy { sql_port, .. } = start;
        place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
        let dir = place.instance_dir(&start);
        let (may, listed) = as_somebody("/bin/ls", &[dir.parent().unwrap().to_str().unwrap()], &[]);
        assert!(may && listed.contains(&sql_port.to_string()), "the way to it is open: {listed}");
        assert!(files(&dir).len() > 1 && files(&dir.join("etc")).len() == 1);
        for file in files(&dir) {
            assert!(
                !as_somebody("/bin/cat", &[file.to_str().unwrap()], &[]).0,
                "{version:?}: {} is open to all",
                file.display()
            );
        }
        for directory in ["", "etc", "log", ".conf", "control-config", "sharding-config"] {
            let path = dir.join(directory);
            assert!(
                !as_somebody("/bin/ls", &[path.to_str().unwrap()], &[]).0,
                "{version:?}: {} is open to all",
                path.display()
            );
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & !0o750, 0, "{}: {mode:o}", path.display());
        }
        for private in [place.runs(), place.record(&start)] {
            assert!(
                !as_somebody("/bin/ls", &[private.to_str().unwrap()], &[]).0,
                "{version:?}: {} is open to all",
                private.display()
            );
        }
        let (program, address, port) = (login_program(&place), ADDRESS.to_string(), sql_port.to_string());
        let log_in =
            |variable: &str, secret: &str| as_somebody(&program, &[&address, &port, ADMIN], &[(variable, secret)]);
        let (may, said) = log_in("OBLET_SQL_PASSWORD", &place.passwords.sys);
        assert!(may, "{version:?}: the way to the port is open: {said}");
        let mut tried = hashes_that_somebody_finds(place.dir.path());
        assert!(!tried.contains(&proxy_hash(&place.passwords.sys)), "{version:?}");
        // The built-in one is in the program, which everybody may read.
        tried.insert("f0455d5edb4833fa2e91762e71b61bc35d45cf0b".into());
        for hash in tried {
            let (may, said) = log_in("OBLET_SQL_HASH", &hash);
            assert!(!may && said.contains("refused with 1045"), "{version:?}: {said}");
        }
        assert!(log_in("OBLET_SQL_PASSWORD", "").1.contains("refused with 1045"));
    }
}
