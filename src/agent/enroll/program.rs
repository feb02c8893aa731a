//! The command line of an enrolment: what comes in, what is said, and with which exit code.

use super::{Enrollment, enroll, time};
use crate::{
    agent::config::identity_paths,
    clock::now_micros,
    config::{ConfigError, EXIT_CONFIG, EXIT_USAGE, Layers},
    telemetry::chain,
    tls::{self, Fingerprint, IdentityPaths},
};
use clap::Parser as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Environment variable with the token.
const TOKEN: &str = "OBLET_TOKEN";
/// What the service is started with, so that the certificate comes to where it looks.
const SERVICE_CONFIG: &str = "/etc/oblet-agent/agent.toml";
/// More than any token; keeps a mistaken path to a device from filling the memory.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Asks a coordinator for this host's certificate, with a token of `oblet host add --token`.
#[derive(Debug, clap::Parser, Serialize)]
#[command(name = "oblet-agent enroll", bin_name = "oblet-agent enroll", version)]
pub struct Flags {
    /// Address of the coordinator, such as https://192.0.2.1:8443.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub coordinator: reqwest::Url,
    /// Fingerprint of the coordinator's authority: "sha256:" and 64 hexadecimal digits.
    #[arg(long)]
    #[serde(skip)]
    pub fingerprint: Fingerprint,
    /// File with the token, "-" for standard input; or set OBLET_TOKEN.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub token_file: Option<PathBuf>,
    /// Replace a working certificate.
    #[arg(long)]
    #[serde(skip)]
    pub force: bool,
    /// TOML file of the agent, which can contain the settings below [default: /etc/oblet-agent/agent.toml, if it exists].
    #[arg(long, env = "OBLET_AGENT_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// IP address of this host to connect from, if it has several [default: that of the route].
    #[arg(long, env = "OBLET_AGENT_ADDRESS")]
    pub address: Option<IpAddr>,
    /// File for the authority's certificate [default: /etc/oblet-agent/ca.pem].
    #[arg(long, env = "OBLET_AGENT_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// File for this host's certificate [default: /etc/oblet-agent/agent.pem].
    #[arg(long, env = "OBLET_AGENT_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// File for this host's private key [default: /etc/oblet-agent/agent.key].
    #[arg(long, env = "OBLET_AGENT_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
}

/// Why the command line cannot be followed.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("there is no token: name a file with --token-file, \"-\" for standard input, or set {TOKEN}")]
    NoToken,
    #[error("{0} may be read by others: chmod 600 it")]
    Public(PathBuf),
    #[error("the token in {path} cannot be read")]
    Token { path: PathBuf, source: io::Error },
}

/// Carries out the command line of this process, whose first argument is the name of the command.
pub fn main() -> ExitCode {
    let flags = match Flags::try_parse_from(std::env::args_os().skip(1)) {
        Ok(flags) => flags,
        Err(told) => {
            // Nobody is left to hear of a terminal that cannot be written to.
            let _ = told.print();
            return if told.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let (paths, source) = match settings(&flags) {
        Ok(settings) => settings,
        Err(mistakes) => return complain(&mistakes.to_string(), None, EXIT_CONFIG),
    };
    let token = match token(flags.token_file.as_deref()) {
        Ok(token) => token,
        Err(error) => return complain(&chain(&error), None, EXIT_USAGE),
    };
    tls::install_crypto_provider();
    let Flags { coordinator, fingerprint, force, .. } = flags;
    let enrollment = Enrollment { coordinator, fingerprint, token, source, paths, force, now: now_micros() };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&chain(&error), None, 1),
    };
    match runtime.block_on(enroll(&enrollment)) {
        Ok(enrolled) => {
            let certificate = enrolled.certificate;
            // What was asked for is done, whoever hears of it.
            let _ = writeln!(
                io::stdout(),
                "This host is enrolled as {}. Its certificate {} is good until {} and renews by itself.\nNext: {}",
                enrolled.address,
                certificate.serial,
                time(certificate.not_after),
                // An agent that runs has to be told of the files that took the place of its own.
                if force { "systemctl reload-or-restart oblet-agent" } else { "systemctl enable --now oblet-agent" },
            );
            ExitCode::SUCCESS
        }
        Err(error) => complain(&chain(&error), Some(&error.next_move()), 1),
    }
}

fn complain(problem: &str, next_move: Option<&str>, code: u8) -> ExitCode {
    let next = next_move.map_or_else(String::new, |next| format!("\nnext: {next}"));
    let _ = writeln!(io::stderr(), "oblet-agent: {problem}{next}");
    code.into()
}

fn settings(flags: &Flags) -> Result<(IdentityPaths, Option<IpAddr>), ConfigError> {
    let service = Path::new(SERVICE_CONFIG);
    let file = flags.config.as_deref().or_else(|| service.exists().then_some(service));
    let mut layers = Layers::new(flags, file);
    let settings = (identity_paths(&mut layers), layers.optional("address"));
    layers.finish_part()?;
    Ok(settings)
}

fn token(file: Option<&Path>) -> Result<SecretString, UsageError> {
    let text = match file {
        Some(path) => read_token(path)?,
        None => std::env::var(TOKEN).map(SecretString::from).map_err(|_absent| UsageError::NoToken)?,
    };
    let token = SecretString::from(text.expose_secret().trim());
    if token.expose_secret().is_empty() { Err(UsageError::NoToken) } else { Ok(token) }
}

fn read_token(path: &Path) -> Result<SecretString, UsageError> {
    let unreadable = |source| UsageError::Token { path: path.into(), source };
    let mut text = zeroize::Zeroizing::new(String::new());
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = fs::File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.permissions().mode() & 0o077 != 0 {
            return Err(UsageError::Public(path.into()));
        }
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    }
    Ok(SecretString::from(text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(more: &[&str]) -> Flags {
        let fingerprint = Fingerprint::of(b"").to_string();
        let given = ["enroll", "--coordinator", "https://192.0.2.1:8443", "--fingerprint", &fingerprint];
        Flags::try_parse_from(given.iter().chain(more)).unwrap()
    }

    #[test]
    fn the_agents_own_file_says_where_the_certificates_go() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, "tls_key = '/srv/agent.key'\nrun_user = 'admin'\naddress = '192.0.2.7'").unwrap();
        let given = flags(&["--config", file.to_str().unwrap(), "--tls-ca", "/srv/ca.pem"]);
        let (paths, source) = settings(&given).unwrap();
        let expected = ["/srv/ca.pem", "/etc/oblet-agent/agent.pem", "/srv/agent.key"].map(PathBuf::from);
        assert_eq!([paths.ca, paths.certificate, paths.key], expected);
        assert_eq!(source, Some([192, 0, 2, 7].into()));
    }

    #[test]
    fn a_token_is_one_word_of_a_private_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"t0ken\n").unwrap();
        assert_eq!(token(Some(file.path())).unwrap().expose_secret(), "t0ken");
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(token(Some(file.path())), Err(UsageError::Public(_))));
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(token(Some(empty.path())), Err(UsageError::NoToken)));
        assert!(Flags::try_parse_from(["enroll", "--token", "t0ken"]).is_err(), "no token in an argument");
    }
}
