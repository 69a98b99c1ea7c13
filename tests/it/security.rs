//! docs/security.md names the tests that hold what it says: each is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all test functions below `directory`, of Rust and of Python.
fn tests(directory: &Path, found: &mut BTreeSet<String>) {
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let name = |line: &str, begin: &str| {
            let rest = line.split_once(begin)?.1;
            Some(rest.split('(').next()?.trim().to_owned())
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => {
                for (place, line) in lines.iter().enumerate() {
                    let is_test = lines[..place]
                        .iter()
                        .rev()
                        .take_while(|line| line.starts_with("#["))
                        .any(|line| line.contains("test"));
                    found.extend(name(line, "fn ").filter(|_| is_test));
                }
            }
            Some("py") => found.extend(
                lines.iter().filter_map(|line| name(line, "def ")).filter(|name| name.starts_with("test_")),
            ),
            _ => {}
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in ["src", "tests"] {
        tests(&root.join(folder), &mut found);
    }
    let document = include_str!("../../docs/security.md");
    // Tests alone are written so: whole words of lower case, joined, of five words or more.
    let named = document.split('`').skip(1).step_by(2).filter(|word| {
        word.matches('_').count() >= 4
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    });
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    let missing: Vec<_> = named.difference(&found).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:?}");
    assert!(named.len() > 30, "{}", named.len());
    // Each threat says how it is met or that it is not, and by which test.
    let (_, table) = document.split_once("## Threats").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| **")).collect();
    assert!(rows.len() >= 12, "{}", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}
