use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio_util::io::ReaderStream;

use super::{
    console::{
        error::CliError,
        output::Progress,
        table::{Column, column},
    },
    frame::{
        args::{Consent, Trial, dry_run_query},
        context::Context,
        kind::{PACKAGE, PACKAGES},
        resolve,
    },
};
use crate::deb;

/// Large enough that a system call is rare, small enough that the bar moves.
const CHUNK_BYTES: usize = 256 * 1024;

const COLUMNS: &[Column] = &[
    column("ID", "/id"),
    column("FILE", "/fileName"),
    column("TYPE", "/type"),
    column("VERSION", "/version"),
    column("BUILD", "/buildNumber"),
    column("SYSTEM", "/operatingSystem").wide(),
    column("ARCH", "/architecture"),
    column("BYTES", "/size"),
    column("UPLOADED", "/createTime").wide(),
    column("SHA-256", "/sha256").wide(),
];

const FIELDS: &[Column] = &[
    column("Package", "/id"),
    column("File", "/fileName"),
    column("Type", "/type"),
    column("Version", "/version"),
    column("Build", "/buildNumber"),
    column("Architecture", "/architecture"),
    column("Bytes", "/size"),
    column("SHA-1", "/sha1"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Package {
    /// Upload an rpm or deb file to the coordinator
    Upload {
        /// File whose name is the one in its header
        #[arg(value_name = "PATH")]
        file: PathBuf,
        #[command(flatten)]
        trial: Trial,
    },
    /// List the packages
    List(Filter),
    /// Remove a package that no proxy and no unfinished task uses
    Remove {
        /// Id or file name of the package
        package: String,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        trial: Trial,
    },
}

/// Of several values of one option, a package has any.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only packages with this in their file name
    #[arg(long, value_name = "TEXT")]
    keyword: Option<String>,
    /// Only packages of this type, such as OBPROXY_INSTALL_PACKAGE; repeat it for several
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Only packages of this version, such as 4.3.1.0; repeat it for several
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    version: Vec<String>,
    /// Only packages for this system, such as el7; repeat it for several
    #[arg(long, value_name = "SYSTEM", value_delimiter = ',')]
    os: Vec<String>,
    /// Only packages for this architecture, such as x86_64; repeat it for several
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
}

impl Filter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let lists = [
            ("type", &self.kinds),
            ("version", &self.version),
            ("operatingSystem", &self.os),
            ("architecture", &self.arch),
        ];
        let keyword = self.keyword.iter().map(|keyword| ("keyword", keyword.clone()));
        keyword
            .chain(lists.iter().flat_map(|(name, values)| values.iter().map(|value| (*name, value.clone()))))
            .collect()
    }
}

pub(crate) async fn run(context: &Context<'_>, command: &Package) -> Result<(), CliError> {
    match command {
        Package::Upload { file, trial } => {
            let data = upload(context, file, trial.dry_run).await?;
            context.output.entry(&data, FIELDS, "/id")
        }
        Package::List(filter) => {
            let data = context.client.narrowed("list the packages", PACKAGES, &filter.query()).await?;
            context.output.list(&data, COLUMNS, "/id")
        }
        Package::Remove { package, consent, trial } => {
            let doing = format!("remove package {package}");
            let id = resolve::id(context, &doing, &PACKAGE, package).await?;
            context.remove(&doing, &PACKAGE, id, package, *consent, *trial).await
        }
    }
}

/// The id of a package that an operator names by its id or its file. A file is uploaded, unless `dry_run`.
pub(crate) async fn take(context: &Context<'_>, doing: &str, path: &Path, dry_run: bool) -> Result<Value, CliError> {
    if let Some(id) = path.to_str().and_then(|text| text.parse::<u64>().ok()) {
        return Ok(id.into());
    }
    if !dry_run {
        return Ok(upload(context, path, false).await?.get("id").cloned().unwrap_or_default());
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match resolve::id(context, doing, &PACKAGE, name).await {
        Err(CliError::NotFound { .. }) => Err(CliError::Usage {
            message: format!(
                "cannot {doing}: a dry run uploads nothing, and {name} is not among the uploaded packages"
            ),
            next: format!("upload it first: oblet package upload {}", path.display()),
        }),
        found => found.map(Value::from),
    }
}

/// Answers the package, also if the same file was uploaded before. The coordinator stores packages by their names, so a
/// renamed file is refused before it is sent. A dry run sends it too, because only the coordinator can tell whether it
/// would keep it.
pub(crate) async fn upload(context: &Context<'_>, path: &Path, dry_run: bool) -> Result<Value, CliError> {
    let unreadable = |source| CliError::File { path: path.into(), source };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| metadata.is_file()) else {
        return Err(CliError::Usage {
            message: format!("{} is not a regular file", path.display()),
            next: "name an rpm or deb file".into(),
        });
    };
    refuse_renamed(path, name)?;
    let bar = progress_bar(context, name, metadata.len());
    let counted = bar.clone();
    let content =
        ReaderStream::with_capacity(file, CHUNK_BYTES).inspect_ok(move |chunk| counted.inc(chunk.len() as u64));
    let doing = format!("upload {name}");
    let body = reqwest::Body::wrap_stream(content);
    let query = dry_run_query(dry_run);
    let answer = context.client.upload(&doing, PACKAGES, query, name.to_owned(), (body, metadata.len())).await;
    bar.finish_and_clear();
    if dry_run && answer.is_ok() {
        context.output.note(&format!("Dry run: {name} can be uploaded; nothing was stored."));
    }
    answer
}

fn refuse_renamed(path: &Path, name: &str) -> Result<(), CliError> {
    match name_in_header(path) {
        Some(own) if own != name => Err(CliError::Usage {
            message: format!("cannot upload {name}: its name differs from its header, which says {own}"),
            next: format!("rename the file to {own} and upload it again"),
        }),
        _ => Ok(()),
    }
}

/// What the file has to be called. None if it cannot be read as a package, which the coordinator says better.
fn name_in_header(path: &Path) -> Option<String> {
    if path.extension().is_some_and(|extension| extension == "deb") {
        return Some(deb::read(&mut std::fs::File::open(path).ok()?).ok()?.package.file_name());
    }
    let header = rpm::PackageMetadata::open(path).ok().filter(|header| !header.is_source_package())?;
    let (name, version) = (header.get_name().ok()?, header.get_version().ok()?);
    Some(format!("{name}-{version}-{}.{}.rpm", header.get_release().ok()?, header.get_arch().ok()?))
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
