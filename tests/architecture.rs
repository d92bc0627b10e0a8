//! The table of floors in ARCHITECTURE.md is how the code is: no import goes upwards, none in a
//! circle, and no file is without a row.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A row of the table: the files and folders that it names.
struct Row {
    places: Vec<String>,
}

impl Row {
    fn holds(&self, file: &str) -> bool {
        self.places.iter().any(|place| {
            file == place || (place.ends_with('/') && file.starts_with(place.as_str()))
        })
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<Row> = text
        .lines()
        .filter(|line| {
            line.strip_prefix("| ")
                .and_then(|line| line.chars().next())
                .is_some_and(|first| first.is_ascii_digit())
        })
        .map(|line| {
            let files = line.split('|').nth(2).unwrap();
            Row {
                places: files
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect(),
            }
        })
        .collect();
    assert!(rows.len() > 20, "the table of floors was not found");
    rows
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All source files by their name below `src`, without those that hold only tests.
fn files() -> BTreeMap<String, String> {
    let src = root().join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&src)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| !name.contains("tests") && !name.ends_with("testing.rs"))
        .collect()
}

/// The module that a file is, as ["layer", "inbox"].
fn module(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" {
        return Vec::new();
    }
    path.split('/').map(str::to_owned).collect()
}

/// The paths that a file names: after `crate::`, or `super::` and `self::` from its own place.
fn paths(file: &str, text: &str) -> Vec<Vec<String>> {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut found = Vec::new();
    for (start, base) in [("crate::", None), ("super::", Some(1)), ("self::", Some(0))] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut prefix = match base {
                None => Vec::new(),
                Some(up) => {
                    let own = module(file);
                    own[..own.len().saturating_sub(up)].to_vec()
                }
            };
            let mut rest = &code[at + start.len()..];
            while base == Some(1) && rest.starts_with("super::") {
                prefix.pop();
                rest = &rest["super::".len()..];
            }
            expand(&prefix, rest, &mut found);
        }
    }
    found
}

/// Reads one path of a `use`, with its braces; returns what follows it.
fn expand<'a>(prefix: &[String], text: &'a str, found: &mut Vec<Vec<String>>) -> &'a str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut path = prefix.to_vec();
    if !name.is_empty() {
        path.push(name.to_owned());
    }
    if !name.is_empty() && rest.starts_with("::") {
        return expand(&path, &rest[2..], found);
    }
    if name.is_empty() && rest.starts_with('{') {
        rest = &rest[1..];
        loop {
            rest = expand(&path, rest.trim_start(), found);
            // ` as name` and `*` are of no interest here.
            rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
            match rest.chars().next() {
                Some(',') => rest = &rest[1..],
                Some(_) => return &rest[1..],
                None => return rest,
            }
        }
    }
    if !name.is_empty() {
        found.push(path);
    }
    rest
}

/// The file in which the longest part of `path` is a module.
fn target(path: &[String], files: &BTreeMap<String, String>) -> Option<String> {
    (1..=path.len()).rev().find_map(|length| {
        let path = path[..length].join("/");
        [format!("{path}.rs"), format!("{path}/mod.rs")]
            .into_iter()
            .find(|file| files.contains_key(file))
    })
}

fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    files
        .iter()
        .map(|(file, text)| {
            let mut targets: BTreeSet<String> = paths(file, text)
                .iter()
                .filter_map(|path| target(path, &files))
                .collect();
            targets.remove(file);
            (file.clone(), targets)
        })
        .collect()
}

fn row_of(rows: &[Row], file: &str) -> usize {
    rows.iter()
        .position(|row| row.holds(file))
        .unwrap_or_else(|| panic!("src/{file} has no row in the table of ARCHITECTURE.md"))
}

#[test]
fn every_file_has_one_row_and_every_row_a_file() {
    let (rows, files) = (rows(), files());
    for file in files.keys() {
        let holding = rows.iter().filter(|row| row.holds(file)).count();
        assert_eq!(
            holding, 1,
            "src/{file} is in {holding} rows of ARCHITECTURE.md"
        );
    }
    for place in rows.iter().flat_map(|row| &row.places) {
        assert!(
            files
                .keys()
                .any(|file| file == place || file.starts_with(place.as_str())),
            "ARCHITECTURE.md names src/{place}, which is not there"
        );
    }
}

