//! Packages around cheap programs, seen with the tools of both formats.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is fine where it fails a test")]

#[path = "../../tests/support/skip.rs"]
mod skip;

use oblet_packaging::{Build, DOCUMENTS, Format, Glibc, Options, build};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const PROGRAMS: [&str; 3] = ["oblet-agent", "oblet-coordinator", "oblet"];

struct Built {
    directory: TempDir,
    files: Vec<PathBuf>,
}

impl Built {
    fn file(&self, name: &str) -> &str {
        let file = self.files.iter().find(|file| file.ends_with(name));
        file.unwrap_or_else(|| panic!("{name} is not in {:?}", self.files)).to_str().unwrap()
    }
}

/// A program of the system stands for all three.
fn built(formats: &[Format], release: u32) -> Built {
    let directory = tempfile::tempdir().unwrap();
    for name in PROGRAMS {
        fs::copy("/bin/true", directory.path().join(name)).unwrap();
    }
    let out = directory.path().join("packages");
    let mut files = Vec::new();
    let options = Options {
        binaries: directory.path(),
        out: &out,
        formats,
        build: Build { version: "0.1.0".into(), release, time_seconds: 1_700_000_000 },
        glibc: Glibc(2, 999),
    };
    build(&options, |name| {
        files.push(out.join(name));
        Ok(())
    })
    .unwrap();
    Built { directory, files }
}

/// What a command prints; it has to succeed.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the tools of a format are here.
fn here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip::skip(&format!("{program} is not here"));
    }
    found
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found.trim() == *line), "{line:?} is not in\n{text}");
    }
}

const MACHINE: &str = std::env::consts::ARCH;

fn debian_machine() -> &'static str {
    if MACHINE == "aarch64" { "arm64" } else { "amd64" }
}

#[test]
fn an_rpm_holds_its_files_with_their_rights_and_flags() {
    if !here("rpm") {
        return;
    }
    let built = built(&[Format::Rpm], 1);
    let list = |name: &str| {
        let file = format!("{name}-0.1.0-1.{MACHINE}.rpm");
        let format = "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]";
        told("rpm", &["-qp", "--queryformat", format, built.file(&file)])
    };
    let agent = list("oblet-agent");
    let (documentation, others): (Vec<_>, Vec<_>) =
        agent.lines().map(str::trim).partition(|line| line.starts_with("/usr/share/doc/"));
    assert_eq!(
        documentation.iter().filter(|line| line.contains(" drwxr-xr-x root:root")).count(),
        4,
        "the directory of the package, docs and two below: {documentation:?}"
    );
    let pages = documentation.iter().filter(|line| line.ends_with(".md -rw-r--r-- root:root d"));
    assert_eq!(pages.count(), DOCUMENTS.len(), "{documentation:?}");
    assert_eq!(
        others,
        [
            "/etc/oblet-agent drwx------ root:root",
            "/etc/oblet-agent/agent.toml -rw------- root:root cn",
            "/usr/bin/oblet-agent -rwxr-xr-x root:root",
            "/usr/lib/systemd/system-preset/50-oblet-agent.preset -rw-r--r-- root:root",
            "/usr/lib/systemd/system/oblet-agent.service -rw-r--r-- root:root",
            "/usr/share/licenses/oblet-agent drwxr-xr-x root:root",
            "/usr/share/licenses/oblet-agent/LICENSE -rw-r--r-- root:root l",
            "/usr/share/man/man8/oblet-agent-enroll.8.gz -rw-r--r-- root:root d",
            "/usr/share/man/man8/oblet-agent.8.gz -rw-r--r-- root:root d",
            "/usr/share/oblet-agent drwxr-xr-x root:root",
            "/usr/share/oblet-agent/agent.toml.example -rw-r--r-- root:root",
            "/var/lib/oblet-agent drwx------ root:root",
            "/var/log/oblet drwxr-xr-x root:root",
        ]
    );
    assert_lines(
        &list("oblet-coordinator"),
        &[
            "/etc/oblet-coordinator/coordinator.toml -rw-r--r-- root:root cn",
            "/usr/lib/sysusers.d/oblet-coordinator.conf -rw-r--r-- root:root",
            "/usr/share/man/man8/oblet-coordinator-certificate.8.gz -rw-r--r-- root:root d",
        ],
    );
    assert_lines(
        &list("oblet"),
        &[
            "/usr/share/bash-completion/completions/oblet -rw-r--r-- root:root",
            "/usr/share/fish/vendor_completions.d/oblet.fish -rw-r--r-- root:root",
            "/usr/share/man/man1/oblet-task-rollback.1.gz -rw-r--r-- root:root d",
            "/usr/share/doc/oblet/docs/operations.md -rw-r--r-- root:root d",
            "/usr/share/zsh/site-functions/_oblet -rw-r--r-- root:root",
        ],
    );
}

