//! That `CONFORMANCE.md` tells the truth: every rule has a test, every test of a rule is listed with it, and all listed
//! exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Folders of this repository in which rules are tested.
const FOLDERS: [&str; 4] = ["core/hls/src", "core/hls/tests", "tests/src", "tests/tests"];

/// By rule, as names of tests begin: `p4`, `r11`, `h2`, `mistake_3`.
type Tests = BTreeMap<String, BTreeSet<String>>;

fn every_rule() -> BTreeSet<String> {
    let numbered =
        |prefix: &'static str, last: u32| (1..=last).map(move |number| format!("{prefix}{number}"));
    numbered("p", 18)
        .chain(numbered("r", 11))
        .chain(numbered("h", 10))
        .chain(numbered("mistake_", 9))
        .collect()
}

/// The rules a test's name begins with: `r2_mistake_3_a_reload…` is about two.
fn rules_of(test: &str) -> Vec<String> {
    let (mut rules, mut rest) = (Vec::new(), test);
    loop {
        let (letters, number) = match rest.strip_prefix("mistake_") {
            Some(number) => ("mistake_", number),
            None => rest.split_at(usize::from(rest.starts_with(['p', 'r', 'h']))),
        };
        match number.split_once('_') {
            Some((digits, after)) if !letters.is_empty() && digits.parse::<u32>().is_ok() => {
                rules.push(format!("{letters}{digits}"));
                rest = after;
            }
            _ => return rules,
        }
    }
}

fn written(folder: &Path, tests: &mut Tests) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            for function in
                source.split("fn ").skip(1).filter_map(|rest| rest.split_once("(").map(|(name, _)| name))
            {
                for rule in rules_of(function) {
                    tests.entry(rule).or_default().insert(function.to_owned());
                }
            }
        }
    }
}

/// The rows of the table: a rule first, tests between backticks last.
fn listed(document: &str) -> Tests {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    // Below the head and its rule.
    rows.skip(2)
        .map(|row| row.split(" | ").collect::<Vec<_>>())
        .map(|cells| {
            let tests = cells.last().unwrap().split('`').skip(1).step_by(2).map(str::to_owned);
            (cells[0].to_lowercase().replace(' ', "_"), tests.collect())
        })
        .collect()
}

#[test]
fn every_rule_has_a_test_and_every_test_of_a_rule_is_listed() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap();
    let mut tests = Tests::new();
    FOLDERS.iter().for_each(|folder| written(&root.join(folder), &mut tests));
    let listed = listed(&fs::read_to_string(here.join("CONFORMANCE.md")).unwrap());

    assert_eq!(tests.keys().cloned().collect::<BTreeSet<_>>(), every_rule());
    for rule in every_rule() {
        assert_eq!(listed.get(&rule), tests.get(&rule), "{rule} in CONFORMANCE.md, and as written");
    }
    assert_eq!(listed.len(), tests.len(), "a rule that nobody knows");
}

#[test]
fn a_name_tells_its_rules() {
    let rules = |name| rules_of(name).join(" ");
    assert_eq!(rules("p4_no_part_is_too_long"), "p4");
    assert_eq!(rules("r2_mistake_3_h10_a_reload"), "r2 mistake_3 h10");
    for name in ["p_4", "part_4_is", "p4", "p4a_b", "mistake_of_others_3", "hold_3_times", "4_p"] {
        assert_eq!(rules(name), "", "{name}");
    }
}
