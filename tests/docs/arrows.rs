//! The table of rooms in `docs/architecture.md` shows exactly the dependencies that the code has.

use crate::{
    pages::{Page, code_spans},
    source::sources,
};
use std::collections::{BTreeMap, BTreeSet};

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The modules of the library that a file names: `crate::a::b`, `use crate::{a::b, c}`, in a program `oblet::`.
fn used(code: &str, library: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, path) in code.match_indices(library) {
        if code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[start + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// The first identifiers of the members of a group, up to its closing brace.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut begins) = (0_usize, Vec::new(), true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && !character.is_whitespace() => {
                names.extend(identifier(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_')?;
    (end > 0).then(|| text[..end].to_owned())
}

fn in_the_code() -> Arrows {
    let mut arrows = Arrows::new();
    for source in sources().iter().filter(|source| source.room != "lib") {
        let library = if source.room == "bin" { "oblet::" } else { "crate::" };
        arrows.entry(source.room.clone()).or_default().extend(used(&source.code, library));
    }
    for (room, uses) in &mut arrows {
        uses.remove(room);
    }
    arrows
}

fn in_the_table() -> Arrows {
    let page = Page::read("docs/architecture.md");
    let mut arrows = Arrows::new();
    for row in page.table("room", "uses") {
        let Some(room) = code_spans(&row[0]).first().and_then(|name| name.strip_prefix("src/").map(str::to_owned))
        else {
            continue;
        };
        let uses = code_spans(row.last().unwrap()).into_iter().collect();
        assert!(arrows.insert(room, uses).is_none(), "a room has two rows: {row:?}");
    }
    arrows
}

#[test]
fn architecture_shows_every_arrow_and_no_other() {
    let (code, table) = (in_the_code(), in_the_table());
    for (room, uses) in &code {
        let Some(allowed) = table.get(room) else { panic!("docs/architecture.md has no row for src/{room}: {uses:?}") };
        assert_eq!(uses, allowed, "src/{room} uses the left, its row in docs/architecture.md allows the right");
    }
    assert_eq!(table.keys().collect::<Vec<_>>(), code.keys().collect::<Vec<_>>());
}

#[test]
fn names_are_found_in_paths_and_groups() {
    let code = "use crate::{\n    a::{b, c::d},\n    e,\n};\nlet x = crate::f::g(); use mycrate::h;";
    assert_eq!(used(code, "crate::"), BTreeSet::from(["a", "e", "f"].map(str::to_owned)));
}
