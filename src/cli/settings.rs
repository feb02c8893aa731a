use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{args::Global, error::CliError};

/// Environment variable with the user's password.
const PASSWORD: &str = "OBLET_PASSWORD";
/// More than any password; keeps a mistaken path to a device from filling the memory.
const MAX_SECRET_BYTES: u64 = 4096;

/// Where the coordinator is and who asks it.
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) user: String,
    pub(crate) password: SecretString,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout: Duration,
}

impl Settings {
    pub(crate) fn new(global: &Global) -> Result<Self, CliError> {
        Ok(Self {
            url: coordinator_url(&global.url)?,
            user: global.user.clone(),
            password: password(global.password_file.as_deref())?,
            ca: global.ca.clone(),
            timeout: global.timeout,
        })
    }
}

/// Every request carries the password, so plain HTTP must not leave the host.
fn coordinator_url(text: &str) -> Result<Url, CliError> {
    let wrong = |reason: &str| CliError::Usage {
        message: format!("{text:?} is not the address of a coordinator: {reason}"),
        next: "give --url or OBLET_URL the form https://HOST:PORT".into(),
    };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it holds a password.
        return Err(CliError::Usage {
            message: "the address of the coordinator must not carry a user or a password".into(),
            next: "use --user and OBLET_PASSWORD or --password-file".into(),
        });
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(wrong("over plain HTTP anyone on the way could read the password")),
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

fn password(file: Option<&Path>) -> Result<SecretString, CliError> {
    if let Some(path) = file {
        return read_secret(path);
    }
    match std::env::var(PASSWORD) {
        Ok(password) if !password.is_empty() => Ok(password.into()),
        _ => Err(CliError::Usage {
            message: "there is no password for the coordinator".into(),
            next: format!(
                "set {PASSWORD}, or name a file with --password-file or OBLET_PASSWORD_FILE (\"-\" is standard input)"
            ),
        }),
    }
}

/// The first line of a file that only its owner and group may read; "-" is standard input.
pub(crate) fn read_secret(path: &Path) -> Result<SecretString, CliError> {
    let unreadable = |source| CliError::File { path: path.into(), source };
    let mut text = zeroize::Zeroizing::new(String::new());
    if path == Path::new("-") {
        io::stdin().take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
            return Err(CliError::Usage {
                message: format!("everyone on this host can read the password in {}", path.display()),
                next: format!("chmod 600 {}", path.display()),
            });
        }
        file.take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    }
    let secret = SecretString::from(text.lines().next().unwrap_or_default());
    if secret.expose_secret().is_empty() {
        return Err(CliError::Usage {
            message: format!("the first line of {} is empty", path.display()),
            next: "put the password there".into(),
        });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!error.report().contains("hunter2"));
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
