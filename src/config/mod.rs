//! Configuration in layers: flag, then environment, then file, then default. All mistakes are reported at once.
//!
//! A program declares one struct of optional flags (clap reads the environment as well) and serializes it; a file is a
//! flat TOML table with the same names.

mod state_directory;

pub use state_directory::{LockError, StateDirectory};

use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt, fs, path::Path};
use toml::{Table, Value};

/// Exit code of a wrong command line: EX_USAGE of sysexits(3).
pub const EXIT_USAGE: u8 = 64;
/// Exit code of a wrong configuration: EX_CONFIG of sysexits(3).
pub const EXIT_CONFIG: u8 = 78;

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is wrong:")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Reads settings by name and remembers what was wrong.
pub struct Layers {
    flags: Table,
    file: Table,
    file_name: String,
    known: BTreeSet<&'static str>,
    mistakes: Vec<String>,
}

impl Layers {
    /// `flags` holds flags and environment; a missing `file` is a mistake.
    pub fn new(flags: &impl Serialize, file: Option<&Path>) -> Self {
        let mut mistakes = Vec::new();
        let flags = Table::try_from(flags).unwrap_or_else(|error| {
            mistakes.push(format!("the flags cannot be read: {error}"));
            Table::new()
        });
        let file_name = file.map(|path| path.display().to_string()).unwrap_or_default();
        let file = file.map_or_else(Table::new, |path| {
            let text = fs::read_to_string(path).map_err(|error| error.to_string());
            let table = text.and_then(|text| text.parse::<Table>().map_err(|error| error.to_string()));
            table.unwrap_or_else(|error| {
                mistakes.push(format!("{file_name}: {}", error.trim_end()));
                Table::new()
            })
        });
        Self { flags, file, file_name, known: BTreeSet::new(), mistakes }
    }

    /// A setting that need not be there.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        self.known.insert(name);
        let (place, value) = match (self.flags.get(name), self.file.get(name)) {
            (Some(value), _) => ("flag or environment", value),
            (None, Some(value)) => (self.file_name.as_str(), value),
            (None, None) => return None,
        };
        let value: Value = value.clone();
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                let mistake = format!("{name} ({place}): {}", error.to_string().trim_end());
                self.mistakes.push(mistake);
                None
            }
        }
    }

    /// A setting with a default.
    pub fn or<T: DeserializeOwned>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A setting that has to be there.
    pub fn required<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let count = self.mistakes.len();
        let value = self.optional(name);
        if value.is_none() && self.mistakes.len() == count {
            self.mistake(name, "is missing");
        }
        value
    }

    /// Notes what a check beyond the type found.
    pub fn mistake(&mut self, name: &str, problem: impl fmt::Display) {
        self.mistakes.push(format!("{name}: {problem}"));
    }

    /// Ends the reading of a part of the settings; who reads the rest says what is wrong with it.
    pub fn finish_part(self) -> Result<(), ConfigError> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(ConfigError(self.mistakes)) }
    }

    /// Ends the reading: names that nobody asked for are mistakes too. Answers what was given.
    pub fn finish(mut self) -> Result<Given, ConfigError> {
        let unknown = self.file.keys().filter(|key| !self.known.contains(key.as_str()));
        self.mistakes.extend(unknown.map(|key| format!("{key} ({}): is not a setting", self.file_name)));
        if !self.mistakes.is_empty() {
            return Err(ConfigError(self.mistakes));
        }
        self.file.extend(self.flags);
        Ok(Given(self.file))
    }
}

/// The settings that flags, environment or file gave, before defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given(Table);

impl Given {
    /// Names of the settings that differ from those of the start, without those that are `live`; in alphabetical order.
    pub fn needs_restart(&self, started_with: &Self, live: &[&str]) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(started_with.0.keys()).collect();
        let fixed = names.into_iter().filter(|name| !live.contains(&name.as_str()));
        fixed.filter(|name| self.0.get(*name) != started_with.0.get(*name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Flags {
        port: Option<u16>,
        name: Option<String>,
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, "port = 1\nname = 'file'").unwrap();
        let mut layers = Layers::new(&Flags { port: Some(2), name: None }, Some(&path));
        assert_eq!(layers.or("port", 3_u16), 2);
        assert_eq!(layers.or("name", String::new()), "file");
        assert_eq!(layers.or("other", 7), 7);
        layers.finish().unwrap();
    }

    #[test]
    fn a_fixed_setting_that_was_changed_added_or_removed_needs_a_restart() {
        let given = |text: &str| Given(text.parse().unwrap());
        let old = given("port = 1\nname = 'x'\ngone = true\nlive = 1");
        assert!(old.needs_restart(&old, &[]).is_empty());
        let changed = given("port = 2\nname = 'x'\nadded = 1\nlive = 2");
        assert_eq!(changed.needs_restart(&old, &["live"]), ["added", "gone", "port"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, "port = 'x'\nnmae = 1").unwrap();
        let mut layers = Layers::new(&Flags { port: None, name: None }, Some(&path));
        layers.or("port", 3_u16);
        layers.required::<String>("name");
        layers.mistake("limit", "is too low");
        let ConfigError(mistakes) = layers.finish().unwrap_err();
        let starts: Vec<_> = mistakes.iter().map(|mistake| mistake.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(starts, ["port", "name", "limit", "nmae"], "{mistakes:?}");
    }

    #[test]
    fn a_missing_or_broken_file_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let flags = Flags { port: None, name: None };
        assert!(Layers::new(&flags, Some(&path)).finish().is_err());
        fs::write(&path, "port = ").unwrap();
        assert!(Layers::new(&flags, Some(&path)).finish().is_err());
    }
}
