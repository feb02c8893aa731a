//! What others on the host can see of passwords.

use crate::place::{
    ADDRESS, ADMIN, Passwords, Place, VERSIONS, Version, is_refused, login, proxy_hash, rpm_is_missing,
};
use oblet::steps::{AgentStep, SetObproxyPasswords, StartObproxy};
use oblet_standins::{client::Client, mysql::unhex};
use std::{
    collections::BTreeSet,
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

/// A program of neither root nor the run user, with what it says.
fn as_somebody(program: &str, argument: &Path) -> (bool, String) {
    const SOMEBODY: u32 = 54_321;
    let output = Command::new(program).arg(argument).uid(SOMEBODY).gid(SOMEBODY).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
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
        let (may, listed) = as_somebody("/bin/ls", dir.parent().unwrap());
        assert!(may && listed.contains(&sql_port.to_string()), "the way to it is open: {listed}");
        assert!(files(&dir).len() > 1 && files(&dir.join("etc")).len() == 1);
        for file in files(&dir) {
            assert!(!as_somebody("/bin/cat", &file).0, "{version:?}: {} is open to all", file.display());
        }
        for directory in ["", "etc", "log", ".conf", "control-config", "sharding-config"] {
            let path = dir.join(directory);
            assert!(!as_somebody("/bin/ls", &path).0, "{version:?}: {} is open to all", path.display());
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & !0o750, 0, "{}: {mode:o}", path.display());
        }
        for private in [place.runs(), place.record(&start)] {
            assert!(!as_somebody("/bin/ls", &private).0, "{version:?}: {} is open to all", private.display());
        }
        assert!(is_refused(login(&start, "")));
    }
}
