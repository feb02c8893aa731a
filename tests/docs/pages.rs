//! Pages of the documentation: their tables, links and headings.

use crate::source::{files_below, root};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file.
pub(crate) struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    /// `path` is relative to the repository.
    pub(crate) fn read(path: impl AsRef<Path>) -> Self {
        let path = root().join(path);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// Cells of the rows below the one header that begins with `first` and has a column `other`.
    pub(crate) fn table(&self, first: &str, other: &str) -> Vec<Vec<String>> {
        let is_header = |line: &str| {
            let names = cells(line);
            names.first().is_some_and(|name| name == first) && names.iter().any(|name| name == other)
        };
        let mut headers = self.text.lines().enumerate().filter(|(_, line)| is_header(line));
        let Some((number, _)) = headers.next() else {
            panic!("{} has no table of {first} and {other}", self.path.display());
        };
        assert!(headers.next().is_none(), "{} has two tables of {first} and {other}", self.path.display());
        self.text.lines().skip(number + 2).take_while(|line| line.starts_with('|')).map(cells).collect()
    }

    /// Anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter_map(|line| line.strip_prefix('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
    }

    /// Targets of links, without those to other sites.
    fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for line in self.prose() {
            for part in line.split("](").skip(1) {
                let target = part.split(')').next().unwrap();
                if !target.contains("://") {
                    links.push(target.to_owned());
                }
            }
        }
        links
    }

    /// The lines outside of blocks of code.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
                return false;
            }
            !fenced
        })
    }
}

fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
        return Vec::new();
    };
    inner.split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The texts in `backticks`.
pub(crate) fn code_spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages: Vec<_> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    pages.extend(files_below(&root().join("docs"), "md"));
    let mut dead = Vec::new();
    for page in pages.iter().map(Page::read) {
        for link in page.links() {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => page.path.parent().unwrap().join(file),
            };
            let found = target.exists() && (heading.is_empty() || Page::read(&target).anchors().contains(heading));
            if !found {
                dead.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn a_page_has_cells_links_and_anchors() {
    let text = "# What it's for\n| a | b |\n|---|---|\n| `x` | [y](z.md#w) |\n\n```\n[no](link)\n```\n".to_owned();
    let page = Page { path: "page".into(), text };
    assert_eq!(page.table("a", "b"), [["`x`", "[y](z.md#w)"]]);
    assert_eq!(page.links(), ["z.md#w"]);
    assert!(page.anchors().contains("what-its-for"));
    assert_eq!(code_spans("`x` and `y`"), ["x", "y"]);
}
