//! A strict reader of the Prometheus text format 0.0.4: is this what a scraper would accept?

use std::collections::HashSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub samples: usize,
    pub families: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Malformed {
    pub line: usize,
    pub problem: &'static str,
}

/// Counts what the text holds. An error names the first line that is wrong; a text without samples is wrong too.
pub fn check(text: &str) -> Result<Summary, Malformed> {
    let mut types = HashSet::new();
    let mut series = HashSet::new();
    let mut names = HashSet::new();
    let mut count = 0;
    for (index, line) in text.lines().enumerate() {
        count = index + 1;
        let at = |problem| Malformed { line: index + 1, problem };
        let line = line.trim_matches([' ', '\t']);
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(name) = check_comment(comment).map_err(at)?
                && !types.insert(name)
            {
                return Err(at("a second TYPE for the same name"));
            }
        } else if !line.is_empty() {
            let (key, name) = check_sample(line).map_err(at)?;
            names.insert(name);
            if !series.insert(key) {
                return Err(at("the same series twice"));
            }
        }
    }
    if series.is_empty() {
        return Err(Malformed { line: count, problem: "no sample" });
    }
    Ok(Summary { samples: series.len(), families: names.len() })
}

/// The name, if the comment is a TYPE.
fn check_comment(comment: &str) -> Result<Option<&str>, &'static str> {
    let mut words = comment.split([' ', '\t']).filter(|word| !word.is_empty());
    match words.next() {
        Some("HELP") => match words.next() {
            Some(name) if is_name(name, true) => Ok(None),
            _ => Err("HELP without a metric name"),
        },
        Some("TYPE") => match (words.next(), words.next(), words.next()) {
            (Some(name), Some("counter" | "gauge" | "histogram" | "summary" | "untyped"), None)
                if is_name(name, true) =>
            {
                Ok(Some(name))
            }
            _ => Err("TYPE without a metric name and a known type"),
        },
        _ => Ok(None),
    }
}

fn is_name(text: &str, colon: bool) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || (colon && c == ':');
    text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// The series (name and labels) and its name.
fn check_sample(line: &str) -> Result<(&str, &str), &'static str> {
    let end = line.find(['{', ' ', '\t']).ok_or("a sample without a value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("not a metric name");
    }
    if let Some(labels) = rest.strip_prefix('{') {
        rest = check_labels(labels)?;
    }
    let key = line.get(..line.len() - rest.len()).unwrap_or(line);
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let value = words.next().ok_or("a sample without a value")?;
    if !is_value(value) {
        return Err("not a number");
    }
    match (words.next(), words.next()) {
        (None, _) => {}
        (Some(time), None) if time.parse::<i64>().is_ok() => {}
        _ => return Err("not a timestamp in milliseconds"),
    }
    Ok((key.trim_end(), name))
}

/// Prometheus reads numbers with strconv.ParseFloat of Go: words in any case, no sign before NaN, nothing out of range.
/// obproxy prints `Nan` (M3).
fn is_value(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|value| match value {
        value if value.is_nan() => !text.starts_with(['+', '-']),
        value if value.is_infinite() => !text.contains(|c: char| c.is_ascii_digit()),
        _ => true,
    })
}

/// What follows the closing brace.
fn check_labels(mut rest: &str) -> Result<&str, &'static str> {
    let mut seen = HashSet::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once('=').ok_or("a label without a value")?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name, false) {
            return Err("not a label name");
        }
        if !seen.insert(name) {
            return Err("a label twice");
        }
        let quoted = after.trim_start_matches([' ', '\t']).strip_prefix('"').ok_or("a label value without quotes")?;
        rest = after_quote(quoted)?.trim_start_matches([' ', '\t']);
        rest = match rest.strip_prefix(',') {
            Some(after) => after,
            None if rest.starts_with('}') => rest,
            None => return Err("labels without a comma"),
        };
    }
}

fn after_quote(text: &str) -> Result<&str, &'static str> {
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => return Ok(characters.as_str()),
            '\\' if !matches!(characters.next(), Some('\\' | '"' | 'n')) => return Err("an unknown escape"),
            _ => {}
        }
    }
    Err("a label value without an end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_scraper_accepts_passes() {
        let text = "# HELP odp_x Requests.\n# TYPE odp_x counter\nodp_x{cluster=\"a\\\"b\",vip=\"\",} 3\nodp_x 4 1700000000000\n\n# note\ny -Inf\nz{ } 1e-3\n";
        assert_eq!(check(text), Ok(Summary { samples: 4, families: 3 }));
    }

    #[test]
    fn the_wrong_line_is_named() {
        for (text, line, problem) in [
            ("", 0, "no sample"),
            ("<html>\n", 1, "a sample without a value"),
            ("a 1\nb x", 2, "not a number"),
            ("a 1\na 1", 2, "the same series twice"),
            ("9a 1", 1, "not a metric name"),
            ("a{b=1} 1", 1, "a label value without quotes"),
            ("a{b=\"1\" c=\"2\"} 1", 1, "labels without a comma"),
            ("a{b=\"1\",b=\"2\"} 1", 1, "a label twice"),
            ("a{b=\"\\t\"} 1", 1, "an unknown escape"),
            ("a{b=\"1", 1, "a label value without an end"),
            ("# TYPE a thing\na 1", 1, "TYPE without a metric name and a known type"),
            ("# TYPE a gauge\n# TYPE a gauge\na 1", 2, "a second TYPE for the same name"),
            ("a 1 soon", 1, "not a timestamp in milliseconds"),
            ("a infinite", 1, "not a number"),
            ("a -NaN", 1, "not a number"),
            ("a 1e999", 1, "not a number"),
            ("a 0x1p-2", 1, "not a number"),
            ("a 1_000", 1, "not a number"),
        ] {
            assert_eq!(check(text), Err(Malformed { line, problem }), "{text}");
        }
    }

    #[test]
    fn the_metrics_of_an_obproxy_that_nobody_has_scraped_yet_pass() {
        let text = "# HELP exposer_transferred_bytes_total Transferred bytes to metrics services\n\
            # TYPE exposer_transferred_bytes_total counter\nexposer_transferred_bytes_total 0\n\
            # HELP exposer_scrapes_total Number of times metrics were scraped\n\
            # TYPE exposer_scrapes_total counter\nexposer_scrapes_total 0\n\
            # HELP exposer_request_latencies Latencies of serving scrape requests, in microseconds\n\
            # TYPE exposer_request_latencies summary\nexposer_request_latencies_count 0\n\
            exposer_request_latencies_sum 0\nexposer_request_latencies{quantile=\"0.5\"} Nan\n\
            exposer_request_latencies{quantile=\"0.9\"} Nan\nexposer_request_latencies{quantile=\"0.99\"} Nan\n";
        assert_eq!(text.len(), 618, "as measured");
        assert_eq!(check(text), Ok(Summary { samples: 7, families: 5 }));
    }

    #[test]
    fn numbers_may_be_spelled_as_a_scraper_reads_them() {
        for value in ["Nan", "nan", "NaN", "NAN", "Inf", "+inf", "-INF", "infinity", "-Infinity", "1.", ".5", "+1E-3"] {
            assert!(check(&format!("a {value}")).is_ok(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}") {
            let _ = check(&text);
        }

        #[test]
        fn no_likely_text_makes_it_panic(text in "[a#{}\", =\\\\\\n1é]{0,60}") {
            let _ = check(&text);
        }
    }
}
