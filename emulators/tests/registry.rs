//! The table of emulators and the tree of sources say the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eci_fs_emulators::{DIRECTORIES, EMULATORS, Emulator, TUNABLES, tunable};

#[test]
fn ids_and_paths_are_given_once() {
    let files = EMULATORS
        .iter()
        .map(|emulator| (emulator.facts().id, emulator.facts().path));
    let directories = DIRECTORIES
        .iter()
        .map(|dir| (dir.facts().id, dir.facts().path));
    let all: Vec<_> = files.chain(directories).collect();
    let ids: BTreeSet<u16> = all.iter().map(|(id, _)| *id).collect();
    let paths: BTreeSet<&str> = all.iter().map(|(_, path)| *path).collect();
    assert_eq!(ids.len(), all.len());
    assert_eq!(paths.len(), all.len());
    assert!(ids.iter().all(|id| *id >= 16));
}

/// /proc/pressure/io is src/proc/pressure/io.rs.
fn source(path: &str) -> PathBuf {
    PathBuf::from(format!(
        "{}.rs",
        path.trim_start_matches('/').replace(['-', '.'], "_")
    ))
}

/// cpuN/topology/* in /sys/devices/system/cpu is cpu_n/topology.rs there; the views at the top are
/// file emulators, or in the mod.rs of the directory.
fn sources_of_views(path: &str, views: &[&str]) -> Vec<PathBuf> {
    let family = |name: &str| match name.strip_suffix('N') {
        Some(stem) => format!("{stem}_n"),
        None => name.to_owned(),
    };
    let source_of = |view: &&str| {
        let mut names = view.split('/');
        let (first, second) = (names.next()?, names.next()?);
        // policyN/*_cpus is policy_n.rs: the files of a family that has no other.
        Some(match second.strip_suffix('N') {
            Some(_) => format!("{path}/{first}/{}", family(second)),
            None => format!("{path}/{}/{second}", family(first)),
        })
    };
    views
        .iter()
        .filter_map(source_of)
        .map(|path| source(&path))
        .collect()
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

/// The source of the table of each directory that has tunables: /proc/sys/vm is src/proc/sys/vm.rs, or the mod.rs of
/// a folder of that name where there is one.
fn tables() -> impl Iterator<Item = PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    TUNABLES.iter().map(move |table| {
        let path = Path::new(table[0].facts().path).parent().unwrap();
        let path = path.to_str().unwrap();
        let folder = Path::new(path.trim_start_matches('/')).join("mod.rs");
        if root.join(&folder).exists() {
            folder
        } else {
            source(path)
        }
    })
}

#[test]
fn every_tunable_is_a_row_of_the_table_of_its_directory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (table, file) in TUNABLES.iter().zip(tables()) {
        let text = std::fs::read_to_string(root.join(&file))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let directory = Path::new(table[0].facts().path).parent();
        for row in *table {
            let path = row.facts().path;
            assert_eq!(Path::new(path).parent(), directory, "{path}");
            let quoted = format!("\"{path}\"");
            assert_eq!(
                text.matches(&quoted).count(),
                1,
                "{}: {path}",
                file.display()
            );
            assert!(row.facts().id >= 256, "{path}");
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
    let mut wanted: BTreeSet<PathBuf> = EMULATORS
        .iter()
        .filter(|emulator| tunable(emulator.facts().id).is_none())
        .map(|emulator| source(emulator.facts().path))
        .collect();
    wanted.extend(tables().filter(|path| path.file_name().unwrap() != "mod.rs"));
    for directory in DIRECTORIES {
        let facts = directory.facts();
        if directory.is_namespaced() {
            // Its table says what is in it.
            let path = root.join(source(facts.path));
            assert!(path.exists() || path.with_extension("").join("mod.rs").exists());
        } else if facts.views.is_empty() {
            wanted.insert(source(facts.path));
        } else {
            let path = facts.path.trim_start_matches('/');
            assert!(root.join(path).join("mod.rs").exists(), "{path}");
            wanted.extend(sources_of_views(path, facts.views));
        }
    }
    assert_eq!(found, wanted);
}

/// The sources of all views: those of the trees, and the mod.rs of directories.
#[test]
fn every_source_says_where_its_format_and_its_numbers_come_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    sources(&root.join("proc"), &root, &mut found);
    sources(&root.join("sys"), &root, &mut found);
    for path in found {
        let text = std::fs::read_to_string(root.join(&path)).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "mod.rs" || name.ends_with("_tests.rs") {
            continue;
        }
        for line in [
            "//! Format: ",
            "//! Virtual: ",
            "//! Passed through: ",
            "//! Invented: ",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{}: {line}", path.display());
        }
    }
    for emulator in EMULATORS {
        let facts = emulator.facts();
        assert!(
            !facts.source_v1.is_empty() && !facts.source_v2.is_empty(),
            "{}",
            facts.path
        );
    }
}
