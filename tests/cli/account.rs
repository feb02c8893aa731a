//! Login, contexts, passwords.

use insta::assert_snapshot;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};
use tokio::process::Command;

use crate::{
    fake::{Fake, PASSWORD, oblet, page, tell},
    terminal::Terminal,
};

const INFO: &str = "GET /api/v2/info";
const PASSWD: &str = "POST /api/v2/profiles/me/changePassword";

async fn coordinator() -> Fake {
    let hosts = page(json!([{"id": 1}]));
    let info = json!({"product": "oblet", "buildVersion": "0.1.0"});
    Fake::start().await.answers(INFO, info).answers("GET /api/v2/compute/hosts", hosts).answers(PASSWD, Value::Null)
}

fn at_home(home: &Path, args: &[&str]) -> Command {
    let mut command = oblet(args);
    command.env("HOME", home);
    command
}

async fn run(home: &Path, args: &[&str]) -> String {
    let output = at_home(home, args).output().await.unwrap();
    tell(args, &output).replace(home.to_str().unwrap(), "HOME")
}

async fn log_in(home: &Path, fake: &Fake, name: &str) -> String {
    let args = ["login", &fake.url, "--name", name];
    let output = at_home(home, &args).env("OBLET_PASSWORD", PASSWORD).output().await.unwrap();
    tell(&args, &output).replace(&fake.url, "http://COORDINATOR")
}

#[tokio::test]
async fn a_login_is_remembered_until_the_logout() {
    let (fake, other) = (coordinator().await, coordinator().await);
    let home = tempfile::tempdir().unwrap();
    let mut told = log_in(home.path(), &fake, "prod").await;
    log_in(home.path(), &other, "test").await;
    for args in [
        &["context", "list"][..],
        &["context", "use", "prod"],
        &["context", "list", "-o", "wide"],
        &["context", "use", "lost"],
        &["host", "list", "-o", "name"],
        &["host", "list", "-o", "name", "--context", "test"],
        &["logout"],
        &["logout"],
        &["host", "list"],
    ] {
        told += &format!("\n\n{}", run(home.path(), args).await);
    }
    let told = told.replace(&fake.url, "http://COORDINATOR").replace(&other.url, "http://OTHER");
    assert_snapshot!(told);
    let asked = |fake: &Fake| fake.requests().lines().filter(|line| line.contains("/hosts")).count();
    assert_eq!((asked(&fake), asked(&other)), (1, 1));
    let files: Vec<_> =
        fs::read_dir(home.path().join(".config/oblet")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "the configuration and the password of the other context: {files:?}");
}

