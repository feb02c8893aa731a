//! No file of the sources imports another in a circle, and no folder holds more files than one looks through.

use crate::source::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};

const MOST_FILES: usize = 20;

/// Files by module, such as `a::b` for `src/a/b.rs` and for `src/a/b/mod.rs`.
fn modules(sources: &[Source]) -> BTreeMap<&str, &Source> {
    sources.iter().filter(|source| source.room != "bin").map(|source| (source.module.as_str(), source)).collect()
}

/// The paths of a `use` tree, or of an expression, that begins here.
fn paths(tree: &str) -> Vec<String> {
    let head_end = tree.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(tree.len());
    let (head, rest) = tree.split_at(head_end);
    let Some(group) = rest.strip_prefix('{').filter(|_| head.ends_with("::")) else {
        return vec![head.trim_end_matches(':').to_owned()];
    };
    let (mut depth, mut begin, mut found) = (0_usize, 0, Vec::new());
    for (at, character) in group.char_indices() {
        let ends = depth == 0 && matches!(character, ',' | '}');
        if ends {
            let member = group[begin..at].trim();
            if !member.is_empty() {
                found.extend(paths(member).into_iter().map(|path| format!("{head}{path}")));
            }
            begin = at + 1;
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// Where a path leads: the longest beginning that is a module.
fn module_of<'a>(path: &str, known: &BTreeMap<&'a str, &Source>) -> Option<&'a str> {
    let mut path = path;
    loop {
        if let Some((module, _)) = known.get_key_value(path) {
            return Some(module);
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// The modules that a file names by `crate::` and `super::`.
fn named<'a>(source: &Source, known: &BTreeMap<&'a str, &Source>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let code = &source.code;
    for root in ["crate::", "super::"] {
        for (start, _) in code.match_indices(root) {
            if code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
                continue;
            }
            for path in paths(&code[start..]) {
                let (mut base, mut rest) = (source.module.as_str(), path.as_str());
                while let Some(further) = rest.strip_prefix("super::") {
                    base = base.rsplit_once("::").map_or("", |(parent, _)| parent);
                    rest = further;
                }
                let full = match rest.strip_prefix("crate::") {
                    Some(path) => path.to_owned(),
                    None => format!("{base}::{rest}"),
                };
                found.extend(module_of(full.trim_start_matches(':'), known));
            }
        }
    }
    // A folder's face hands on what is below it, so those below may name it.
    found.retain(|module| *module != source.module && !source.module.starts_with(&format!("{module}::")));
    found
}

/// A circle that begins and ends at a module, if there is one.
fn circle<'a>(start: &'a str, arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        for next in &arrows[way.last().unwrap()] {
            let mut longer = way.clone();
            longer.push(next);
            if *next == start {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push(longer);
            }
        }
    }
    None
}

#[test]
fn no_file_imports_another_in_a_circle() {
    let sources = sources();
    let known = modules(&sources);
    let arrows: BTreeMap<&str, BTreeSet<&str>> =
        known.iter().map(|(module, source)| (*module, named(source, &known))).collect();
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 300, "the arrows are not found: {arrows:?}");
    for module in known.keys() {
        // The contract's code and the steps know each other: docs/architecture.md.
        if let Some(way) = circle(module, &arrows).filter(|way| !way.contains(&"rpc::status")) {
            panic!("a circle: {}", way.join(" -> "));
        }
    }
}

#[test]
fn no_folder_holds_more_files_than_one_looks_through() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources() {
        let folder = source.path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
        *folders.entry(folder).or_default() += 1;
    }
    for (folder, files) in folders {
        assert!(files <= MOST_FILES, "{folder} holds {files} files");
    }
}

#[test]
fn a_tree_is_taken_apart() {
    let tree = "crate::{\n    a::{b, c::{D, e as f}},\n    g,\n};\nuse crate::h;";
    assert_eq!(paths(tree), ["crate::a::b", "crate::a::c::D", "crate::a::c::e", "crate::g"]);
    assert_eq!(paths("super::x::y(1)"), ["super::x::y"]);
}