#[test]
fn an_rpm_asks_for_what_its_program_needs_and_for_no_more_than_old_rpms_know() {
    if !here("rpm") {
        return;
    }
    let built = built(&[Format::Rpm], 1);
    for program in PROGRAMS {
        let file = built.file(&format!("{program}-0.1.0-1.{MACHINE}.rpm")).to_owned();
        let requires = told("rpm", &["-qp", "--requires", &file]);
        assert_lines(&requires, &["libc.so.6()(64bit)"]);
        assert!(requires.contains("libc.so.6(GLIBC_2."), "{requires}");
        let features: Vec<_> = requires.lines().filter(|line| line.starts_with("rpmlib(")).collect();
        assert_eq!(
            features,
            [
                "rpmlib(CompressedFileNames) <= 3.0.4-1",
                "rpmlib(FileDigests) <= 4.6.0-1",
                "rpmlib(PayloadFilesHavePrefix) <= 4.0-1"
            ]
        );
        assert_eq!(told("rpm", &["-qp", "--queryformat", "%{PAYLOADCOMPRESSOR}", &file]), "gzip");
        told("rpm", &["--checksig", "--nosignature", &file]);
    }
    let agent = built.file(&format!("oblet-agent-0.1.0-1.{MACHINE}.rpm"));
    assert_eq!(told("rpm", &["-qp", "--recommends", agent]).trim(), "/usr/bin/nc");
}

#[test]
fn the_coordinator_reads_what_a_deb_is() {
    let built = built(&[Format::Deb], 7);
    for program in PROGRAMS {
        let name = format!("{program}_0.1.0-7_{}.deb", debian_machine());
        let control = oblet::deb::read(&mut fs::File::open(built.file(&name)).unwrap()).unwrap();
        assert_eq!((control.package.file_name(), control.package.machine()), (name, MACHINE));
        assert!(control.installed_bytes > 0);
    }
}

#[test]
fn a_deb_holds_its_files_with_their_rights_and_flags() {
    if !here("dpkg-deb") {
        return;
    }
    let built = built(&[Format::Deb], 1);
    let list = |name: &str| {
        let file = format!("{name}_0.1.0-1_{}.deb", debian_machine());
        let listed = told("dpkg-deb", &["--contents", built.file(&file)]);
        // Rights, owner and path; size and time in between.
        let field = |line: &str, number| line.split_whitespace().nth(number).unwrap().to_owned();
        let lines = listed.lines().map(|line| format!("{} {} {}\n", field(line, 0), field(line, 1), field(line, 5)));
        lines.collect::<String>()
    };
    assert_lines(
        &list("oblet-agent"),
        &[
            "drwxr-xr-x root/root ./etc/",
            "drwx------ root/root ./etc/oblet-agent/",
            "-rw------- root/root ./etc/oblet-agent/agent.toml",
            "-rwxr-xr-x root/root ./usr/bin/oblet-agent",
            "-rw-r--r-- root/root ./usr/lib/systemd/system/oblet-agent.service",
            "-rw-r--r-- root/root ./usr/share/doc/oblet-agent/README.md",
            "-rw-r--r-- root/root ./usr/share/doc/oblet-agent/copyright",
            "-rw-r--r-- root/root ./usr/share/doc/oblet-agent/docs/operations.md",
            "drwx------ root/root ./var/lib/oblet-agent/",
        ],
    );
    assert_lines(
        &list("oblet"),
        &[
            "-rw-r--r-- root/root ./usr/share/man/man1/oblet.1.gz",
            "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_oblet",
        ],
    );
    let control = told("dpkg-deb", &["--field", built.file(&format!("oblet-agent_0.1.0-1_{}.deb", debian_machine()))]);
    assert_lines(
        &control,
        &["Package: oblet-agent", "Version: 0.1.0-1", "Recommends: rpm, netcat-openbsd | netcat-traditional"],
    );
    assert!(control.contains("Depends: libc6 (>= 2."), "{control}");
}

#[test]
fn manual_pages_of_the_daemons_name_their_environment_variables() {
    if !here("dpkg-deb") {
        return;
    }
    let built = built(&[Format::Deb], 1);
    for (program, variable) in
        [("oblet-agent", "OBLET_AGENT_STATE_DIR"), ("oblet-coordinator", "OBLET_COORDINATOR_STATE_DIR")]
    {
        let unpacked = built.directory.path().join(program).with_extension("unpacked");
        let unpacked = unpacked.to_str().unwrap();
        told("dpkg-deb", &["-x", built.file(&format!("{program}_0.1.0-1_{}.deb", debian_machine())), unpacked]);
        let page = told("gzip", &["-dc", &format!("{unpacked}/usr/share/man/man8/{program}.8.gz")]);
        assert!(page.contains(variable), "{page}");
    }
}

