//! What the documents say of options, statuses, statistics, log records and versions is what the
//! code says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use channel_layer::stats::Stat;
use channel_layer::{config, log, stats};

fn read(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The text between two markers of a document.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let text = text
        .split_once(start)
        .unwrap_or_else(|| panic!("there is no '{start}'"))
        .1;
    text.split_once(end)
        .unwrap_or_else(|| panic!("there is no '{end}'"))
        .0
        .trim()
}

/// That `document` has a table, between markers that name it, as the code makes it.
fn has_table(document: &str, name: &str, wanted: &str) {
    let text = read(document);
    let (start, end) = (
        format!("<!-- {name} -->"),
        format!("<!-- end of {name} -->"),
    );
    assert!(
        between(&text, &start, &end) == wanted.trim(),
        "the table of {name} in {document} is to be:\n\n{wanted}"
    );
}

#[test]
fn readme_has_the_table_of_options() {
    has_table("README.md", "options", &config::options_as_markdown());
}

#[test]
fn the_page_of_statistics_has_their_table() {
    has_table(
        "docs/statistics.md",
        "statistics",
        &stats::stats_as_markdown(),
    );
}

#[test]
fn the_page_of_log_records_has_their_table() {
    has_table(
        "docs/log-records.md",
        "log records",
        &log::records_as_markdown(),
    );
}

#[test]
fn the_header_says_of_each_statistic_what_the_table_says() {
    let header = read("include/channel_layer.h");
    let entries = between(&header, "enum layer_stat_t", "};");
    let mut meaning = String::new();
    let mut said = Vec::new();
    for line in entries.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("//") {
            meaning += text;
        } else if line.starts_with("LAYER_STAT_") {
            said.push(meaning.trim().to_owned());
            meaning.clear();
        }
    }
    let wanted: Vec<&str> = Stat::ALL.iter().map(|stat| stat.meaning()).collect();
    assert_eq!(said, wanted);
}

#[test]
fn the_guide_has_a_section_for_each_option() {
    let guide = read("docs/options.md");
    let mut sections: Vec<_> = guide.split("\n### ").skip(1).collect();
    for spec in config::options() {
        let wanted = spec.as_markdown();
        let heading = wanted.trim_start_matches("### ");
        let before = sections.len();
        sections.retain(|section| !format!("{section}\n").starts_with(heading));
        assert!(
            before - sections.len() == 1,
            "docs/options.md is to have, once:\n\n{wanted}"
        );
    }
    assert!(sections.is_empty(), "these are no options: {sections:?}");
}

#[test]
fn readme_explains_every_status_of_the_header() {
    let (readme, header) = (read("README.md"), read("include/channel_layer.h"));
    let statuses = between(&header, "enum layer_status_t", "};");
    let mut count = 0;
    for line in statuses.lines() {
        if let Some((name, _)) = line.trim().split_once(" = ")
            && name.starts_with("LAYER_")
        {
            count += 1;
            assert!(
                readme.contains(&format!("| `{name}` |")),
                "README.md has no row for {name}"
            );
        }
    }
    assert_eq!(count, 15, "the statuses of the header were not found");
}

/// All files below `folder` with one of the `endings`, one after the other.
fn sources(folder: &str, endings: &[&str]) -> String {
    let mut text = String::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|end| path.extension().is_some_and(|e| e == *end))
            {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn each_row_of_what_happens_when_names_tests_that_exist() {
    let readme = read("README.md");
    let table = between(
        &readme,
        "<!-- what happens when -->",
        "<!-- end of what happens when -->",
    );
    let tests = sources("tests", &["c", "py", "rs"]);
    let rows = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/faults/rows");
    let mut count = 0;
    for row in table.lines().skip(2) {
        let names = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<_> = names.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "this row names no test: {row}");
        for name in names {
            let exists = rows.join(format!("{name}.py")).exists()
                || ["CASE({}", "CASE_WHEN({}", "def {}(", "fn {}("]
                    .iter()
                    .any(|form| tests.contains(&form.replace("{}", name)));
            assert!(exists, "there is no test '{name}', which README.md names");
            count += 1;
        }
    }
    assert!(
        count >= 20,
        "the tests of the table were not found: {count}"
    );
}

#[test]
fn the_header_and_the_changelog_have_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        read("include/channel_layer.h").contains(&format!("#define LAYER_VERSION \"{version}\""))
    );
    assert!(read("CHANGELOG.md").contains(&format!("## {version}")));
}

#[test]
fn every_export_has_a_docstring_that_says_what_matters() {
    let header = read("include/channel_layer.h");
    let functions = header.split_once("extern \"C\" {").unwrap().1;
    let mut comment = String::new();
    let mut count = 0;
    for line in functions.lines() {
        if let Some(text) = line.strip_prefix("//") {
            comment.push_str(text);
            comment.push('\n');
        } else if line.trim().is_empty() || line.starts_with('#') {
            comment.clear();
        } else if !line.starts_with(' ')
            && let Some((before, _)) = line.split_once('(')
        {
            let name = before.rsplit([' ', '*']).next().unwrap();
            count += 1;
            // A twin refers to the function that it is the twin of.
            let refers = comment.contains("else as `layer_") || comment.contains("as in `layer_");
            for word in ["lock", "thread", "callback"] {
                assert!(
                    refers || comment.to_lowercase().contains(word),
                    "the docstring of {name} does not speak of '{word}'"
                );
            }
            comment.clear();
        }
    }
    assert!(
        count >= 40,
        "only {count} functions were found in the header"
    );
}