#[tokio::test]
async fn what_a_login_saves_is_private_and_a_wrong_password_saves_nothing() {
    let fake = coordinator().await;
    let home = tempfile::tempdir().unwrap();
    let args = ["login", &fake.url];
    let output = at_home(home.path(), &args).env("OBLET_PASSWORD", "wrong").output().await.unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(!home.path().join(".config").exists());

    log_in(home.path(), &fake, "prod").await;
    let directory = home.path().join(".config/oblet");
    for file in ["config.toml", "prod.password"] {
        let metadata = fs::metadata(directory.join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert!(!fs::read_to_string(directory.join("config.toml")).unwrap().contains(PASSWORD));

    for file in ["prod.password", "config.toml"] {
        fs::set_permissions(directory.join(file), fs::Permissions::from_mode(0o644)).unwrap();
        let told = run(home.path(), &["host", "list"]).await;
        assert!(told.contains("every user of this host can read or change") && told.ends_with("exit 2"), "{told}");
    }
}

#[tokio::test]
async fn flags_and_environment_take_precedence_over_the_current_context() {
    let (ours, other) = (coordinator().await, coordinator().await);
    let home = tempfile::tempdir().unwrap();
    log_in(home.path(), &ours, "prod").await;
    let args = ["host", "list", "-o", "name"];
    let before = ours.requests();

    let mut command = at_home(home.path(), &args);
    let output = command.env("OBLET_URL", &other.url).env("OBLET_PASSWORD", PASSWORD).output().await.unwrap();
    assert_eq!((output.status.code(), other.requests().lines().count()), (Some(0), 1));

    // The password of a context is only for its own coordinator.
    let output = at_home(home.path(), &args).env("OBLET_URL", &other.url).output().await.unwrap();
    assert_eq!((output.status.code(), other.requests().lines().count()), (Some(2), 1));

    // A flag takes precedence over the environment, also if it names a context.
    assert_eq!(ours.requests(), before);
    let args = ["host", "list", "-o", "name", "--context", "prod"];
    let output = at_home(home.path(), &args).env("OBLET_URL", &other.url).output().await.unwrap();
    assert_eq!((output.status.code(), other.requests().lines().count()), (Some(0), 1));
    assert_ne!(ours.requests(), before);
}

#[tokio::test]
async fn a_terminal_is_asked_for_user_and_password() {
    let fake = coordinator().await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(at_home(home.path(), &["login", &fake.url, "--name", "prod"]));
    terminal.expect("[admin]: ");
    terminal.types("\n");
    terminal.expect("Password of admin at ");
    terminal.types(&format!("{PASSWORD}\n"));
    let (code, screen) = terminal.end().await;
    assert!(code == 0 && screen.contains("prod is the current context") && !screen.contains(PASSWORD), "{screen}");

    fs::remove_dir_all(home.path().join(".config")).unwrap();
    let mut terminal = Terminal::start(at_home(home.path(), &["host", "list", "--url", &fake.url, "-o", "name"]));
    terminal.expect("Password of admin at ");
    terminal.types("\u{3}");
    let (code, screen) = terminal.end().await;
    assert!(code == 130 && screen.contains("interrupted"), "{code} {screen}");
}

#[tokio::test]
async fn a_password_is_changed_on_a_terminal() {
    let fake = coordinator().await;
    let home = tempfile::tempdir().unwrap();
    log_in(home.path(), &fake, "prod").await;
    let mut terminal = Terminal::start(at_home(home.path(), &["user", "passwd"]));
    terminal.expect("Current password of admin: ");
    terminal.types(&format!("{PASSWORD}\n"));
    terminal.expect("New password: ");
    terminal.types("Aa11+._bB\n");
    terminal.expect("New password again: ");
    terminal.types("Aa11+._bB\n");
    let (code, screen) = terminal.end().await;
    assert!(code == 0 && screen.contains("Context prod has the new password.") && !screen.contains("Aa11"), "{screen}");
    let kept = fs::read_to_string(home.path().join(".config/oblet/prod.password")).unwrap();
    assert_eq!(kept, "Aa11+._bB\n");
    let sent = format!("{PASSWD} {}", json!({"currentPassword": PASSWORD, "newPassword": "Aa11+._bB"}));
    assert_eq!(fake.requests().lines().last(), Some(sent.as_str()));
}

#[tokio::test]
async fn without_a_terminal_the_new_password_comes_from_a_file() {
    let fake = coordinator().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "Aa11+._bB\n").unwrap();
    let path = file.path().to_str().unwrap();
    let nobody = fake.run(&["user", "passwd"]).await;
    let done = fake.run(&["user", "passwd", "--new-password-file", path]).await.replace(path, "FILE");
    let tried = fake.run(&["user", "passwd", "--new-password-file", path, "--dry-run"]).await.replace(path, "FILE");
    assert_snapshot!(format!("{nobody}\n\n{done}\n\n{tried}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_weak_or_wrong_password_is_told_with_the_coordinators_reason() {
    let weak = json!({"code": 10011, "message": "IAM10011: the password has less than 8 characters"});
    let fake = Fake::start().await.refuses(PASSWD, 400, weak);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "weak\n").unwrap();
    let path = file.path().to_str().unwrap();
    let told = fake.run(&["user", "passwd", "--new-password-file", path]).await.replace(path, "FILE");
    assert_snapshot!(told);
}
