//! The configuration file: coordinators that the operator has logged in to, each under the name of a context.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use crate::{cli::console::error::CliError, files};

const FILE: &str = "config.toml";
const PASSWORD_ENDING: &str = ".password";
const OTHERS_READ_OR_WRITE: u32 = 0o006;
const SEE: &str = "see the contexts with: oblet context list";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) url: String,
    pub(crate) user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Profile>,
}

pub(crate) struct Contexts {
    directory: PathBuf,
    content: Content,
}

impl Contexts {
    /// None if the environment names no directory for configuration files.
    pub(crate) fn load() -> Result<Option<Self>, CliError> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        base.map(|base| Self::read(base.join("oblet"))).transpose()
    }

    fn read(directory: PathBuf) -> Result<Self, CliError> {
        let path = directory.join(FILE);
        let unreadable = |source| CliError::File { path: path.clone(), source };
        let mut text = String::new();
        match File::open(&path) {
            Ok(mut file) => {
                refuse_shared(&path, &file, "the file")?;
                file.read_to_string(&mut text).map_err(unreadable)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
        let content = toml::from_str(&text).map_err(|error| CliError::Usage {
            message: format!("{} is wrong: {}", path.display(), error.to_string().trim_end()),
            next: "correct the file, or remove it and log in again with: oblet login URL".into(),
        })?;
        Ok(Self { directory, content })
    }

    pub(crate) fn current(&self) -> Option<&str> {
        self.content.current.as_deref()
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, Profile> {
        &self.content.contexts
    }

    /// The context of this name, else the current one; None if there is none.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<Option<(&str, &Profile)>, CliError> {
        let Some(name) = name.or(self.current()) else { return Ok(None) };
        match self.content.contexts.get_key_value(name) {
            Some((name, profile)) => Ok(Some((name, profile))),
            None => Err(unknown(name)),
        }
    }

    pub(crate) fn set_current(&mut self, name: &str) -> Result<(), CliError> {
        if !self.content.contexts.contains_key(name) {
            return Err(unknown(name));
        }
        self.content.current = Some(name.to_owned());
        self.save()
    }

    /// Adds or replaces a context and makes it the current one. A password is kept in a file of its own, unless the
    /// profile names one.
    pub(crate) fn log_in(&mut self, name: &str, mut profile: Profile, password: &SecretString) -> Result<(), CliError> {
        if profile.password_file.is_none() {
            profile.password_file = Some(self.keep_password(name, password)?);
        }
        self.content.contexts.insert(name.to_owned(), profile);
        self.content.current = Some(name.to_owned());
        self.save()
    }

    /// Replaces the password of a context, if it is kept here; false if it is not.
    pub(crate) fn change_password(&self, name: &str, password: &SecretString) -> Result<bool, CliError> {
        let own = self.own_password_file(name);
        let kept = self.content.contexts.get(name).is_some_and(|profile| profile.password_file.as_ref() == Some(&own));
        if kept {
            self.keep_password(name, password)?;
        }
        Ok(kept)
    }

    pub(crate) fn log_out(&mut self, name: &str) -> Result<(), CliError> {
        if self.content.contexts.remove(name).is_none() {
            return Err(unknown(name));
        }
        if self.current() == Some(name) {
            self.content.current = None;
        }
        self.save()?;
        let path = self.own_password_file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CliError::NotSaved { path, source }),
            _ => Ok(()),
        }
    }

    fn own_password_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{PASSWORD_ENDING}"))
    }

    fn keep_password(&self, name: &str, password: &SecretString) -> Result<PathBuf, CliError> {
        let path = self.own_password_file(name);
        let line = Zeroizing::new(format!("{}\n", password.expose_secret()));
        self.write(&path, line.as_bytes())?;
        Ok(path)
    }

    fn save(&self) -> Result<(), CliError> {
        let path = self.directory.join(FILE);
        let text = toml::to_string(&self.content)
            .map_err(|error| CliError::NotSaved { path: path.clone(), source: io::Error::other(error) })?;
        self.write(&path, text.as_bytes())
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), CliError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .and_then(|()| files::replace(path, content, 0o600))
            .map_err(|source| CliError::NotSaved { path: path.into(), source })
    }
}

