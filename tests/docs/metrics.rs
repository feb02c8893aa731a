//! `docs/monitoring.md` lists every metric of both programs, and its alerts use no other.

use crate::{
    pages::{Page, code_spans},
    source::{root, sources},
};
use std::{collections::BTreeSet, fs};

/// Of the library `prometheus`, which both programs register under names of its own.
const OF_THE_PROCESS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

/// Whether a string of the code is the name of a metric: no other string of it begins so.
fn is_metric(text: &str) -> bool {
    (text.starts_with("oblet_") || text.starts_with("node_"))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn in_the_code() -> BTreeSet<String> {
    let mut names: BTreeSet<_> = OF_THE_PROCESS.map(str::to_owned).into();
    for source in sources() {
        let strings = source.code.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
        names.extend(strings.filter(|text| is_metric(text)).map(str::to_owned));
    }
    names
}

fn in_the_table() -> BTreeSet<String> {
    let rows = Page::read("docs/monitoring.md").table("metric", "type");
    let mut names = BTreeSet::new();
    for row in rows {
        // Labels stand in the same cell behind the name.
        let name = code_spans(&row[0]).first().cloned().unwrap_or_else(|| panic!("no metric in {row:?}"));
        assert!(names.insert(name.clone()), "{name} has two rows");
    }
    names
}

#[test]
fn every_metric_has_its_row() {
    assert_eq!(in_the_table(), in_the_code(), "docs/monitoring.md on the left, the code on the right");
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let text = fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let expressions: Vec<_> = text.lines().filter_map(|line| line.trim_start().strip_prefix("expr:")).collect();
    assert!(!expressions.is_empty());
    let known = in_the_code();
    for expression in expressions {
        for word in expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| is_metric(word)) {
            assert!(known.contains(word), "{word} in {expression}");
        }
    }
}
