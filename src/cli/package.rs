use futures_util::TryStreamExt;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::path::Path;
use tokio_util::io::ReaderStream;

use super::{
    Context,
    args::Package as Command,
    error::CliError,
    output::{Column, Progress},
};

const PACKAGES: &str = "api/v2/software-packages";
/// Large enough that a system call is rare, small enough that the bar moves.
const CHUNK_BYTES: usize = 256 * 1024;

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("FILE", "/fileName"),
    ("TYPE", "/type"),
    ("VERSION", "/version"),
    ("BUILD", "/buildNumber"),
    ("ARCH", "/architecture"),
    ("BYTES", "/size"),
];

const FIELDS: &[Column] = &[
    ("Package", "/id"),
    ("File", "/fileName"),
    ("Type", "/type"),
    ("Version", "/version"),
    ("Build", "/buildNumber"),
    ("Architecture", "/architecture"),
    ("Bytes", "/size"),
    ("SHA-1", "/sha1"),
];

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Upload { file } => {
            let data = upload(context, file).await?;
            context.output.entry(&data, FIELDS, "/id")
        }
        Command::List => {
            let data = context.client.list("list the packages", PACKAGES).await?;
            context.output.list(&data, COLUMNS, "/id")
        }
        Command::Remove(removal) => {
            let what = format!("package {}", removal.id);
            let doing = format!("remove {what}");
            context.confirm(removal.yes, removal.id, &doing)?;
            context.client.delete(&doing, &format!("{PACKAGES}/{}", removal.id)).await?;
            context.removed(removal.id, &what)
        }
    }
}

/// Id of an uploaded package, by the name of its file.
pub(crate) async fn find(context: &Context<'_>, path: &Path) -> Result<Value, CliError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let list = context.client.list("list the packages", PACKAGES).await?;
    let mut packages = list.get("contents").and_then(Value::as_array).into_iter().flatten();
    let found = packages.find(|package| package.get("fileName").and_then(Value::as_str) == Some(name));
    found.and_then(|package| package.get("id")).cloned().ok_or_else(|| CliError::Usage {
        message: format!("{name} is not among the uploaded packages"),
        next: format!("upload it first: oblet package upload {}", path.display()),
    })
}

/// Answers the package, also if the same file was uploaded before.
pub(crate) async fn upload(context: &Context<'_>, path: &Path) -> Result<Value, CliError> {
    let unreadable = |source| CliError::File { path: path.into(), source };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| metadata.is_file()) else {
        return Err(CliError::Usage {
            message: format!("{} is not a package", path.display()),
            next: "name a file of rpm or dpkg".into(),
        });
    };
    let bar = progress_bar(context, name, metadata.len());
    let counted = bar.clone();
    let content =
        ReaderStream::with_capacity(file, CHUNK_BYTES).inspect_ok(move |chunk| counted.inc(chunk.len() as u64));
    let doing = format!("upload {name}");
    let body = reqwest::Body::wrap_stream(content);
    let answer = context.client.upload(&doing, PACKAGES, name.to_owned(), body, metadata.len()).await;
    bar.finish_and_clear();
    answer
}

fn progress_bar(context: &Context<'_>, name: &str, size_bytes: u64) -> ProgressBar {
    match context.output.progress {
        Progress::None => return ProgressBar::hidden(),
        Progress::Lines => {
            context.output.note(&format!("Uploading {name} ({})", HumanBytes(size_bytes)));
            return ProgressBar::hidden();
        }
        Progress::Bars => {}
    }
    let bar = ProgressBar::new(size_bytes).with_prefix(name.to_owned());
    let template = "{prefix} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