fn unknown(name: &str) -> CliError {
    CliError::Usage {
        message: format!("there is no context {name}"),
        next: format!("{SEE}; or log in with: oblet login URL"),
    }
}

/// A name becomes part of the name of a file.
pub(crate) fn check_name(name: &str) -> Result<(), CliError> {
    let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_');
    if (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits) {
        return Ok(());
    }
    Err(CliError::Usage {
        message: format!("{name:?} is not a name for a context"),
        next: "use up to 64 letters, digits, dots, hyphens and underscores with --name, with no dot at the beginning"
            .into(),
    })
}

/// What others could read is no secret, and what they could write would tell where secrets are sent.
pub(crate) fn refuse_shared(path: &Path, file: &File, what: &str) -> Result<(), CliError> {
    let metadata = file.metadata().map_err(|source| CliError::File { path: path.into(), source })?;
    if metadata.is_file() && metadata.permissions().mode() & OTHERS_READ_OR_WRITE != 0 {
        return Err(CliError::Usage {
            message: format!("every user of this host can read or change {what} {}", path.display()),
            next: format!("chmod 600 {}", path.display()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile { url: "https://10.0.0.10:8443".into(), user: "admin".into(), ca: None, password_file: None }
    }

    fn read(directory: &Path) -> Contexts {
        Contexts::read(directory.join("oblet")).unwrap()
    }

    #[test]
    fn a_password_is_kept_apart_and_goes_with_its_context() {
        let home = tempfile::tempdir().unwrap();
        read(home.path()).log_in("prod", profile(), &"s3cret".into()).unwrap();
        let config = fs::read_to_string(home.path().join("oblet/config.toml")).unwrap();
        assert!(config.contains("prod") && !config.contains("s3cret"), "{config}");
        for (name, mode) in [("oblet", 0o700), ("oblet/config.toml", 0o600), ("oblet/prod.password", 0o600)] {
            assert_eq!(fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
        let mut contexts = read(home.path());
        let (name, _) = contexts.choose(None).unwrap().unwrap();
        assert_eq!(name, "prod");
        assert!(contexts.choose(Some("test")).is_err());
        assert!(contexts.change_password("prod", &"0ther".into()).unwrap());
        assert_eq!(fs::read_to_string(home.path().join("oblet/prod.password")).unwrap(), "0ther\n");
        contexts.log_out("prod").unwrap();
        assert!(read(home.path()).choose(None).unwrap().is_none());
        assert!(!home.path().join("oblet/prod.password").exists());
    }

    #[test]
    fn a_password_file_of_the_operators_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("mine");
        fs::write(&file, "s3cret\n").unwrap();
        let mut contexts = read(home.path());
        contexts.log_in("prod", Profile { password_file: Some(file.clone()), ..profile() }, &"s3cret".into()).unwrap();
        assert!(!contexts.change_password("prod", &"0ther".into()).unwrap());
        contexts.log_out("prod").unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "s3cret\n");
    }

    #[test]
    fn a_file_that_others_can_read_or_that_has_unknown_settings_is_refused() {
        let home = tempfile::tempdir().unwrap();
        read(home.path()).log_in("prod", profile(), &"s3cret".into()).unwrap();
        let path = home.path().join("oblet/config.toml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Contexts::read(home.path().join("oblet")).is_err());
        fs::write(&path, "curent = 'prod'").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Contexts::read(home.path().join("oblet")).is_err());
    }

    #[test]
    fn names_are_those_of_files() {
        for good in ["prod", "10.0.0.10", "a_b-c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".hidden", "../x", "a/b", "a b", "\u{e9}"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
