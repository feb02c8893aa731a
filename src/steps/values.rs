//! Values that cannot be wrong: checked once at the edge, trusted afterwards.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What is wrong with a value, worded so that it can follow the name of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

/// A string newtype with a rule.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $test:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                let test: fn(&str) -> bool = $test;
                if test(&text) {
                    Ok(Self(text))
                } else {
                    let shown: String = text.chars().take(80).collect();
                    Err(InvalidValue(format!("{shown:?} is not allowed: {}", $rule)))
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

fn word(text: &str, longest: usize, extra: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    (1..=longest).contains(&text.len()) && text.chars().all(allowed)
}

checked_string! {
    /// Name of a program on the search path; never a path.
    CommandName, "a command is a plain name of 1 to 64 letters, digits, '.', '_', '+' or '-'",
    |text| word(text, 64, "._+-") && !text.starts_with('-') && !text.starts_with('.')
}

checked_string! {
    /// Text that is looked for in command lines.
    Keyword, "a keyword has 2 to 128 printable characters",
    |text| (2..=128).contains(&text.len()) && !text.chars().any(char::is_control)
}

checked_string! {
    /// Name of a proxy cluster or an OceanBase cluster.
    ClusterName, "a cluster name begins with a letter and has at most 64 letters, digits, '_', '-' or '.'",
    |text| word(text, 64, "_-.") && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

checked_string! {
    /// Name of a configuration item of obproxy.
    ParameterName, "a parameter name has 1 to 64 lower-case letters, digits or '_' and begins with a letter",
    |text| word(text, 64, "_")
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.contains(|c: char| c.is_ascii_uppercase())
}

checked_string! {
    /// Value of a configuration item of obproxy.
    ParameterValue, "a parameter value has at most 4096 characters, none of them a control character",
    |text| text.len() <= 4096 && !text.chars().any(char::is_control)
}

checked_string! {
    /// "ip:port" of a server.
    ServerAddress, "a server is given as ip:port",
    |text| text.parse::<std::net::SocketAddr>().is_ok()
}

checked_string! {
    /// SHA-256 in hexadecimal.
    Sha256, "a SHA-256 has 64 lower-case hexadecimal digits",
    |text| text.len() == 64 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// A configuration item of obproxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: ParameterName,
    pub value: ParameterValue,
}

/// A port on which obproxy and observer agree to listen: 1025 to 65535 (range check of both programs' own flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16")]
pub struct Port(u16);

impl Port {
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Port {
    type Error = InvalidValue;

    fn try_from(number: i64) -> Result<Self, InvalidValue> {
        match u16::try_from(number) {
            Ok(port) if port > 1024 => Ok(Self(port)),
            _ => Err(InvalidValue(format!("{number} is not allowed: a port lies between 1025 and 65535"))),
        }
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl From<Port> for u32 {
    fn from(port: Port) -> Self {
        port.0.into()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Of the package managers of Linux distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackageFormat {
    Rpm,
    Deb,
}

impl PackageFormat {
    /// Extension of the file name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rpm => "rpm",
            Self::Deb => "deb",
        }
    }
}

/// Name, version, release and architecture of a package; the epoch is no part of a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageRef {
    format: PackageFormat,
    name: String,
    version: String,
    release: String,
    architecture: String,
}

impl PackageRef {
    /// An rpm.
    pub fn new(name: &str, version: &str, release: &str, architecture: &str) -> Result<Self, InvalidValue> {
        Self::checked(PackageFormat::Rpm, [name, version, release, architecture])
    }

    /// A package of Debian's kind. Its version ends in a revision, `0.1.0-2`, which is the release here.
    pub fn deb(name: &str, version: &str, architecture: &str) -> Result<Self, InvalidValue> {
        let (version, release) = version.rsplit_once('-').unwrap_or((version, ""));
        Self::checked(PackageFormat::Deb, [name, version, release, architecture])
    }

    fn checked(format: PackageFormat, [name, version, release, architecture]: [&str; 4]) -> Result<Self, InvalidValue> {
        let characters = "._+~^-";
        let parts = [("name", name), ("version", version), ("release", release), ("architecture", architecture)];
        for (what, part) in parts {
            // rpm itself refuses '-' in version and release, which makes the joined form unambiguous.
            let fits = word(part, 128, characters) && (what == "name" || !part.contains('-'));
            let dotted = part.starts_with(['.', '-']) || part.contains("..");
            let architecture_dot = what == "architecture" && part.contains('.');
            // What separates the parts of a deb's file name cannot stand in them.
            let joined = format == PackageFormat::Deb && part.contains('_');
            if !fits || dotted || architecture_dot || joined {
                let shown: String = part.chars().take(80).collect();
                return Err(InvalidValue(format!("{shown:?} is not allowed as the {what} of a package")));
            }
        }
        Ok(Self {
            format,
            name: name.into(),
            version: version.into(),
            release: release.into(),
            architecture: architecture.into(),
        })
    }

    pub fn format(&self) -> PackageFormat {
        self.format
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn release(&self) -> &str {
        &self.release
    }

    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The architecture as the kernel names it, or `noarch`; dpkg has names of its own.
    pub fn machine(&self) -> &str {
        match (self.format, self.architecture.as_str()) {
            (PackageFormat::Deb, "amd64") => "x86_64",
            (PackageFormat::Deb, "arm64") => "aarch64",
            (PackageFormat::Deb, "all") => "noarch",
            (PackageFormat::Rpm | PackageFormat::Deb, name) => name,
        }
    }

    /// Release without the distribution tag: `1919579` of `1919579.el7`.
    pub fn build_number(&self) -> &str {
        self.release.split_once('.').map_or(self.release.as_str(), |(number, _)| number)
    }

    /// Distribution tag of the release: `el7` of `1919579.el7`. Empty if it has none.
    pub fn operating_system(&self) -> &str {
        self.release.split_once('.').map_or("", |(_, tag)| tag)
    }

    /// OCP's version of a proxy: `1.9.1.1-1919579`.
    pub fn version_build(&self) -> String {
        format!("{}-{}", self.version, self.build_number())
    }

    /// OCP's short name of a package: `obproxy-1.9.1.1-1919579`.
    pub fn short_name(&self) -> String {
        format!("{}-{}", self.name, self.version_build())
    }

    /// `obproxy-1.9.1.1-1919579.el7.x86_64.rpm`, `oblet-agent_0.1.0-2_amd64.deb`
    pub fn file_name(&self) -> String {
        match self.format {
            PackageFormat::Rpm => format!("{self}.rpm"),
            PackageFormat::Deb => self.to_string(),
        }
    }
}

impl fmt::Display for PackageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, name, version, release, architecture } = self;
        match format {
            PackageFormat::Rpm => write!(f, "{name}-{version}-{release}.{architecture}"),
            // With its ending, by which it is read back as what it is.
            PackageFormat::Deb => write!(f, "{name}_{version}-{release}_{architecture}.deb"),
        }
    }
}

impl FromStr for PackageRef {
    type Err = InvalidValue;

    /// Parses `name-version-release.architecture`, with or without `.rpm`, and `name_version-release_architecture.deb`.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let shown: String = text.chars().take(160).collect();
        let wrong =
            || InvalidValue(format!("{shown:?} is not a package: expected name-version-release.architecture.rpm"));
        if let Some(stem) = text.strip_suffix(".deb") {
            let mut parts = stem.split('_');
            return match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(version), Some(architecture), None) => Self::deb(name, version, architecture),
                _ => Err(InvalidValue(format!(
                    "{shown:?} is not a package: expected name_version-release_architecture.deb"
                ))),
            };
        }
        let stem = text.strip_suffix(".rpm").unwrap_or(text);
        let (rest, architecture) = stem.rsplit_once('.').ok_or_else(wrong)?;
        let (rest, release) = rest.rsplit_once('-').ok_or_else(wrong)?;
        let (name, version) = rest.rsplit_once('-').ok_or_else(wrong)?;
        Self::new(name, version, release, architecture)
    }
}

