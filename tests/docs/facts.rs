//! Code that leans on the behaviour of obproxy or observer names the fact, and the fact is there.

use crate::source::{files_below, root};
use std::{collections::BTreeSet, fs};

const PAGES: [&str; 2] = ["docs/facts/obproxy.md", "docs/facts/observer.md"];
const CODE: [&str; 4] =
    ["tests/standins/src", "src/agent/host/obproxy", "src/agent/host/metrics", "src/api/obproxy/config_service"];
/// Letters of the pages' sections.
const SECTIONS: &str = "CDLASMXHGVR";

/// `A11` and the like that stand alone.
fn ids(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-' && c != '.');
    let words = words.map(|word| word.trim_matches('.'));
    let is_id = |word: &&str| {
        let (section, number) = word.split_at_checked(1).unwrap_or_default();
        SECTIONS.contains(section) && number.parse::<u8>().is_ok() && word.len() > 1
    };
    words.filter(is_id).map(String::from).collect()
}

#[test]
fn every_fact_that_the_code_names_is_on_a_page() {
    let pages = PAGES.map(|page| fs::read_to_string(root().join(page)).unwrap());
    let heads =
        pages.iter().flat_map(|page| page.lines()).filter_map(|line| line.strip_prefix("- **")?.split_once("**"));
    let known: BTreeSet<String> = heads.map(|(id, _)| id.to_owned()).collect();
    assert!(known.len() > 80 && known == ids(&known.iter().cloned().collect::<Vec<_>>().join(" ")), "{known:?}");
    let mut cited = 0;
    for directory in CODE {
        for file in files_below(&root().join(directory), "rs") {
            let text = fs::read_to_string(&file).unwrap();
            let comments = text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment));
            for id in comments.flat_map(ids) {
                assert!(known.contains(&id), "{} names {id}, which none of {PAGES:?} has", file.display());
                cited += 1;
            }
        }
    }
    assert!(cited > 100, "only {cited} facts are named");
}

#[test]
fn ids_are_found_in_comments() {
    assert_eq!(ids(" S3, S25; C15 to C17 (A11). UTF-8, EL7, X, D, 4.3"), ids("S3 S25 C15 C17 A11"));
}
