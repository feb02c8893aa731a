//! Whether the agent can manage its host; every problem is told at once.

use super::instance::{disk_problem, disk_problem_beneath, user_problem};
use crate::{
    agent::{
        host::{
            Host,
            adapter::{Adapter, looked_at},
            settings::HostSettings,
            sockets,
        },
        step::{Done, StepContext, StepError},
    },
    steps::CheckHost,
};
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;

impl Adapter for CheckHost {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        looked_at(check, self, host, context)
    }
}

fn check(settings: &HostSettings, step: &CheckHost, context: &StepContext) -> Result<Done, StepError> {
    let mut problems = port_problems(settings, &step.agent_ports);
    problems.extend(user_problem(&settings.run_user));
    let own = [&settings.root_dir, &settings.state_dir];
    let disks = own.into_iter().filter_map(|directory| disk_problem(directory, step.disk_bytes));
    let run_path = disk_problem_beneath(&settings.below_root(&settings.run_path), step.disk_bytes);
    problems.extend(disks.chain(run_path).collect::<BTreeSet<_>>());
    if problems.is_empty() {
        context.log.line("the agent's ports, the run user and disk space fit");
        return Ok(Done::already());
    }
    problems.iter().for_each(|problem| context.log.line(problem));
    Err(StepError::new(
        "HOST_UNFIT",
        problems.join("; "),
        "create the user, make room or correct the ports, as the message says; then retry, or roll the task back",
    ))
}

/// A port that another program has is told with that program.
fn port_problems(settings: &HostSettings, ports: &[u16]) -> Vec<String> {
    let own = match sockets::own_ports() {
        Ok(own) => own,
        Err(error) => return vec![format!("the ports of the agent are unknown: {error}")],
    };
    let problem = |port: &u16| match sockets::listener_pid(settings.listen(), *port) {
        Some(pid) => {
            let user = super::processes::user(pid);
            format!("port {port} is not the agent's, pid {pid} of {user} listens on it")
        }
        None => format!("port {port} is not the agent's, nobody listens on it"),
    };
    ports.iter().filter(|port| !own.contains(port)).map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::{context, settings};

    #[test]
    fn a_host_that_cannot_be_managed_says_every_reason() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fitting = CheckHost { agent_ports: vec![port], disk_bytes: 0 };
        assert_eq!(check(&settings, &fitting, &context("c")).unwrap(), Done::already());

        drop(listener);
        settings.run_user = "nobody-has-this-name".into();
        let step = CheckHost { disk_bytes: u64::MAX, ..fitting };
        let error = check(&settings, &step, &context("c")).unwrap_err();
        for part in
            [&format!("port {port} is not the agent's"), "nobody-has-this-name does not exist", "MiB are needed"]
        {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
    }
}
