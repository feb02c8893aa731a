//! The sources of the programs, read as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the library or of a program, without its tests and comments.
pub(crate) struct Source {
    /// The module of the library, or `bin`.
    pub(crate) room: String,
    /// The module that it is, such as `a::b`.
    pub(crate) module: String,
    /// Below `src`.
    pub(crate) path: String,
    pub(crate) code: String,
}

/// All sources below `src`.
pub(crate) fn sources() -> Vec<Source> {
    let src = root().join("src");
    let files = files_below(&src, "rs").into_iter().filter(|file| !is_test(file));
    files
        .map(|file| {
            let first = file.strip_prefix(&src).unwrap().components().next().unwrap();
            let room = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let path = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let module = path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
            Source { room, module, path, code: without_tests(&fs::read_to_string(&file).unwrap()) }
        })
        .collect()
}

/// Files of this extension, sorted.
pub(crate) fn files_below(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Whether a file of its own holds tests.
fn is_test(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || file.components().any(|part| part.as_os_str() == "tests")
}

/// Drops comments and every item behind `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.extend([line, "\n"]);
            continue;
        }
        let mut depth = 0_usize;
        for line in lines.by_ref() {
            let count = |brace: char| line.matches(brace).count();
            depth = (depth + count('{')).saturating_sub(count('}'));
            let attribute = line.trim_start().starts_with("#[");
            if depth == 0 && !attribute && line.trim_end().ends_with(['}', ';', ',']) {
                break;
            }
        }
    }
    code
}

#[test]
fn tests_are_no_part_of_the_sources() {
    let text = "use a;\n#[cfg(test)]\n#[path = \"x\"]\nmod tests;\n// crate::b\n#[cfg(test)]\nmod t {\n  fn f() {}\n}\nuse c;\n";
    assert_eq!(without_tests(text), "use a;\nuse c;\n");
}
