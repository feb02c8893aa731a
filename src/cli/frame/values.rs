//! How values are written that several commands take.

use clap::builder::RangedI64ValueParser;
use std::time::Duration;

pub(crate) fn port() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

pub(crate) fn id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "an id is a whole number".to_owned())
}

/// What a cluster can be called; it stands in paths of the API.
pub(crate) fn cluster_name(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    match text.as_bytes() {
        [first, ..] if first.is_ascii_alphabetic() && text.len() <= 64 && text.bytes().all(is_part) => Ok(text.into()),
        _ => Err("a cluster name begins with a letter and has at most 64 letters, digits, '_', '-' or '.'".into()),
    }
}

/// What the coordinator takes as a key.
pub(crate) fn idempotency_key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=191 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.into()),
        _ => Err("a key has 1 to 191 visible ASCII characters".into()),
    }
}

/// Such as "1d", "90m" or "1h30m".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration such as 30m, 2h, 1d or 1h30m".to_owned();
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|char: char| char.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let mut units = after.chars();
        let unit = match units.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = units.as_str();
    }
    if seconds == 0 { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_cluster_is_one_part_of_a_path() {
        assert_eq!(cluster_name("ob_4.x-1"), Ok("ob_4.x-1".into()));
        for bad in ["", ".", "..", "../hosts", "a/b", "a%2fb", "a?dryRun=true", "4x", &"a".repeat(65)] {
            assert!(cluster_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_written_as_people_say_it() {
        for (text, seconds) in [("45s", 45), ("90m", 5400), ("1h30m", 5400), ("1d", 86_400), ("1d12h", 129_600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0s", "1", "h", "-1h", "soon", "1w", "1 h", "99999999999999999999s", "300000000000000d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
