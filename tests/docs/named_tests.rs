//! Every test that a page names as its evidence exists under that name.

use crate::source::{files_below, root};
use std::{collections::BTreeSet, fs};

/// Pages, and the headings of the columns that name tests.
const PAGES: [&str; 2] = ["docs/security.md", "docs/durability.md"];

/// Paths of modules and functions below `src` and `tests`, such as `api::guesses::a_page_of_another_site_changes_nothing`.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for room in ["src", "tests"] {
        for file in files_below(&root().join(room), "rs") {
            let path = file.strip_prefix(root().join(room)).unwrap().to_str().unwrap().replace('/', "::");
            let path = path.trim_end_matches(".rs").trim_end_matches("::mod").trim_end_matches("::main");
            let text = fs::read_to_string(&file).unwrap();
            let mut module = path.to_owned();
            names.insert(module.clone());
            for line in text.lines() {
                if line.starts_with("mod tests {") {
                    module = format!("{path}::tests");
                    names.insert(module.clone());
                }
                if let Some(name) = function(line) {
                    names.insert(format!("{module}::{name}"));
                }
            }
        }
    }
    names
}

fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
    rest.split(['(', '<']).next()
}

fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Spans that can only be tests: paths of Rust, files of tests, and whatever stands in a column of tests.
fn named(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut column = None;
    let mut found = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        match line.starts_with('|') {
            false => column = None,
            true if column.is_none() => column = Some(cells.iter().position(|cell| ["test", "tests"].contains(cell))),
            true => {
                let tests = column.flatten().and_then(|column| cells.get(column)).into_iter();
                found.extend(tests.flat_map(|cell| spans(cell)).map(ToOwned::to_owned));
            }
        }
        found.extend(spans(line).filter(|span| span.contains("::")).map(ToOwned::to_owned));
        found.extend(spans(line).filter(|span| span.starts_with("tests/")).map(ToOwned::to_owned));
    }
    found
}

fn exists(names: &BTreeSet<String>, span: &str) -> bool {
    if let Some(target) = span.strip_prefix("make ") {
        let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
        let target = target.split(' ').next().unwrap();
        return makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    }
    if span.starts_with("tests/") {
        return root().join(span).exists() || root().join(format!("{span}.rs")).exists();
    }
    let end = format!("::{span}");
    names.iter().any(|name| name == span || name.ends_with(&end))
}

#[test]
fn every_test_that_a_page_names_exists() {
    let names = names();
    for page in PAGES {
        let named = named(page);
        assert!(named.len() >= 15, "{page}: {named:?}");
        let absent: Vec<_> = named.iter().filter(|span| !exists(&names, span)).collect();
        assert!(absent.is_empty(), "{page} names tests that do not exist: {absent:#?}");
    }
}

#[test]
fn a_test_that_was_renamed_is_found() {
    let names = names();
    assert!(exists(&names, "beneath::tests::a_swapper_gets_at_nothing_of_root"));
    for stale in ["api::guard::tests", "beneath::tests::a_swapper", "tests/end_to_end/gone.rs", "make nothing"] {
        assert!(!exists(&names, stale), "{stale}");
    }
}
