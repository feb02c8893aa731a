//! The three packages: which file goes where, with which rights.

use crate::{
    documents::DOCUMENTS,
    elf::{Glibc, Program},
    manual,
    package::{Build, Entry, Format, Kind, Package},
    scriptlets::Service,
};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use std::{collections::BTreeSet, path::Path};

/// The agent's configuration as it is installed: every setting, commented out.
pub const AGENT_EXAMPLE: &str = include_str!("../files/agent.toml");
/// The coordinator's.
pub const COORDINATOR_EXAMPLE: &str = include_str!("../files/coordinator.toml");

pub(crate) const AGENT_SERVICE: Service = Service {
    unit: "oblet-agent.service",
    set_up: "",
    left: include_str!("../scriptlets/agent-left.sh"),
    purge: include_str!("../scriptlets/agent-purge.sh"),
};
pub(crate) const COORDINATOR_SERVICE: Service = Service {
    unit: "oblet-coordinator.service",
    set_up: include_str!("../scriptlets/coordinator-user.sh"),
    left: include_str!("../scriptlets/coordinator-left.sh"),
    purge: include_str!("../scriptlets/coordinator-purge.sh"),
};

const LICENSE: &str = include_str!("../../LICENSE");

/// The packages around the programs in `binaries`.
pub(crate) fn packages(binaries: &Path, limit: Glibc, format: Format, build: &Build) -> anyhow::Result<[Package; 3]> {
    let program = |name| Program::read(binaries, name, limit);
    Ok([
        agent(program("oblet-agent")?, format, build)?,
        coordinator(program("oblet-coordinator")?, format, build)?,
        cli(program("oblet")?, format, build)?,
    ])
}

fn agent(program: Program, format: Format, build: &Build) -> anyhow::Result<Package> {
    let mut entries = vec![
        // It holds keys.
        directory("/etc/oblet-agent", 0o700),
        configuration("/etc/oblet-agent/agent.toml", 0o600, AGENT_EXAMPLE),
        directory("/usr/share/oblet-agent", 0o755),
        file("/usr/share/oblet-agent/agent.toml.example", AGENT_EXAMPLE),
        file("/usr/lib/systemd/system/oblet-agent.service", include_str!("../../systemd/oblet-agent.service")),
        file("/usr/lib/systemd/system-preset/50-oblet-agent.preset", "disable oblet-agent.service\n"),
        directory("/var/lib/oblet-agent", 0o700),
        // Older systemd does not make it for the unit.
        directory("/var/log/oblet", 0o755),
    ];
    entries.extend(common("oblet-agent", &program, format));
    entries.extend(manual_pages(oblet::agent::config::Flags::command(), "8", build)?);
    // The name of a page has no space; the page itself shows the command as it is called.
    let enroll = oblet::agent::enroll::Flags::command().name("oblet-agent-enroll").bin_name("oblet-agent enroll");
    entries.extend(manual_pages(enroll, "8", build)?);
    Ok(Package {
        name: "oblet-agent",
        summary: "Agent of oblet on a database host",
        description: "\
The agent installs, starts and monitors OceanBase programs on its host at the
request of an oblet coordinator. Database processes run in separate units and
keep running when the agent stops.",
        programs: vec![program],
        entries,
        service: Some(AGENT_SERVICE),
        debian_depends: &[],
        // Database packages are RPMs, and the tasks that add a host or a proxy fail without nc.
        debian_recommends: &["rpm", "netcat-openbsd | netcat-traditional"],
        rpm_recommends: &["/usr/bin/nc"],
    })
}

fn coordinator(program: Program, format: Format, build: &Build) -> anyhow::Result<Package> {
    let mut entries = vec![
        directory("/etc/oblet-coordinator", 0o755),
        configuration("/etc/oblet-coordinator/coordinator.toml", 0o644, COORDINATOR_EXAMPLE),
        directory("/usr/share/oblet-coordinator", 0o755),
        file("/usr/share/oblet-coordinator/coordinator.toml.example", COORDINATOR_EXAMPLE),
        file(
            "/usr/lib/systemd/system/oblet-coordinator.service",
            include_str!("../../systemd/oblet-coordinator.service"),
        ),
        file("/usr/lib/systemd/system-preset/50-oblet-coordinator.preset", "disable oblet-coordinator.service\n"),
        file("/usr/lib/sysusers.d/oblet-coordinator.conf", include_str!("../files/oblet-coordinator.sysusers")),
    ];
    entries.extend(common("oblet-coordinator", &program, format));
    entries.extend(manual_pages(oblet::coordinator::config::Flags::command(), "8", build)?);
    Ok(Package {
        name: "oblet-coordinator",
        summary: "Coordinator of oblet: manages OceanBase hosts over OCP's REST API",
        description: "\
The coordinator turns an operator's request into a graph of durable steps and
has the agents of the database hosts carry them out. Its REST API has the
format of the OceanBase Cloud Platform (OCP) v2 API.",
        programs: vec![program],
        entries,
        service: Some(COORDINATOR_SERVICE),
        debian_depends: &["passwd"],
        debian_recommends: &[],
        rpm_recommends: &[],
    })
}

