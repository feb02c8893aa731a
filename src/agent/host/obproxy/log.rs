//! Why an obproxy has failed, in its own words. Its exit code is 0 whatever happened (C3), and the reason stands in
//! `log/obproxy.log` alone (X3), which belongs to the run user.

use super::{super::beneath::Directory, redaction::without_hashes};
use crate::steps::ObproxyVersion;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

const NAME: &str = "obproxy.log";
/// A start that says much, with every parameter twice (D14), fits many times.
const LIMIT_BYTES: u64 = 4 << 20;
/// So many lines are shown of those that complain; all are searched.
const MOST_LINES: usize = 5;
const LONGEST_LINE: usize = 400;
/// What obproxy says when it has no metrics (L6).
const NO_METRICS: &str = "init prometheus";

/// The log of one start: what was written before is not of it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct LogOfStart {
    from: u64,
}

/// What the lines tell that speak of failures.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Complaints {
    /// A few of them, fit for a terminal.
    lines: Vec<String>,
    meaning: Option<&'static str>,
    /// The line that says that the metrics could not be offered.
    no_metrics: Option<String>,
}

impl LogOfStart {
    /// To be taken before the program starts. `dir` is the directory of the proxy.
    pub(super) fn begin(dir: &Path) -> Self {
        // A log that is not there yet begins at its beginning.
        let length = open(dir).and_then(|log| log.file(NAME)).and_then(|file| file.metadata());
        Self { from: length.map_or(0, |metadata| metadata.len()) }
    }

    pub(super) fn complaints(self, dir: &Path, version: ObproxyVersion) -> io::Result<Complaints> {
        let bytes = match open(dir).and_then(|log| log.read_end(NAME, self.from, LIMIT_BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Complaints::default()),
            read => read?,
        };
        Ok(Complaints::find(&String::from_utf8_lossy(&bytes), version))
    }
}

fn open(dir: &Path) -> io::Result<Directory> {
    Directory::open(dir)?.existing("log")
}

impl Complaints {
    /// Grave ones first, in the order in which they were written; the same words only once.
    fn find(text: &str, version: ObproxyVersion) -> Self {
        let of_level = |level: &str| {
            let mark = format!(" {level} ");
            text.lines().filter(move |line| line.contains(&mark))
        };
        let found: Vec<&str> = version.failure_levels.into_iter().flat_map(of_level).collect();
        // A start that has failed tells with which code at last (X3); before that, others may have failed that are harmless.
        let lethal = found.iter().filter(|line| line.contains("init failed")).find_map(|line| known(line));
        let telling = lethal.or_else(|| found.iter().find_map(|line| known(line)));
        let mut lines: Vec<String> = Vec::new();
        for words in found.iter().map(|line| words(line)).filter(|words| !words.is_empty()) {
            if lines.len() < MOST_LINES && !lines.contains(&words) {
                lines.push(words);
            }
        }
        // The one that tells why is shown whatever was said before it.
        if let Some(words) = telling.map(|(line, _)| words(line)).filter(|words| !lines.contains(words)) {
            lines.truncate(MOST_LINES - 1);
            lines.push(words);
        }
        let no_metrics = found.iter().find(|line| line.contains(NO_METRICS)).map(|line| words(line));
        Self { lines, meaning: telling.map(|(_, meaning)| meaning), no_metrics }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The port of the metrics could not be listened on; the proxy serves on without them (L6).
    pub(super) fn no_metrics(&self) -> Option<&str> {
        self.no_metrics.as_deref()
    }

    /// What the codes in these lines mean; none for codes that are not known.
    pub(super) fn meaning(&self) -> Option<&'static str> {
        self.meaning
    }
}

/// obproxy's codes for what keeps it from starting (C4, C5, C15 to C17, L4, L5).
fn meaning_of(code: i32) -> Option<&'static str> {
    match code {
        -4002 => Some("an argument is not valid"),
        -4016 => Some("a port is taken, or a value could not be saved"),
        -4104 => Some("the command line is not understood"),
        -4147 => Some("the value of a parameter is not valid, or it knows of no cluster"),
        _ => None,
    }
}

/// The line, if one of its codes is known.
fn known(line: &str) -> Option<(&str, &'static str)> {
    codes(line).find_map(meaning_of).map(|meaning| (line, meaning))
}

/// `ret=-4016` of a line, which may hold others such as `tmp_ret=-4018`.
fn codes(line: &str) -> impl Iterator<Item = i32> {
    line.match_indices("ret=").filter_map(|(at, name)| {
        let (before, rest) = (line.get(..at)?, line.get(at + name.len()..)?);
        if before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    })
}

