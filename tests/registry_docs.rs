//! Every optimizer has a page in `docs/algorithms`, which names its paper and lists its options as they are.

use std::{collections::BTreeSet, fs, path::Path};

use zofo::optim::{Entry, OptionSpec, REGISTRY};

/// The row of an option in the table of its page.
fn row(spec: &OptionSpec) -> String {
    let unit = if spec.unit.is_empty() { String::new() } else { format!("{} ", spec.unit) };
    format!("| `{}` | `{}` | {unit}| {} | {} |", spec.name, (spec.default)(), spec.expected, spec.about)
}

/// What a page lacks.
fn missing(entry: &Entry, page: &str) -> Vec<String> {
    let known = entry.options().map(row).filter(|row| !page.lines().any(|line| line == row));
    let paper = entry.paper.split_whitespace().find(|word| word.starts_with("arXiv:"));
    let paper = paper.filter(|paper| !page.contains(*paper)).map(str::to_owned);
    let sections = ["## Update", "## Options", "## When to use it", "## Cost"];
    let sections = sections.into_iter().filter(|section| !page.lines().any(|line| line == *section));
    known.chain(paper).chain(sections.map(str::to_owned)).collect()
}

/// Rows of options that the entry does not have, or not like this.
fn stale<'p>(entry: &Entry, page: &'p str) -> Vec<&'p str> {
    let known: BTreeSet<String> = entry.options().map(row).collect();
    let options =
        page.lines().skip_while(|line| *line != "## Options").skip(1).take_while(|line| !line.starts_with("## "));
    options.filter(|line| line.starts_with("| `") && !known.contains(*line)).collect()
}

#[test]
fn every_optimizer_has_a_page_that_lists_its_options_as_they_are() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/algorithms");
    for entry in REGISTRY {
        let path = pages.join(entry.name).with_extension("md");
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let missing = missing(entry, &page);
        assert!(missing.is_empty(), "{} lacks:\n{}", path.display(), missing.join("\n"));
        let stale = stale(entry, &page);
        assert!(stale.is_empty(), "{} has options that are not like this:\n{}", path.display(), stale.join("\n"));
    }
    let names: BTreeSet<_> = REGISTRY.iter().map(|entry| format!("{}.md", entry.name)).collect();
    for file in fs::read_dir(&pages).expect("a folder of pages") {
        let name = file.expect("a page").file_name().into_string().expect("a name");
        assert!(names.contains(&name), "{name} is the page of no optimizer");
    }
}

#[test]
fn what_a_page_lacks_or_has_too_much_is_named() {
    let entry = REGISTRY[0];
    let specs: Vec<_> = entry.options().collect();
    let table: String = specs[1..].iter().map(|spec| row(spec) + "\n").collect();
    let page = format!("# {}\n## Update\n## Options\n{table}| `none` | `0` | | 0 | Nothing. |\n## Cost\n", entry.name);
    let paper = entry.paper.split_whitespace().last().expect("an identifier").to_owned();
    assert_eq!(missing(entry, &page), [row(specs[0]), paper, "## When to use it".to_owned()]);
    assert_eq!(stale(entry, &page), ["| `none` | `0` | | 0 | Nothing. |"]);
}