#[test]
fn no_import_goes_upwards() {
    let rows = rows();
    let mut upwards = Vec::new();
    let mut seen = 0;
    for (file, targets) in imports() {
        let own = row_of(&rows, &file);
        for target in targets {
            seen += 1;
            // A folder's mod.rs holds its files, in Rust; that is no import.
            if row_of(&rows, &target) > own {
                upwards.push(format!("src/{file} imports src/{target}"));
            }
        }
    }
    assert!(
        seen > 100,
        "only {seen} imports were found: the reader is broken"
    );
    assert!(upwards.is_empty(), "{}", upwards.join("\n"));
}

#[test]
fn no_imports_run_in_a_circle() {
    let imports = imports();
    let mut done = BTreeSet::new();
    let mut path = Vec::new();
    for file in imports.keys() {
        visit(file, &imports, &mut done, &mut path);
    }
}

fn visit(
    file: &str,
    imports: &BTreeMap<String, BTreeSet<String>>,
    done: &mut BTreeSet<String>,
    path: &mut Vec<String>,
) {
    if done.contains(file) {
        return;
    }
    assert!(
        !path.iter().any(|other| other == file),
        "a circle: {} -> {file}",
        path.join(" -> ")
    );
    path.push(file.to_owned());
    for target in &imports[file] {
        visit(target, imports, done, path);
    }
    path.pop();
    done.insert(file.to_owned());
}

#[test]
fn lapin_unsafe_and_locks_stay_where_they_belong() {
    for (file, text) in files() {
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        if !file.starts_with("broker/rabbitmq/") {
            assert!(!code.contains("lapin::"), "src/{file} knows lapin");
        }
        assert!(
            !code.contains("parking_lot::"),
            "src/{file} has a lock that a fork breaks"
        );
        let may = file.starts_with("ffi/") || file == "runtime.rs" || file.starts_with("runtime/");
        assert!(
            may || !code.contains("unsafe {"),
            "src/{file} has unsafe code"
        );
    }
}

#[test]
fn the_reader_of_imports_sees_an_import_upwards() {
    let text = "use crate::{error::Error, layer::{self, Layer as L}};\nuse super::super::ffi::x;";
    let found = paths("broker/rabbitmq/publisher.rs", text);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "error::Error",
            "layer::self",
            "layer::Layer",
            "broker::ffi::x"
        ]
    );
}

/// Exports that only hand out or free what a pointer leads to, and run nothing that can panic.
const UNGUARDED: [&str; 11] = [
    "layer_abi_version",
    "layer_error_free",
    "layer_error_message",
    "layer_error_status",
    "layer_message_channel",
    "layer_message_data",
    "layer_message_free",
    "layer_message_group",
    "layer_message_ref",
    "layer_status_name",
    "layer_version",
];

/// The functions that a file exports to C, and whether each runs in a guard from its first line.
fn exports(text: &str) -> Vec<(String, bool)> {
    text.split("#[unsafe(no_mangle)]\n")
        .skip(1)
        .map(|export| {
            let (signature, body) = export.split_once("{\n").unwrap();
            let (_, name) = signature.split_once("fn ").unwrap();
            let name = name.split('(').next().unwrap();
            let body = body.trim_start();
            let guarded = body.starts_with("guard(") || body.starts_with("guard_value(");
            (name.to_owned(), guarded)
        })
        .collect()
}

#[test]
fn every_export_catches_panics_unless_it_is_listed() {
    let exports: Vec<(String, bool)> = files()
        .iter()
        .filter(|(file, _)| file.starts_with("ffi/"))
        .flat_map(|(_, text)| exports(text))
        .collect();
    let header = fs::read_to_string(root().join("include/channel_layer.h")).unwrap();
    for (name, _) in &exports {
        assert!(header.contains(&format!("{name}(")), "{name} is no export");
    }
    assert!(exports.len() > 35, "only {} were found", exports.len());
    let unguarded: BTreeSet<&str> = exports
        .iter()
        .filter(|(_, guarded)| !guarded)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(unguarded, UNGUARDED.into());
}

#[test]
fn the_reader_of_exports_sees_which_is_guarded() {
    let text = "#[unsafe(no_mangle)]\n#[must_use]\npub extern \"C\" fn layer_a(\n    x: i32,\n) -> i32 {\n    \
                guard(error, || {\n#[unsafe(no_mangle)]\npub extern \"C\" fn layer_b() {\n    let x = \
                guard(error, || 1);\n}\n";
    let expected = [("layer_a".to_owned(), true), ("layer_b".to_owned(), false)];
    assert_eq!(exports(text), expected);
}