/// What a line says behind its columns, fit for a terminal.
fn words(line: &str) -> String {
    // Columns stand in brackets: time, module, thread, trace, lag; the words follow the last of them.
    let told = line.split_once(" [dc=").and_then(|(_, rest)| rest.split_once("] "));
    let told = told.or_else(|| line.rsplit_once("] ")).map_or(line, |(_, words)| words);
    let told: String = without_hashes(told).chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect();
    told.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn version(text: &str) -> ObproxyVersion {
        ObproxyVersion::of(&format!("obproxy-{text}-1.el8.x86_64").parse().unwrap())
    }

    const LOG: &str = "\
[2026-11-21 12:00:00.000001] INFO  [PROXY] main (main.cpp:1) [7][Y0-0] [lt=0] [dc=0] begins\n\
[2026-11-21 12:00:00.000002] WDIAG [PROXY] start (a.cpp:1) [7][Y0-0] [lt=0] [dc=0] fail to init prometheus(ret=-4016)\n\
[2026-11-21 12:00:00.000003] EDIAG [PROXY] start (a.cpp:2) [7][Y0-0] [lt=0] [dc=0] fail to start \x1b[31mserver(ret=-4016)\n\
[2026-11-21 12:00:00.000004] EDIAG [PROXY] start (a.cpp:2) [7][Y0-0] [lt=0] [dc=0] fail to start \x1b[31mserver(ret=-4016)\n";

    #[test]
    fn grave_lines_come_first_and_mean_something() {
        let complaints = Complaints::find(LOG, version("4.3.1.0"));
        assert_eq!(complaints.lines()[1], "fail to init prometheus(ret=-4016)");
        assert!(complaints.lines()[0].ends_with("server(ret=-4016)") && !complaints.lines()[0].contains('\x1b'));
        assert_eq!(complaints.lines().len(), 2);
        assert_eq!(complaints.no_metrics(), Some("fail to init prometheus(ret=-4016)"));
        assert_eq!(complaints.meaning(), Some("a port is taken, or a value could not be saved"));
        assert!(Complaints::find(LOG, version("3.2.0")).is_empty(), "older versions have other levels");
    }

    #[test]
    fn only_what_this_start_has_written_counts() {
        let dir = tempfile::tempdir().unwrap();
        let start = LogOfStart::begin(dir.path());
        assert!(start.complaints(dir.path(), version("4.3.1.0")).unwrap().is_empty());
        fs::create_dir(dir.path().join("log")).unwrap();
        let log = dir.path().join("log/obproxy.log");
        fs::write(&log, LOG).unwrap();
        assert_eq!(start.complaints(dir.path(), version("4.3.1.0")).unwrap().lines().len(), 2);
        let later = LogOfStart::begin(dir.path());
        assert!(later.complaints(dir.path(), version("4.3.1.0")).unwrap().is_empty());
        fs::write(&log, LOG.lines().nth(2).unwrap()).unwrap();
        assert_eq!(
            later.complaints(dir.path(), version("4.3.1.0")).unwrap().lines().len(),
            1,
            "the log was begun anew"
        );
    }

    #[test]
    fn a_noisy_start_hides_neither_the_lethal_code_nor_the_missing_metrics() {
        let mut log = String::new();
        for (number, level) in (0..2000).zip(["EDIAG", "WDIAG"].into_iter().cycle()) {
            log += &format!(
                "[t] {level} [PROXY] f (a.cpp:1) [7][Y0-0] [lt=0] [dc=0] step {number} in [x] failed(ret=-4018)\n"
            );
        }
        log += "[t] EDIAG [PROXY] f (a.cpp:1) [7][Y0-0] [lt=0] [dc=0] harmless(tmp_ret=-4002, ret=-4016)\n";
        log += "[t] WDIAG [PROXY] f (a.cpp:1) [7][Y0-0] [lt=0] [dc=0] fail to init prometheus(ret=-4016)\n";
        log += "[t] EDIAG [PROXY] f (a.cpp:1) [7][Y0-0] [lt=0] [dc=0] obproxy init failed(ret=-4147)\n";
        let complaints = Complaints::find(&log, version("4.3.1.0"));
        assert_eq!(complaints.meaning(), meaning_of(-4147));
        assert_eq!(complaints.no_metrics(), Some("fail to init prometheus(ret=-4016)"));
        assert_eq!(complaints.lines().len(), MOST_LINES);
        assert_eq!(complaints.lines()[0], "step 0 in [x] failed(ret=-4018)");
        assert_eq!(complaints.lines()[4], "obproxy init failed(ret=-4147)");
    }

    #[test]
    fn a_complaint_holds_no_hash() {
        let hash = "7c4a8d09ca3762af61e59520943dc26494f8941b";
        let log =
            format!("[t] EDIAG [PROXY] f [dc=0] invalid config(name=obproxy_sys_password, value={hash}, ret=-4147)\n");
        let complaints = Complaints::find(&log, version("4.3.1.0"));
        assert_eq!(complaints.lines(), ["invalid config(name=obproxy_sys_password, value=***, ret=-4147)"]);
    }

    #[test]
    fn a_code_is_read_wherever_it_stands() {
        let code = |line: &str| codes(line).next();
        assert_eq!(code("x(ret=-4147), y"), Some(-4147));
        assert_eq!(code("x(tmp_ret=-4018, ret=-4016, ret=-4147)"), Some(-4016));
        assert_eq!(code("ret=abc"), None);
        assert_eq!(code("nothing"), None);
    }
}
