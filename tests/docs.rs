//! What the documents say of options, statuses, statistics, log records and versions is what the
//! code says, and the commands, files and stages that they name exist.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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

/// The texts in code in the first column of the table after a heading, up to what varies in them.
fn texts_of_table(document: &str, heading: &str) -> Vec<String> {
    let text = read(document);
    let section = between(&text, heading, "\n## ");
    let texts: Vec<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|column| column.split('`').step_by(2))
        .map(|text| text.split(" '").next().unwrap().to_owned())
        .filter(|text| !text.is_empty())
        .collect();
    assert!(texts.len() > 10, "{document}: no table after '{heading}'");
    texts
}

#[test]
fn the_texts_of_the_table_of_tls_errors_are_those_of_the_code() {
    let code: String = ["tls/certificate_errors.rs", "tls/explain.rs", "failure.rs"]
        .iter()
        .map(|file| read(&format!("src/broker/rabbitmq/{file}")))
        .map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned())
        .collect();
    // A string goes on in the next line after a backslash.
    let code: Vec<&str> = code.split("\\\n").map(str::trim_start).collect();
    let code = code.concat();
    for text in texts_of_table("docs/recipes/tls.md", "## What the error says") {
        assert!(code.contains(&text), "no error says '{text}'");
    }
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
fn each_row_of_the_specification_names_tests_that_exist_or_says_why_there_is_none() {
    let page = read("docs/specification.md");
    let table = between(
        &page,
        "<!-- specification -->",
        "<!-- end of specification -->",
    );
    let tests = sources("tests/c/conformance", &["c"])
        + &sources("src/layer", &["rs"])
        + &sources("bindings/python/tests", &["py"]);
    let mut count = 0;
    for row in table.lines().skip(2) {
        let columns: Vec<_> = row.split(" |").collect();
        let [_, this_layer, names, ""] = columns[..] else {
            panic!("this row has not three columns: {row}");
        };
        let names: Vec<_> = names.split('`').skip(1).step_by(2).collect();
        assert!(
            !names.is_empty() || this_layer.trim_start().starts_with("No rule"),
            "this row names no test: {row}"
        );
        for name in names {
            let exists = ["CASE({}", "CASE_WHEN({}", "def {}(", "fn {}("]
                .iter()
                .any(|form| tests.contains(&form.replace("{}", name)));
            assert!(exists, "there is no test '{name}', which the page names");
            count += 1;
        }
    }
    assert!(
        count >= 60,
        "the tests of the table were not found: {count}"
    );
}

#[test]
fn the_header_and_the_changelog_have_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        read("include/channel_layer.h").contains(&format!("#define LAYER_VERSION \"{version}\""))
    );
    assert!(read("CHANGELOG.md").contains(&format!("## [{version}]")));
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

/// Every document, by its path from the root, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "corpus", "results"].contains(&name) {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 10, "the documents were not found");
    found
}

/// What stands in backticks or is set as code, line by line.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, block) in text.split("```").enumerate() {
        if at % 2 == 1 {
            found.extend(block.lines().skip(1).map(str::to_owned));
            continue;
        }
        found.extend(
            block
                .lines()
                .filter_map(|line| line.strip_prefix("    "))
                .map(str::to_owned),
        );
        let spans = block.split('`').skip(1).step_by(2);
        found.extend(spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    found
}

/// The words of each `make` in a line of code, those of its variables apart.
fn made(line: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let line = line.split(" #").next().unwrap();
    for command in line.split(['&', ';', '|']) {
        let mut words = command.split_whitespace();
        let first = words.find(|word| !word.contains('=') && *word != "$" && *word != "sudo");
        if first == Some("make") {
            let targets = words.filter(|word| {
                word.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            });
            found.push(targets.take(1).collect());
        }
    }
    found
}

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.', ' ']))
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target.trim())
        .collect();
    let mut count = 0;
    for (path, text) in documents() {
        for line in code(&text) {
            for target in made(&line).into_iter().flatten() {
                count += 1;
                assert!(
                    targets.contains(target),
                    "{} says 'make {target}', which is no target of the Makefile",
                    path.display()
                );
            }
        }
    }
    assert!(count > 20, "only {count} targets were found");
}

