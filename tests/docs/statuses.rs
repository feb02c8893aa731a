//! `docs/monitoring.md` explains every status and operation that the API shows.

use crate::{
    pages::{Page, code_spans},
    source::sources,
};
use std::collections::BTreeSet;

/// The texts of an enumeration that `wire_enum!` defines.
fn texts_of(name: &str) -> BTreeSet<String> {
    let heads = [format!("    {name} {{"), format!("enum {name} {{")];
    for source in sources() {
        let Some(start) = heads.iter().find_map(|head| source.code.find(head)) else { continue };
        let body = source.code[start..].split('}').next().unwrap();
        let texts: BTreeSet<_> =
            body.split("=> \"").skip(1).map(|part| part.split('"').next().unwrap().to_owned()).collect();
        if !texts.is_empty() {
            return texts;
        }
    }
    panic!("{name} is not in the code");
}

#[test]
fn every_status_is_explained() {
    for (column, name) in [
        ("host", "HostStatus"),
        ("obproxy", "ObproxyStatus"),
        ("task", "TaskStatus"),
        ("subtask", "SubtaskStatus"),
        ("operation", "Operation"),
        ("certificate", "CertificateStatus"),
        ("token", "TokenStatus"),
    ] {
        let rows = Page::read("docs/monitoring.md").table(column, "meaning");
        let explained: BTreeSet<_> = rows.iter().flat_map(|row| code_spans(&row[0])).collect();
        let unexplained: Vec<_> = texts_of(name).into_iter().filter(|text| !explained.contains(text)).collect();
        assert!(unexplained.is_empty(), "{name}: docs/monitoring.md does not explain {unexplained:?}");
    }
}
