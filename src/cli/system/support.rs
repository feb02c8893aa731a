//! What somebody who helps from afar needs to know, in one file. The API tells no secrets, and nothing else is read.

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};
use tar::{Builder, Header};

use super::{status, version::INFO};
use crate::cli::{
    console::{error::CliError, output::entries, table::text},
    frame::{
        context::Context,
        kind::{CLUSTERS, HOSTS, PACKAGES},
    },
    task::{
        args::SubtaskId,
        model::Task,
        requests::{self, TASKS},
    },
};

/// The newest of each kind: enough to see what happened, small enough to send.
const EVENTS: u64 = 500;
const NEWEST_TASKS: u64 = 200;
const NEWEST_FAILED: u64 = 20;
const DIRECTORY: &str = "oblet-support";

pub(crate) async fn run(context: &Context<'_>, path: &Path) -> Result<(), CliError> {
    let not_saved = |source| CliError::NotSaved { path: path.into(), source };
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CliError::Usage {
                message: format!("{} exists already", path.display()),
                next: "name another file, or remove that one".into(),
            },
            _ => not_saved(error),
        })?;
    let mut bundle = Bundle {
        archive: Builder::new(GzEncoder::new(file, Compression::default())),
        time: jiff::Timestamp::now().as_second().unsigned_abs(),
        missing: Vec::new(),
    };
    let filled = fill(context, &mut bundle).await.map_err(not_saved);
    let missing = std::mem::take(&mut bundle.missing);
    filled.and_then(|()| bundle.finish().map_err(not_saved)).inspect_err(|_| {
        // Half a bundle helps nobody.
        let _ = std::fs::remove_file(path);
    })?;
    for part in &missing {
        context.output.note(&format!("Not in the bundle: {part}"));
    }
    context.output.note(&format!("Wrote {}. It holds names, addresses and logs, and no passwords.", path.display()));
    context.output.changed(&json!({"file": path, "missing": missing}), path.display())
}

struct Bundle {
    archive: Builder<GzEncoder<File>>,
    /// Seconds since 1970.
    time: u64,
    /// Parts that the coordinator did not give, and why.
    missing: Vec<String>,
}

impl Bundle {
    fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        self.archive.append_data(&mut header, format!("{DIRECTORY}/{name}"), content)
    }

    /// A coordinator in trouble may not give every part; why it does not is worth knowing, too.
    fn add_answer(&mut self, name: &str, answer: Result<Value, CliError>) -> io::Result<Option<Value>> {
        match answer {
            Ok(data) => {
                self.add(&format!("{name}.json"), format!("{data:#}\n").as_bytes())?;
                Ok(Some(data))
            }
            Err(error) => {
                let reason = error.data();
                self.missing.push(text(reason.get("message")));
                self.add(&format!("{name}.error.json"), format!("{reason:#}\n").as_bytes())?;
                Ok(None)
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        let mut file = self.archive.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()
    }
}

async fn fill(context: &Context<'_>, bundle: &mut Bundle) -> io::Result<()> {
    let client = &context.client;
    bundle.add("client.json", format!("{:#}\n", json!({"buildVersion": env!("CARGO_PKG_VERSION")})).as_bytes())?;
    bundle.add_answer("info", client.get("ask for the version", INFO).await)?;
    bundle.add_answer("status", status::collect(context).await.map(|status| status.data))?;
    for (name, path) in [("hosts", HOSTS), ("obproxy-clusters", CLUSTERS), ("packages", PACKAGES)] {
        bundle.add_answer(name, client.list(&format!("list the {name}"), path).await)?;
    }
    let certificates = client.list("list the certificates", "api/v2/compute/hosts/certificates").await;
    bundle.add_answer("certificates", certificates)?;
    bundle.add_answer("audit", client.page("list the audit events", "api/v2/audit/events", &[], 1, EVENTS).await)?;
    let newest = ("sort", "id,desc".to_owned());
    let tasks = client.page("list the tasks", TASKS, std::slice::from_ref(&newest), 1, NEWEST_TASKS).await;
    bundle.add_answer("tasks", tasks)?;
    let filter = [newest, ("status", "FAILED".to_owned())];
    let failed = client.page("list the failed tasks", TASKS, &filter, 1, NEWEST_FAILED).await;
    let failed = bundle.add_answer("failed-tasks", failed)?.unwrap_or_default();
    for id in entries(&failed).iter().filter_map(|task| task.get("id")?.as_u64()) {
        add_task(context, bundle, id).await?;
    }
    Ok(())
}

/// A failed task, whole, and the logs of its subtasks.
async fn add_task(context: &Context<'_>, bundle: &mut Bundle, id: u64) -> io::Result<()> {
    let doing = format!("show task {id}");
    let answer = context.client.get(&doing, &format!("{TASKS}/{id}")).await;
    let Some(data) = bundle.add_answer(&format!("task-{id}"), answer)? else { return Ok(()) };
    let Ok(task) = Task::read(&doing, &data) else { return Ok(()) };
    let mut logs = String::new();
    for subtask in task.subtasks().iter().filter(|subtask| subtask.has_started()) {
        logs.push_str(&subtask.log_heading());
        match requests::log(context, SubtaskId { task: id, subtask: subtask.id }).await {
            Ok(data) => logs.push_str(&requests::log_text(&data)),
            Err(error) => logs.push_str(&format!("{}\n", error.data())),
        }
    }
    bundle.add(&format!("task-{id}.log"), logs.as_bytes())
}
