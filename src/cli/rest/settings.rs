//! Where the coordinator is and who asks it. A flag takes precedence over the context that a flag names, that over the
//! environment, that over the context of the environment or the current one, that over the default.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    args::AccessArgs,
    contexts::{Contexts, Profile, refuse_shared},
};
use crate::cli::console::{error::CliError, prompt};

const DEFAULT_URL: &str = "https://127.0.0.1:8443";
const DEFAULT_USER: &str = "admin";
/// Environment variable with the user's password.
const PASSWORD: &str = "OBLET_PASSWORD";
/// More than any password; keeps a mistaken path to a device from filling the memory.
const MAX_SECRET_BYTES: u64 = 4096;

/// Where the coordinator is and who asks it.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) user: String,
    pub(crate) password: SecretString,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout: Duration,
    /// The context that knows the password, if one does.
    pub(crate) context: Option<String>,
    /// The operator has just typed the password.
    pub(crate) is_typed: bool,
}

impl Settings {
    pub(crate) fn new(access: &AccessArgs) -> Result<Self, CliError> {
        let contexts = Contexts::load()?;
        let chosen = chosen(access, contexts.as_ref())?;
        let profile = chosen.map(|(_, profile)| profile);
        // Where a flag names the context, the environment has no say in what the context holds.
        let environment = |name: &str| if access.context.is_some() { None } else { variable(name) };
        let given = |flag: Option<String>, name, of_context: Option<&String>| {
            flag.or_else(|| environment(name)).or_else(|| of_context.cloned())
        };
        let url = given(access.url.clone(), "OBLET_URL", profile.map(|profile| &profile.url));
        let user = given(access.user.clone(), "OBLET_USER", profile.map(|profile| &profile.user));
        let url = coordinator_url(url.as_deref().unwrap_or(DEFAULT_URL))?;
        let user = user.unwrap_or_else(|| DEFAULT_USER.into());
        // The password of a context goes to its coordinator, as its user, and nowhere else.
        let own = chosen
            .filter(|(_, profile)| profile.user == user && coordinator_url(&profile.url).is_ok_and(|own| own == url));
        let ca = access.ca.clone().or_else(|| environment("OBLET_CA").map(PathBuf::from));
        let (password, is_typed) = match (given_password(access, &environment)?, own) {
            (Some(password), _) => (password, false),
            (None, Some((_, Profile { password_file: Some(path), .. }))) => (read_secret(path)?, false),
            (None, _) => (ask_password(&user, &url)?, true),
        };
        Ok(Self {
            password,
            ca: ca.or_else(|| profile?.ca.clone()),
            timeout: access.timeout,
            context: own.map(|(name, _)| name.to_owned()),
            is_typed,
            url,
            user,
        })
    }

    /// Those of a login: only flags and environment count, and the operator is asked for the rest.
    pub(crate) fn of_login(access: &AccessArgs, url: &str) -> Result<Self, CliError> {
        let url = coordinator_url(url)?;
        let user = match access.user.clone().or_else(|| variable("OBLET_USER")) {
            Some(user) => user,
            None if prompt::is_possible() => {
                let answer = prompt::line(&format!("User at {url} [{DEFAULT_USER}]: "))?;
                if answer.is_empty() { DEFAULT_USER.into() } else { answer }
            }
            None => DEFAULT_USER.into(),
        };
        let password = match given_password(access, &variable)? {
            Some(password) => password,
            None => ask_password(&user, &url)?,
        };
        let ca = access.ca.clone().or_else(|| variable("OBLET_CA").map(PathBuf::from));
        Ok(Self { url, user, password, ca, timeout: access.timeout, context: None, is_typed: false })
    }
}

/// The context that the command is about, if there is one.
pub(crate) fn chosen<'a>(
    access: &AccessArgs,
    contexts: Option<&'a Contexts>,
) -> Result<Option<(&'a str, &'a Profile)>, CliError> {
    let name = access.context.clone().or_else(|| variable("OBLET_CONTEXT"));
    match (contexts, name) {
        (Some(contexts), name) => contexts.choose(name.as_deref()),
        (None, None) => Ok(None),
        (None, Some(name)) => Err(CliError::Usage {
            message: format!("there is no context {name}: neither XDG_CONFIG_HOME nor HOME is set"),
            next: "set HOME or XDG_CONFIG_HOME".into(),
        }),
    }
}

/// A variable of the environment that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The file with the password that a flag or the environment names.
pub(crate) fn password_file(access: &AccessArgs) -> Option<PathBuf> {
    access.password_file.clone().or_else(|| variable("OBLET_PASSWORD_FILE").map(PathBuf::from))
}

fn given_password(
    access: &AccessArgs,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<SecretString>, CliError> {
    let file = access.password_file.clone().or_else(|| environment("OBLET_PASSWORD_FILE").map(PathBuf::from));
    match file {
        Some(path) => read_secret(&path).map(Some),
        None => Ok(environment(PASSWORD).map(Into::into)),
    }
}

fn ask_password(user: &str, url: &Url) -> Result<SecretString, CliError> {
    if !prompt::is_possible() {
        return Err(CliError::Usage {
            message: format!("no password for {user} at {url}, and no terminal to ask for it"),
            next: format!(
                "set {PASSWORD}, name a file with --password-file or OBLET_PASSWORD_FILE (\"-\" is standard input), or \
                 log in once with: oblet login {url}"
            ),
        });
    }
    prompt::password(&format!("Password of {user} at {url}: "))
}

/// Every request carries the password, so plain HTTP must not leave the host.
fn coordinator_url(text: &str) -> Result<Url, CliError> {
    let wrong = |reason: &str| CliError::Usage {
        message: format!("{text:?} is not the URL of a coordinator: {reason}"),
        next: "use the form https://HOST:PORT".into(),
    };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it holds a password.
        return Err(CliError::Usage {
            message: "the URL of the coordinator must not contain a user or a password".into(),
            next: "use --user and OBLET_PASSWORD or --password-file".into(),
        });
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(wrong("plain HTTP would send the password unencrypted over the network; use https")),
        _ => return Err(wrong("it is neither https nor http")),
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn source_name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { path.display().to_string() }
}

/// The first line of a file that only its owner and group may read; "-" is standard input.
pub(crate) fn read_secret(path: &Path) -> Result<SecretString, CliError> {
    let unreadable = |source| CliError::File { path: path.into(), source };
    let mut text = zeroize::Zeroizing::new(String::new());
    if path == Path::new("-") {
        io::stdin().take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = File::open(path).map_err(unreadable)?;
        refuse_shared(path, &file, "the password in")?;
        file.take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    }
    let secret = SecretString::from(text.lines().next().unwrap_or_default());
    if secret.expose_secret().is_empty() {
        return Err(CliError::Usage {
            message: format!("the first line of {} is empty", source_name(path)),
            next: "write the password to its first line".into(),
        });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn plain_http_stays_on_the_host() {
        for good in ["https://ocp.example:8443", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1/base"] {
            assert!(coordinator_url(good).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1", "http://localhost.example", "ftp://127.0.0.1", "127.0.0.1:8443", ""] {
            assert!(coordinator_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = coordinator_url("https://admin:hunter2@127.0.0.1").unwrap_err();
        assert!(!error.reports().concat().contains("hunter2"));
    }

    #[test]
    fn a_secret_is_the_first_line_of_a_private_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"s3cret\nrest\n").unwrap();
        assert_eq!(read_secret(file.path()).unwrap().expose_secret(), "s3cret");
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_secret(file.path()), Err(CliError::Usage { .. })));
    }
}
