//! The rules of the house that no compiler checks: who may use whom, where `unsafe` may stand, how
//! long a file may be and what it may not be called.
//!
//! Sources are read as tokens, so comments and strings never count, and `crate::`, `super::` and
//! grouped `use` paths are resolved to the folder they reach. Every rule is a function from files to
//! findings, and is itself tested on snippets that break it.

#[path = "layering/reading.rs"]
mod reading;

use std::{fmt, fs, path::Path};

use reading::{Reading, tokens};

/// The floors, lowest first: a folder and the folders it may use. `ARCHITECTURE.md` gives the reasons.
const FLOORS: &[(&str, &[&str])] = &[
    ("simd", &[]),
    ("tensor", &[]),
    ("text", &[]),
    ("noise", &["simd"]),
    ("kernels", &["simd", "tensor"]),
    ("linalg", &["kernels", "tensor"]),
    ("direction", &["noise", "linalg", "kernels", "simd", "tensor"]),
    ("weights", &["direction", "noise", "tensor", "simd"]),
    ("optim", &["direction", "linalg", "kernels", "noise", "tensor"]),
    ("model", &["weights", "direction", "kernels", "tensor"]),
    ("task", &["text", "noise"]),
    ("journal", &["optim", "direction", "tensor"]),
    ("objective", &["model", "task", "direction", "noise", "kernels", "tensor"]),
    ("train", EVERYTHING_BELOW),
    ("compare", EVERYTHING_BELOW),
    ("cli", EVERYTHING_BELOW),
];
/// Stands for every earlier row of [`FLOORS`], and for `error.rs`, which names the errors of all floors.
const EVERYTHING_BELOW: &[&str] = &["error", "<below>"];
/// Files of `src/` itself: they see every floor, and `testing` may as well.
const ROOT_FILES: [&str; 3] = ["src/lib.rs", "src/main.rs", "src/error.rs"];
/// The only homes of `unsafe`: intrinsics behind a token, and the file mapping.
const UNSAFE_FILES: [&str; 4] =
    ["src/simd/avx2.rs", "src/simd/avx512.rs", "src/simd/neon.rs", "src/weights/mapping.rs"];
/// Not part of the program: calls other libraries that take raw pointers.
const FOREIGN_CALLS: &str = "benches/peers/matmul.rs";
const MAX_LINES: usize = 500;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "common", "types", "helpers", "misc"];

/// A source file, by its path from the repository root.
struct Source {
    path: String,
    text: String,
}

/// One broken rule.
struct Finding {
    path: String,
    line: usize,
    found: String,
    allowed: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: found {}; allowed: {}", self.path, self.line, self.found, self.allowed)
    }
}

impl Source {
    fn finding(&self, line: usize, found: impl Into<String>, allowed: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, found: found.into(), allowed: allowed.into() }
    }

    /// The module this file is: `src/kernels/twin/mod.rs` is `[kernels, twin]`, `src/lib.rs` is `[]`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        if ["lib", "main"].contains(&inner) { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
    }
}

// --- the rules ----------------------------------------------------------------------------------

/// A folder uses only the lower floors of its row, and `testing` is used by nothing but tests.
fn floors(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let in_src = || sources.iter().filter(|source| source.path.starts_with("src/"));
    let test_files: Vec<Vec<String>> = in_src().flat_map(test_only_files).collect();
    for source in in_src() {
        let (module, reading) = (source.module(), Reading::new(&source.text));
        let is_test_file = test_files.iter().any(|file| module.starts_with(file));
        let root_file = ROOT_FILES.contains(&source.path.as_str());
        let folder = module.first().map_or("", String::as_str);
        let Some(allowed) = allowed_floors(folder).or((root_file || folder == "testing").then(Vec::new)) else {
            findings.push(source.finding(
                1,
                format!("folder `{folder}`"),
                "the folders of FLOORS in tests/layering.rs",
            ));
            continue;
        };
        for (i, path) in reading.rooted_paths(&module) {
            let line = reading.tokens[i].line;
            let target = path.first().map_or("*", String::as_str);
            if target == "testing" {
                if folder != "testing" && !is_test_file && !reading.test_only[i] {
                    findings.push(source.finding(line, "`testing` in the program", "only under #[cfg(test)]"));
                }
            } else if !root_file && folder != "testing" && target != folder && !allowed.contains(&target) {
                let allowed = if allowed.is_empty() { "no other floor".to_owned() } else { allowed.join(", ") };
                findings.push(source.finding(line, format!("`{folder}` using `{target}`"), allowed));
            }
        }
        for i in 0..reading.tokens.len() {
            if root_file && reading.is(i, "mod") && reading.is(i + 1, "testing") && !reading.test_only[i] {
                let gate = "#[cfg(any(test, feature = \"testing\"))] mod testing";
                findings.push(source.finding(reading.tokens[i].line, "`mod testing` in every build", gate));
            }
        }
    }
    findings
}

