//! The tables of files agree with the tree of sources.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eci_fs_emulators::registry::{self, VIEWS};
use eci_fs_emulators::{DIRECTORIES, EMULATORS, TUNABLES, Tunable, tunable};

#[test]
fn ids_and_paths_are_given_once() {
    let files = EMULATORS
        .iter()
        .map(|emulator| (emulator.facts().id, emulator.facts().path));
    let directories = DIRECTORIES
        .iter()
        .map(|dir| (dir.facts().id, dir.facts().path));
    let all: Vec<_> = files.chain(directories).collect();
    let paths: BTreeSet<&str> = all.iter().map(|(_, path)| *path).collect();
    assert_eq!(paths.len(), all.len());
    let ids: BTreeSet<u16> = all.iter().map(|(id, _)| *id).collect();
    let is_free = |id: u16, path: &str| {
        let mut others = all.iter().filter(|(_, other)| *other != path);
        id >= 16 && others.all(|(other, _)| *other != id)
    };
    let wrong: Vec<String> = all
        .iter()
        .filter(|(id, path)| !is_free(*id, path))
        .map(|(id, path)| {
            let next = next_free(path, &ids);
            format!("{path} has the id {id}: the next free one is {next}")
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(ids.len(), all.len());
}

/// Returns the next free id for a file. For a tunable it follows the highest of its table. Ids of views are below
/// 128, those of directories below 256.
fn next_free(path: &str, ids: &BTreeSet<u16>) -> u16 {
    let table = TUNABLES
        .iter()
        .find(|table| table.iter().any(|row| row.path() == path));
    let is_directory = DIRECTORIES.iter().any(|dir| dir.facts().path == path);
    let (from, to) = match table {
        Some(table) => {
            let of_table = table.iter().map(Tunable::id).filter(|id| *id >= 256);
            (of_table.max().unwrap_or(255) + 1, u16::MAX)
        }
        None if is_directory => (128, 256),
        None => (16, 128),
    };
    (from..to).find(|id| !ids.contains(id)).unwrap()
}

#[test]
fn a_file_is_found_by_its_id() {
    for (at, emulator) in EMULATORS.iter().enumerate() {
        let id = emulator.facts().id;
        assert_eq!(registry::index(id), Some(at));
        assert_eq!(
            tunable(id).map(Tunable::path),
            emulator.tunable().map(|_| emulator.facts().path)
        );
    }
    for id in [0, 15, 127, 128, 255, u16::MAX] {
        assert_eq!(registry::index(id), None, "{id}");
    }
}

/// Returns the source of a view. That of /proc/uptime is src/proc/uptime.rs, or else a row with this path in
/// src/proc/mod.rs.
fn source_of_view(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = source(path);
    match root.join(&file).exists() {
        true => file,
        false => folder_of(path),
    }
}

/// Returns the mod.rs of the directory of a path.
fn folder_of(path: &str) -> PathBuf {
    let directory = Path::new(path).parent().unwrap();
    Path::new(directory.to_str().unwrap().trim_start_matches('/')).join("mod.rs")
}

#[test]
fn every_view_has_a_file_of_its_name_or_a_row_in_its_directory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let views = VIEWS
        .iter()
        .copied()
        .flatten()
        .map(|view| view.facts().path);
    let empty = DIRECTORIES.iter().map(|dir| dir.facts());
    let empty = empty.filter(|facts| facts.views.is_empty());
    for path in views.chain(empty.map(|facts| facts.path)) {
        let namespaced = DIRECTORIES
            .iter()
            .any(|dir| dir.facts().path == path && dir.is_namespaced());
        let file = match namespaced {
            // The files of a directory of /proc/sys/net are in the table of that directory.
            true => table(path),
            false => source_of_view(path),
        };
        let text = std::fs::read_to_string(root.join(&file))
            .unwrap_or_else(|error| panic!("{path} is in none of the tables: {error}"));
        let rows = text.matches(&format!("\"{path}\"")).count();
        let file_name = file.display();
        if file.ends_with("mod.rs") {
            assert_eq!(rows, 1, "{file_name}: {path}");
            continue;
        }
        assert!(rows >= 1, "{file_name}: {path}");
        // The table of the directory names the file.
        let name = file.file_stem().unwrap().to_str().unwrap();
        let folder = std::fs::read_to_string(root.join(folder_of(path))).unwrap();
        assert!(
            namespaced || folder.contains(&format!("{name}::VIEW")),
            "{path}"
        );
    }
}

/// Returns the file with the name of a view: src/proc/pressure/io.rs for /proc/pressure/io.
fn source(path: &str) -> PathBuf {
    PathBuf::from(format!(
        "{}.rs",
        path.trim_start_matches('/').replace(['-', '.'], "_")
    ))
}

/// Checks that the views of a directory have sources, and adds those that are files to `wanted`. For cpuN/topology/*
/// this is a file below cpu_n, or cpu_n/mod.rs names it. The views at the top are in the mod.rs of the directory.
fn check_views_of_directory(path: &str, views: &[&str], wanted: &mut BTreeSet<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = path.trim_start_matches('/');
    for view in views {
        let names: Vec<&str> = view.split('/').collect();
        let [first, second, ..] = names[..] else {
            continue;
        };
        let stem = |name: &str| match name.strip_suffix('N') {
            Some(stem) => format!("{stem}_n"),
            None => name.to_owned(),
        };
        // policyN/*_cpus is in policy_n.rs.
        let folder = format!("{path}/{}", stem(first));
        let file = source(&format!("{folder}/{}", stem(second)));
        if root.join(&file).exists() {
            wanted.insert(file);
        } else {
            let text = std::fs::read_to_string(root.join(&folder).join("mod.rs")).unwrap();
            assert!(text.contains(&format!("\"{second}\"")), "{folder}: {view}");
        }
    }
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

/// Returns the source of the table of a directory with tunables. For /proc/sys/vm this is src/proc/sys/vm/mod.rs if
/// it exists, else src/proc/sys/vm.rs.
fn table(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folder = Path::new(path.trim_start_matches('/')).join("mod.rs");
    match root.join(&folder).exists() {
        true => folder,
        false => source(path),
    }
}

fn tables() -> impl Iterator<Item = PathBuf> {
    TUNABLES.iter().map(|rows| {
        let path = Path::new(rows[0].facts().path).parent().unwrap();
        table(path.to_str().unwrap())
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
    let views = VIEWS.iter().copied().flatten();
    let mut wanted: BTreeSet<PathBuf> = views
        .map(|view| source_of_view(view.facts().path))
        .chain(tables())
        .filter(|path| path.file_name().unwrap() != "mod.rs")
        .collect();
    for directory in DIRECTORIES {
        let facts = directory.facts();
        if !facts.views.is_empty() {
            let path = facts.path.trim_start_matches('/');
            assert!(root.join(path).join("mod.rs").exists(), "{path}");
            check_views_of_directory(path, facts.views, &mut wanted);
        }
    }
    assert_eq!(found, wanted);
}

/// All sources below src/proc and src/sys except mod.rs have the four lines.
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
