//! Types of configuration items: which values they take, and how they are shown.

/// Ranges are as `SHOW PROXYCONFIG` prints them: `[` and `]` include the bound, `(` and `)` leave it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int(&'static str),
    /// Bytes, with K, M, G or T.
    Capacity(&'static str),
    /// Microseconds, with us, ms, s, m, h or d.
    Time(&'static str),
    Text,
    Level,
    /// SHA-1 in hexadecimal.
    Password,
}

impl Kind {
    pub(super) fn range(self) -> &'static str {
        match self {
            Self::Int(range) | Self::Capacity(range) | Self::Time(range) => range,
            Self::Bool | Self::Text | Self::Level | Self::Password => "",
        }
    }

    /// The value as it is kept and shown; none if it is refused.
    pub(super) fn accept(self, value: &str, levels: &[&str]) -> Option<String> {
        let kept = || value.to_owned();
        match self {
            // S4; other spellings were not tried and are refused.
            Self::Bool => match value {
                "true" | "True" | "1" => Some("True".into()),
                "false" | "False" | "0" => Some("False".into()),
                _ => None,
            },
            Self::Int(range) => within(range, value, integer).then(kept),
            Self::Capacity(range) => within(range, value, bytes).then(kept),
            Self::Time(range) => within(range, value, microseconds).then(kept),
            Self::Level => levels_are_known(value, levels).then(kept),
            Self::Text | Self::Password => Some(kept()),
        }
    }
}

fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// A number without a unit counts bytes: silent in the facts, and it keeps `1` below 100MB (C15).
fn bytes(text: &str) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let plain = upper.strip_suffix('B').unwrap_or(&upper);
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((plain.strip_suffix(unit)?, shift)));
    match unit {
        Some((number, shift)) => whole(number)?.checked_mul(1 << shift),
        None => whole(&upper),
    }
}

/// A number without a unit counts microseconds (H6).
pub(super) fn microseconds(text: &str) -> Option<i64> {
    let units =
        [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
    let unit = units.iter().find_map(|(unit, factor)| Some((whole(text.strip_suffix(unit)?)?, factor)));
    match unit {
        Some((number, factor)) => number.checked_mul(*factor),
        None => text.parse().ok(),
    }
}

fn whole(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn within(range: &str, value: &str, read: fn(&str) -> Option<i64>) -> bool {
    let Some(value) = read(value) else { return false };
    let inner = range.trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    let (low, high) = inner.split_once(',').unwrap_or_default();
    let (above, below) = (i64::from(range.starts_with('(')), i64::from(range.ends_with(')')));
    read(low).is_none_or(|low| value >= low + above) && read(high).is_none_or(|high| value <= high - below)
}

/// A level, or a list of `module:level` with `module` or `module.submodule` before the colon.
fn levels_are_known(value: &str, levels: &[&str]) -> bool {
    let known = |level: &str| levels.contains(&level);
    let of_module = |part: &str| part.split_once(':').is_some_and(|(module, level)| !module.is_empty() && known(level));
    known(value) || value.split(',').all(of_module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(kind: Kind, value: &str) -> bool {
        kind.accept(value, &["INFO", "WDIAG"]).is_some()
    }

    #[test]
    fn ranges_are_kept() {
        let port = Kind::Int("(1024,65536)");
        assert!(takes(port, "1025") && takes(port, "65535"));
        assert!(!takes(port, "1024") && !takes(port, "65536") && !takes(port, "") && !takes(port, "12x"));
        assert!(takes(Kind::Int("[-1,]"), "70000") && !takes(Kind::Int("[-1,]"), "-2"));
        let memory = Kind::Capacity("[100MB,100G]");
        assert!(takes(memory, "100M") && takes(memory, "2g") && takes(memory, "100GB"));
        assert!(!takes(memory, "1") && !takes(memory, "101G") && !takes(memory, "-2G") && !takes(memory, "G"));
        let time = Kind::Time("[5s,1h]");
        assert!(takes(time, "5s") && takes(time, "60m") && takes(time, "5000000") && takes(time, "5000ms"));
        assert!(!takes(time, "1s") && !takes(time, "2h") && !takes(time, "5 s"));
    }

    #[test]
    fn switches_have_six_spellings() {
        assert_eq!(Kind::Bool.accept("1", &[]).as_deref(), Some("True"));
        assert_eq!(Kind::Bool.accept("false", &[]).as_deref(), Some("False"));
        for value in ["maybe", "on", "", "TRUE"] {
            assert!(!takes(Kind::Bool, value), "{value}");
        }
    }

    #[test]
    fn levels_may_be_those_of_modules() {
        assert!(takes(Kind::Level, "INFO") && takes(Kind::Level, "ALL.*:INFO,PROXY.SM:WDIAG"));
        assert!(!takes(Kind::Level, "LOUD") && !takes(Kind::Level, "PROXY:LOUD") && !takes(Kind::Level, ""));
    }
}