/// The modules that `source` declares as `#[cfg(test)] mod name;`.
fn test_only_files(source: &Source) -> Vec<Vec<String>> {
    let reading = Reading::new(&source.text);
    (0..reading.tokens.len())
        .filter(|&i| reading.is(i, "mod") && reading.is(i + 2, ";") && reading.test_only[i])
        .map(|i| [source.module(), vec![reading.tokens[i + 1].text.clone()]].concat())
        .collect()
}

/// The floors `folder` may use, `None` if it is not in the table.
fn allowed_floors(folder: &str) -> Option<Vec<&'static str>> {
    let row = FLOORS.iter().position(|(name, _)| *name == folder)?;
    let below = FLOORS[..row].iter().map(|(name, _)| *name);
    let expand = |name: &&'static str| if *name == "<below>" { below.clone().collect() } else { vec![*name] };
    Some(FLOORS[row].1.iter().flat_map(expand).collect())
}

/// `unsafe` stands in its four files only.
fn unsafe_code(sources: &[Source]) -> Vec<Finding> {
    let allowed = |path: &str| UNSAFE_FILES.contains(&path) || path == FOREIGN_CALLS;
    let elsewhere = sources.iter().filter(|source| !allowed(&source.path));
    elsewhere
        .flat_map(|source| {
            let uses = tokens(&source.text).into_iter().filter(|token| token.text == "unsafe");
            uses.map(|token| source.finding(token.line, "`unsafe`", UNSAFE_FILES.join(", "))).collect::<Vec<_>>()
        })
        .collect()
}

/// No file is longer than [`MAX_LINES`], and none has a name that says nothing.
fn size_and_names(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            findings.push(source.finding(MAX_LINES + 1, format!("{lines} lines"), format!("at most {MAX_LINES}")));
        }
        for part in source.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                findings.push(source.finding(1, format!("the name `{part}`"), "a name that says what a reader finds"));
            }
        }
    }
    findings
}

// --- the repository -----------------------------------------------------------------------------

/// All Rust files below `folder`, build output aside, by path from the repository root.
fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").replace('\\', "/");
            sources.push(Source { path: name, text: fs::read_to_string(&path).expect("readable UTF-8") });
        }
    }
}

fn repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz", "examples"] {
        let folder = root.join(folder);
        if folder.is_dir() {
            collect(root, &folder, &mut sources);
        }
    }
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the walk found no src/lib.rs");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn every_folder_uses_only_the_floors_of_its_row() {
    assert_none(&floors(&repository()));
}

#[test]
fn unsafe_stands_in_four_files_only() {
    assert_none(&unsafe_code(&repository()));
}

#[test]
fn no_file_is_over_long_or_namelessly_named() {
    assert_none(&size_and_names(&repository()));
}

// --- the rules can fail -------------------------------------------------------------------------

fn findings(rule: fn(&[Source]) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<Source> =
        files.iter().map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() }).collect();
    rule(&sources).iter().map(ToString::to_string).collect()
}

#[test]
fn an_upward_use_is_found_in_every_spelling() {
    for (line, text) in [
        (1, "use crate::model::Spec;"),
        (1, "use crate::{simd::Isa, model::{self, Spec}};"),
        (2, "use crate::{\n    model as m,\n    simd::Isa};"),
        (2, "fn f() {\n    crate::model::run() }"),
        (1, "use super::super::model;"),
        (1, "mod inner { use super::super::super::model::X; }"),
        (1, "macro_rules! m { () => { $crate::model::X } }"),
        (1, "#[cfg(test)] mod tests { use crate::model; }"),
    ] {
        let found = findings(floors, &[("src/kernels/norm.rs", text)]);
        // The second spelling of a group reports each branch; all of them name `model`.
        assert!(!found.is_empty(), "{text}: nothing found");
        for message in found {
            let expected = format!("src/kernels/norm.rs:{line}: found `kernels` using `model`; allowed: simd, tensor");
            assert_eq!(message, expected, "{text}");
        }
    }
}

