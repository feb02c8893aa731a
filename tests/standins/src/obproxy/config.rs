//! The values of the items, and the file that keeps them over a restart.

use super::{
    items::{ITEMS, Item},
    kind::Kind,
    version::Rules,
};
use crate::mysql;
use std::{collections::BTreeMap, fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Invalid,
    /// A log level that does not exist.
    Level,
    /// It cannot be altered while obproxy runs.
    Fixed,
    /// It cannot be saved.
    Unsaved,
}

/// Values that differ from the defaults.
pub(super) struct Config {
    rules: &'static Rules,
    file: PathBuf,
    values: BTreeMap<String, String>,
    /// Faults that the package carries; they hold at every start, whatever is stored.
    package_faults: BTreeMap<String, String>,
}

impl Config {
    /// D9: reads what is stored; a file that is not there is an empty one.
    pub(super) fn load(file: PathBuf, rules: &'static Rules) -> io::Result<Self> {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let values = text.lines().map(stored_pair).collect::<Option<_>>();
        let values = values.ok_or_else(|| io::Error::other("not a stored configuration"))?;
        Ok(Self { rules, file, values, package_faults: BTreeMap::new() })
    }

    /// D5: readable for everybody, unless the umask or the directory says otherwise.
    pub(super) fn save(&self) -> io::Result<()> {
        let beside = self.file.with_extension("tmp");
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&beside)?;
        let stored = |name: &str| self.item(name).is_some_and(|item| !item.in_memory());
        for (name, value) in self.values.iter().filter(|(name, _)| stored(name)) {
            writeln!(file, "{name}={}", value.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r"))?;
        }
        file.sync_all()?;
        fs::rename(&beside, &self.file)
    }

    /// The items that this version knows.
    pub(super) fn items(&self) -> impl Iterator<Item = &'static Item> {
        let without = self.rules.unknown_items;
        ITEMS.iter().filter(move |item| !without.contains(&item.name))
    }

    pub(super) fn item(&self, name: &str) -> Option<&'static Item> {
        self.items().find(|item| item.name == name)
    }

    pub(super) fn default_of(&self, item: &Item) -> &'static str {
        self.rules.default_of(item.name).unwrap_or(item.default)
    }

    pub(super) fn get(&self, name: &str) -> &str {
        let default = || self.item(name).map_or("", |item| self.default_of(item));
        let value = self.package_faults.get(name).or_else(|| self.values.get(name));
        value.map_or_else(default, String::as_str)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name) == "True"
    }

    /// The number of an item whose range fits `T`; values out of range never come this far.
    pub(super) fn number<T: std::str::FromStr + Default>(&self, name: &str) -> T {
        self.get(name).parse().unwrap_or_default()
    }

    /// An item of the command line or of the environment.
    pub(super) fn set_at_start(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        // C14: names of the command line were only seen in lower case; in another one they are unknown.
        let item = self.item(name).ok_or(Refusal::Unknown)?;
        // A7: the value stands between the quotes of a statement as it is. Two quotes alone are an escaped one there;
        // any other value with a quote is taken to break the statement.
        let value = match value {
            "''" => "'",
            value if value.contains('\'') => return Err(Refusal::Unsaved),
            value => value,
        };
        // A4, A6: a password is kept as it comes.
        let kept = item.kind.accept(value, self.rules.log_levels).ok_or(Refusal::Invalid)?;
        self.values.insert(name.to_owned(), kept);
        Ok(())
    }

    /// S15: one item of ALTER, in force and stored at once.
    pub(super) fn alter(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let name = name.to_ascii_lowercase();
        let item = self.item(&name).ok_or(Refusal::Unknown)?;
        let kept = match item.kind {
            _ if item.name == "app_name" => return Err(Refusal::Fixed), // S19
            Kind::Password if value.is_empty() => String::new(),        // A8
            // A8; that of the inspector was not tried and is taken to be like the others.
            Kind::Password => mysql::hex(&mysql::sha1(&[value.as_bytes()])),
            // The facts are silent on quotes in ALTER; A7 says what saving does with one on the command line.
            _ if value.contains('\'') => return Err(Refusal::Unsaved),
            Kind::Level => item.kind.accept(value, self.rules.log_levels).ok_or(Refusal::Level)?, // S18
            kind => kind.accept(value, self.rules.log_levels).ok_or(Refusal::Invalid)?,           // S17
        };
        let before = self.values.insert(name.clone(), kept);
        self.save().map_err(|_| {
            match before {
                Some(before) => self.values.insert(name, before),
                None => self.values.remove(&name),
            };
            Refusal::Unsaved
        })
    }

    /// Reads `name=value` lines of faults; answers what is wrong with them.
    pub(super) fn carry_faults(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let known = line.split_once('=').and_then(|(name, value)| {
                let item = self.item(name).filter(|item| item.name.starts_with("standin_"))?;
                Some((name.to_owned(), item.kind.accept(value, &[])?))
            });
            let (name, value) = known.ok_or_else(|| format!("no such fault: {line}"))?;
            self.package_faults.insert(name, value);
        }
        Ok(())
    }
}

fn stored_pair(line: &str) -> Option<(String, String)> {
    let (name, kept) = line.split_once('=')?;
    let mut value = String::new();
    let mut rest = kept.chars();
    while let Some(next) = rest.next() {
        value.push(match next {
            '\\' => match rest.next()? {
                'n' => '\n',
                'r' => '\r',
                other => other,
            },
            other => other,
        });
    }
    Some((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        assert_eq!(stored_pair(r"a=b\\n=\nc"), Some(("a".into(), "b\\n=\nc".into())));
        assert_eq!(stored_pair("no pair"), None);
    }
}