#[test]
fn every_stage_that_a_document_names_exists() {
    let script = read("tests/run.sh");
    let mut stages: BTreeSet<&str> = BTreeSet::new();
    for list in ["stages=(", "parts=("] {
        stages.extend(between(&script, list, ")").split_whitespace());
    }
    let mut count = 0;
    for (path, text) in documents() {
        for line in code(&text) {
            // With or without quotes; an ellipsis or a name in capitals stands for any.
            for named in line.split("STAGES=").skip(1) {
                let named = match named.strip_prefix('"') {
                    Some(rest) => rest.split('"').next().unwrap(),
                    None => named.split_whitespace().next().unwrap_or_default(),
                };
                for stage in named.split_whitespace().filter(|word| *word != "…") {
                    count += 1;
                    assert!(
                        stages.contains(stage),
                        "{} names a stage '{stage}', which tests/run.sh has not",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(count > 3, "only {count} stages were found");
}

/// Whether a word in backticks is the path of something in the tree, and not a pattern or a name.
fn is_path_in_tree(word: &str, folders: &BTreeSet<String>) -> bool {
    word.split_once('/')
        .is_some_and(|(first, _)| folders.contains(first))
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        // A part in capitals stands for any, as in `bindings/LANGUAGE/bench`.
        && !word.split('/').any(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase())
        })
}

#[test]
fn every_file_that_a_document_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders: BTreeSet<String> = folders().into_iter().chain([".ci".to_owned()]).collect();
    // What git ignores is there only at times.
    let ignored = read(".gitignore");
    let comes_and_goes = |path: &Path| {
        ignored
            .lines()
            .any(|line| line.starts_with('/') && path.starts_with(&line[1..]))
    };
    let (mut links, mut paths) = (0, 0);
    for (document, text) in documents() {
        let folder = root.join(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            // No target holds a blank: that is code, as of a lambda of C++.
            if link.contains("://") || link.starts_with('#') || link.contains(' ') {
                continue;
            }
            links += 1;
            let path = folder.join(link.split('#').next().unwrap());
            assert!(
                path.exists(),
                "{} links to {link}, which is not there",
                document.display()
            );
        }
        for word in code(&text).iter().flat_map(|line| line.split_whitespace()) {
            let word = word.trim_end_matches(['.', ',', ':']);
            if is_path_in_tree(word, &folders) && !comes_and_goes(Path::new(word)) {
                paths += 1;
                // From the root, or from where the document is.
                assert!(
                    root.join(word).exists() || folder.join(word).exists(),
                    "{} names {word}, which is not there",
                    document.display()
                );
            }
        }
    }
    assert!(
        links > 20 && paths > 40,
        "only {links} links and {paths} paths were found"
    );
}

/// The folders of the tree.
fn folders() -> Vec<String> {
    fs::read_dir(env!("CARGO_MANIFEST_DIR"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect()
}

#[test]
fn architecture_has_a_row_for_every_folder() {
    let text = read("ARCHITECTURE.md");
    let tree = between(&text, "## The tree", "\n## ");
    for folder in folders() {
        assert!(
            tree.contains(&format!("| `{folder}/` |")),
            "the table 'The tree' of ARCHITECTURE.md has no row for {folder}/"
        );
    }
}

#[test]
fn the_readers_of_documents_see_what_is_named() {
    let text = "Run `make demo HOST=x` or\n\n```sh\nCC=clang make lint # make it\n```\n\n    $ make fuzz\n";
    let code = code(text);
    let targets: Vec<&str> = code.iter().flat_map(|line| made(line)).flatten().collect();
    assert_eq!(targets, ["demo", "lint", "fuzz"]);
    let folders = BTreeSet::from(["src".to_owned()]);
    assert!(is_path_in_tree("src/no_such.rs", &folders));
    assert!(!is_path_in_tree("src/*.rs", &folders));
    assert!(!is_path_in_tree("src/MODULE/mod.rs", &folders));
    assert!(!is_path_in_tree("text/html", &folders));
}