fn cli(program: Program, format: Format, build: &Build) -> anyhow::Result<Package> {
    let zsh = match format {
        Format::Rpm => "/usr/share/zsh/site-functions/_oblet",
        Format::Deb => "/usr/share/zsh/vendor-completions/_oblet",
    };
    let mut entries: Vec<_> = [
        (Shell::Bash, "/usr/share/bash-completion/completions/oblet"),
        (Shell::Zsh, zsh),
        (Shell::Fish, "/usr/share/fish/vendor_completions.d/oblet.fish"),
    ]
    .into_iter()
    .map(|(shell, path)| file(path, manual::completion(shell, oblet::cli::command())))
    .collect();
    entries.extend(common("oblet", &program, format));
    let appendix = manual::Appendix { environment: oblet::cli::environment(), exit_codes: oblet::cli::exit_codes() };
    let pages = manual::pages_with(oblet::cli::command(), "1", &build.version, &appendix)?;
    entries.extend(documented(pages, "1")?);
    Ok(Package {
        name: "oblet",
        summary: "Command line of oblet",
        description: "\
Commands for hosts, packages, OBProxy clusters and tasks. They use the REST API
of an oblet coordinator.",
        programs: vec![program],
        entries,
        service: None,
        debian_depends: &[],
        debian_recommends: &[],
        rpm_recommends: &[],
    })
}

/// The program, its licence and its documentation.
fn common(name: &str, program: &Program, format: Format) -> Vec<Entry> {
    let documentation = format!("/usr/share/doc/{name}");
    let license = Kind::License(LICENSE.into());
    let license = match format {
        Format::Rpm => {
            let directory_path = format!("/usr/share/licenses/{name}");
            vec![
                Entry { path: format!("{directory_path}/LICENSE"), mode: 0o644, kind: license },
                directory(directory_path, 0o755),
            ]
        }
        Format::Deb => vec![Entry { path: format!("{documentation}/copyright"), mode: 0o644, kind: license }],
    };
    let mut entries = vec![Entry {
        path: format!("/usr/bin/{}", program.name),
        mode: 0o755,
        kind: Kind::File(program.content.clone()),
    }];
    let directories: BTreeSet<_> = DOCUMENTS.iter().filter_map(|(path, _)| Path::new(path).parent()).collect();
    for below in directories {
        let path = Path::new(&documentation).join(below);
        entries.push(directory(path.to_string_lossy().trim_end_matches('/'), 0o755));
    }
    for (path, text) in DOCUMENTS {
        let kind = Kind::Documentation((*text).into());
        entries.push(Entry { path: format!("{documentation}/{path}"), mode: 0o644, kind });
    }
    entries.extend(license);
    entries
}

fn manual_pages(command: Command, section: &str, build: &Build) -> anyhow::Result<Vec<Entry>> {
    documented(manual::pages(command, section, &build.version)?, section)
}

fn documented(pages: Vec<(String, Vec<u8>)>, section: &str) -> anyhow::Result<Vec<Entry>> {
    let page = |(name, text): (String, Vec<u8>)| -> anyhow::Result<Entry> {
        let path = format!("/usr/share/man/man{section}/{name}.gz");
        Ok(Entry { path, mode: 0o644, kind: Kind::Documentation(crate::gzip(&text)?) })
    };
    pages.into_iter().map(page).collect()
}

fn directory(path: impl Into<String>, mode: u16) -> Entry {
    Entry { path: path.into(), mode, kind: Kind::Directory }
}

fn file(path: &str, content: impl Into<Vec<u8>>) -> Entry {
    Entry { path: path.into(), mode: 0o644, kind: Kind::File(content.into()) }
}

fn configuration(path: &str, mode: u16, content: &str) -> Entry {
    Entry { path: path.into(), mode, kind: Kind::Configuration(content.into()) }
}