#[test]
fn allowed_uses_comments_strings_and_lifetimes_are_not_findings() {
    let text = r##"
        //! Uses [`crate::model`].
        use crate::{simd::{Isa, math}, tensor::MatRef};
        use super::{Context, super::simd::Simd};
        pub(crate) fn f<'crate_>(x: &'crate_ str) -> char { /* crate::model /* nested */ unsafe */ '"' }
        const S: &str = r#"crate::model::x "quoted" unsafe"#;
        #[cfg(test)]
        mod tests { use super::*; use crate::testing::strategies; }
    "##;
    assert_eq!(findings(floors, &[("src/kernels/norm.rs", text)]), [""; 0]);
    assert_eq!(findings(unsafe_code, &[("src/kernels/norm.rs", text)]), [""; 0]);
}

#[test]
fn the_top_floor_uses_everything_and_nothing_uses_the_top_floor() {
    let top = "use crate::{error::Error, journal, optim, simd, train};";
    assert_eq!(findings(floors, &[("src/cli/run.rs", top)]), [""; 0]);
    assert_eq!(findings(floors, &[("src/train/run.rs", "use crate::cli;")]).len(), 1);
    assert_eq!(findings(floors, &[("src/optim/mezo.rs", "use crate::model::Spec;")]).len(), 1);
    assert_eq!(findings(floors, &[("src/gadgets/mod.rs", "")]).len(), 1, "a folder that is not in the table");
    assert_eq!(findings(floors, &[("src/simd/mod.rs", "use crate::*;")]).len(), 1, "a glob of the root");
}

#[test]
fn testing_is_found_outside_tests_only() {
    let program = "fn f() {} use crate::testing::worlds;";
    assert_eq!(findings(floors, &[("src/optim/mod.rs", program)]).len(), 1);
    let wrongly_gated = "#[cfg(not(test))] use crate::testing::worlds;";
    assert_eq!(findings(floors, &[("src/optim/mod.rs", wrongly_gated)]).len(), 1);
    let test_file = [("src/optim/mod.rs", "#[cfg(test)] mod conformance;"), ("src/optim/conformance.rs", program)];
    assert_eq!(findings(floors, &test_file), [""; 0]);
    assert_eq!(findings(floors, &[("src/lib.rs", "pub mod testing;")]).len(), 1);
    let gated = "#[cfg(any(test, feature = \"testing\"))] pub mod testing;";
    assert_eq!(findings(floors, &[("src/lib.rs", gated)]), [""; 0]);
}

#[test]
fn unsafe_is_found_as_a_word_with_its_line() {
    let text = "#![deny(unsafe_code)]\nfn f() {\n    unsafe { g() }\n}";
    let message = &findings(unsafe_code, &[("src/kernels/norm.rs", text)])[0];
    assert!(message.starts_with("src/kernels/norm.rs:3: found `unsafe`; allowed: src/simd/avx2.rs"), "{message}");
    assert_eq!(findings(unsafe_code, &[("src/simd/neon.rs", text)]), [""; 0]);
    assert_eq!(findings(unsafe_code, &[("tests/cli.rs", text)]).len(), 1);
}

#[test]
fn long_files_and_empty_names_are_found() {
    let line = "fn f() {}\n";
    assert_eq!(findings(size_and_names, &[("src/simd/mod.rs", &line.repeat(MAX_LINES))]), [""; 0]);
    let message = &findings(size_and_names, &[("src/simd/mod.rs", &line.repeat(MAX_LINES + 1))])[0];
    assert_eq!(message, "src/simd/mod.rs:501: found 501 lines; allowed: at most 500");
    assert_eq!(findings(size_and_names, &[("tests/helpers/mod.rs", ""), ("src/types.rs", "")]).len(), 2);
}