#[test]
fn control_files_of_a_deb_are_what_dpkg_reads() {
    if !here("dpkg-deb") {
        return;
    }
    let built = built(&[Format::Deb], 1);
    for (program, configuration) in [
        ("oblet-agent", "/etc/oblet-agent/agent.toml\n"),
        ("oblet-coordinator", "/etc/oblet-coordinator/coordinator.toml\n"),
    ] {
        let control = built.directory.path().join(program).with_extension("control");
        let control = control.to_str().unwrap();
        told("dpkg-deb", &["--control", built.file(&format!("{program}_0.1.0-1_{}.deb", debian_machine())), control]);
        assert_eq!(fs::read_to_string(Path::new(control).join("conffiles")).unwrap(), configuration);
        for script in ["postinst", "prerm", "postrm"] {
            told("sh", &["-n", &format!("{control}/{script}")]);
        }
    }
}

#[test]
fn the_same_programs_give_the_same_packages() {
    let (first, second) = (built(&[Format::Rpm, Format::Deb], 1), built(&[Format::Rpm, Format::Deb], 1));
    for (one, other) in first.files.iter().zip(&second.files) {
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} differs", one.display());
    }
}

#[test]
fn a_program_above_the_limit_of_glibc_is_not_packaged() {
    let place = tempfile::tempdir().unwrap();
    for name in PROGRAMS {
        fs::copy("/bin/true", place.path().join(name)).unwrap();
    }
    let options = Options {
        binaries: place.path(),
        out: &place.path().join("packages"),
        formats: &[Format::Rpm],
        build: Build { version: "0.1.0".into(), release: 1, time_seconds: 0 },
        glibc: Glibc(2, 1),
    };
    let told = format!("{:#}", build(&options, |_| Ok(())).unwrap_err());
    assert!(told.contains("oblet-agent") && told.contains("above 2.1"), "{told}");
    assert_eq!(fs::read_dir(options.out).unwrap().count(), 0);
}

fn root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        skip::skip("it needs root");
    }
    root
}

#[test]
fn root_rpm_keeps_changed_configuration_and_data_through_upgrade_and_erasure() {
    if !root() || !here("rpm") {
        return;
    }
    let (first, second) = (built(&[Format::Rpm], 1), built(&[Format::Rpm], 2));
    let place = tempfile::tempdir().unwrap();
    let root = place.path().to_str().unwrap();
    let rpm =
        |arguments: &[&str]| told("rpm", &[["--root", root, "--nodeps", "--noscripts"].as_slice(), arguments].concat());
    rpm(&["--install", first.file(&format!("oblet-agent-0.1.0-1.{MACHINE}.rpm"))]);
    let etc = place.path().join("etc/oblet-agent");
    let state = place.path().join("var/lib/oblet-agent");
    fs::write(etc.join("agent.toml"), "run_user = 'ob'\n").unwrap();
    fs::write(etc.join("agent.key"), "key").unwrap();
    fs::write(state.join("journal"), "journal").unwrap();

    rpm(&["--upgrade", second.file(&format!("oblet-agent-0.1.0-2.{MACHINE}.rpm"))]);
    assert_eq!(fs::read_to_string(etc.join("agent.toml")).unwrap(), "run_user = 'ob'\n");
    let installed = told("rpm", &["--root", root, "--query", "oblet-agent"]);
    assert_eq!(installed.trim(), format!("oblet-agent-0.1.0-2.{MACHINE}"));

    rpm(&["--erase", "oblet-agent"]);
    assert!(!place.path().join("usr/bin/oblet-agent").exists());
    assert_eq!(fs::read_to_string(etc.join("agent.toml.rpmsave")).unwrap(), "run_user = 'ob'\n");
    assert_eq!(fs::read_to_string(etc.join("agent.key")).unwrap(), "key");
    assert_eq!(fs::read_to_string(state.join("journal")).unwrap(), "journal");
}

/// Scriptlets are left out by stopping before the configuration: dpkg would run them in the bare root.
#[test]
fn root_dpkg_unpacks_every_package() {
    if !root() || !here("dpkg") {
        return;
    }
    let built = built(&[Format::Deb], 1);
    let place = tempfile::tempdir().unwrap();
    fs::create_dir_all(place.path().join("var/lib/dpkg")).unwrap();
    let root = format!("--root={}", place.path().display());
    let files = built.files.iter().map(|file| file.to_str().unwrap());
    told("dpkg", &[root.as_str(), "--unpack"].into_iter().chain(files).collect::<Vec<_>>());
    for program in PROGRAMS {
        assert!(place.path().join("usr/bin").join(program).exists());
        let status =
            told("dpkg-query", &[&format!("--admindir={}/var/lib/dpkg", place.path().display()), "-W", program]);
        assert_eq!(status.trim(), format!("{program}\t0.1.0-1"));
    }
}