impl TryFrom<String> for PackageRef {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<PackageRef> for String {
    fn from(package: PackageRef) -> Self {
        package.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_package_is_read_from_its_file_name() {
        let package: PackageRef = "obproxy-1.9.1.1-1919579.el7.x86_64.rpm".parse().unwrap();
        assert_eq!(package.name(), "obproxy");
        assert_eq!(package.version(), "1.9.1.1");
        assert_eq!(package.release(), "1919579.el7");
        assert_eq!(package.architecture(), "x86_64");
        assert_eq!(package.version_build(), "1.9.1.1-1919579");
        assert_eq!(package.short_name(), "obproxy-1.9.1.1-1919579");
        assert_eq!(package.file_name(), "obproxy-1.9.1.1-1919579.el7.x86_64.rpm");
        let dashed: PackageRef = "obproxy-ce-4.3.1.0-4.el7.aarch64".parse().unwrap();
        assert_eq!((dashed.name(), dashed.version()), ("obproxy-ce", "4.3.1.0"));
    }

    #[test]
    fn a_package_of_debian_is_read_from_its_file_name() {
        let package: PackageRef = "oblet-agent_0.1.0-2_amd64.deb".parse().unwrap();
        assert_eq!((package.name(), package.version(), package.release()), ("oblet-agent", "0.1.0", "2"));
        assert_eq!((package.architecture(), package.machine()), ("amd64", "x86_64"));
        assert_eq!(
            (package.format(), package.file_name().as_str()),
            (PackageFormat::Deb, "oblet-agent_0.1.0-2_amd64.deb")
        );
        assert_eq!(package.to_string().parse::<PackageRef>().unwrap(), package);
        for text in ["oblet-agent_0.1.0_amd64.deb", "a_1-1_x_y.deb", "../a_1-1_all.deb", "a_1:2-1_all.deb", ".deb"] {
            assert!(text.parse::<PackageRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for text in
            ["../x-1-1.x86_64.rpm", "a;b-1-1.noarch.rpm", "x-1-1", "", "-.rpm", "a/b-1-1.x86_64.rpm", "..-1-1.x"]
        {
            assert!(text.parse::<PackageRef>().is_err(), "{text}");
        }
        assert!("nc;reboot".parse::<CommandName>().is_err());
        assert!("../nc".parse::<CommandName>().is_err());
        assert!("a b".parse::<ClusterName>().is_err());
        assert!("x=1,y".parse::<ParameterName>().is_err());
        for port in [80, 1024, 65536, -1] {
            assert!(Port::try_from(port).is_err(), "{port}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(name in "[a-z][a-z0-9-]{0,8}[a-z]", version in "[0-9]{1,3}(\\.[0-9]{1,3}){0,3}", release in "[0-9]{1,6}(\\.el[789])?") {
            let package = PackageRef::new(&name, &version, &release, "x86_64").unwrap();
            prop_assert_eq!(package.file_name().parse::<PackageRef>().unwrap(), package);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = text.parse::<PackageRef>();
        }
    }
}
