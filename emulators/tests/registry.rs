//! The table of emulators and the tree of sources say the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eci_fs_emulators::EMULATORS;

#[test]
fn ids_and_paths_are_given_once() {
    let ids: BTreeSet<u16> = EMULATORS
        .iter()
        .map(|emulator| emulator.facts().id)
        .collect();
    let paths: BTreeSet<&str> = EMULATORS
        .iter()
        .map(|emulator| emulator.facts().path)
        .collect();
    assert_eq!(ids.len(), EMULATORS.len());
    assert_eq!(paths.len(), EMULATORS.len());
    assert!(ids.iter().all(|id| *id >= 16));
}

/// /proc/pressure/io is src/proc/pressure/io.rs.
fn source(path: &str) -> PathBuf {
    PathBuf::from(format!(
        "{}.rs",
        path.trim_start_matches('/').replace(['-', '.'], "_")
    ))
}

fn sources(dir: &Path, root: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, root, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_owned());
        }
    }
}

#[test]
fn the_tree_of_sources_mirrors_the_tree_of_views() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    sources(&root.join("proc"), &root, &mut found);
    sources(&root.join("sys"), &root, &mut found);
    found.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name != "mod.rs" && !name.ends_with("_tests.rs")
    });
    let wanted: BTreeSet<PathBuf> = EMULATORS
        .iter()
        .map(|emulator| source(emulator.facts().path))
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn every_emulator_says_where_its_format_and_its_numbers_come_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for emulator in EMULATORS {
        let facts = emulator.facts();
        let text = std::fs::read_to_string(root.join(source(facts.path))).unwrap();
        for line in [
            "//! Format: ",
            "//! Virtual: ",
            "//! Passed through: ",
            "//! Invented: ",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{}: {line}", facts.path);
        }
        assert!(
            !facts.source_v1.is_empty() && !facts.source_v2.is_empty(),
            "{}",
            facts.path
        );
    }
}
