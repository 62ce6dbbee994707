//! The modules of the crate depend on each other in one direction.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each module uses only those before it. Below `proc` and `sys` a file uses only files below itself: what two views
/// share is in `model`.
const ORDER: &str = "error text cpulist buffer limit_cache descriptor_cache host cgroup container context facts view model tunable \
                     emulator directory proc sys registry";

/// A source, and its module as names: src/proc/stat.rs is proc, stat.
struct Source {
    path: PathBuf,
    module: Vec<String>,
    text: String,
}

fn sources(dir: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, root, found);
            continue;
        }
        let relative = path.strip_prefix(root).unwrap().with_extension("");
        let names = relative.iter().map(|name| name.to_str().unwrap());
        // The tests of a source are in a file beside it.
        let module = names
            .filter(|name| *name != "mod")
            .map(|name| name.trim_end_matches("_tests").to_owned())
            .collect();
        let text = std::fs::read_to_string(&path).unwrap();
        found.push(Source { path, module, text });
    }
}

/// Returns the paths that follow `prefix` in a source, one for each name in braces. Comments are ignored.
fn paths(text: &str, prefix: &str) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | ':' | '$')) {
            expand(&code[at + prefix.len()..], &[], &mut found);
        }
    }
    found
}

/// Adds a::b::c and a::d to `found` for `a::{b::c, d}`. Returns the rest of the text.
fn expand<'a>(text: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = before.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(list) = rest.strip_prefix('{') {
            rest = list;
            loop {
                rest = expand(rest, &path, found).trim_start();
                match rest.strip_prefix(',') {
                    Some(more) if !more.trim_start().starts_with('}') => rest = more,
                    Some(more) => return more.trim_start().strip_prefix('}').unwrap(),
                    None => return rest.strip_prefix('}').unwrap_or(rest),
                }
            }
        }
        let length = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        path.push(rest[..length].to_owned());
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => {
                found.push(path);
                return rest;
            }
        }
    }
}

/// Returns the path of each name that lib.rs exports.
fn exports(lib: &str) -> BTreeMap<String, Vec<String>> {
    let lines = lib.split("pub use ").skip(1);
    let mut found = Vec::new();
    for line in lines {
        expand(line.split(';').next().unwrap(), &[], &mut found);
    }
    found
        .into_iter()
        .map(|path| (path.last().unwrap().clone(), path))
        .collect()
}

/// Returns the paths that a source uses, from the top of the crate.
fn used(source: &Source, exports: &BTreeMap<String, Vec<String>>) -> Vec<Vec<String>> {
    let mut used = Vec::new();
    for path in paths(&source.text, "crate::") {
        let is_module = ORDER.split_whitespace().any(|module| module == path[0]);
        let exported = exports.get(&path[0]).filter(|_| !is_module);
        used.push(exported.cloned().unwrap_or(path));
    }
    // In the tests of a source `super` is the source itself.
    let outside = source.text.split("#[cfg(test)]\nmod tests").next().unwrap();
    if source.path.to_str().unwrap().ends_with("_tests.rs") {
        return used;
    }
    for path in paths(outside, "super::") {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let depth = source.module.len() - 1 - supers;
        let rest = path.iter().skip(supers).cloned();
        used.push(source.module[..depth].iter().cloned().chain(rest).collect());
    }
    used
}

fn all() -> (Vec<Source>, BTreeMap<String, Vec<String>>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &root, &mut found);
    let lib = found.iter().position(|source| source.module == ["lib"]);
    let lib = found.remove(lib.unwrap());
    (found, exports(&lib.text))
}

#[test]
fn no_module_uses_a_later_one() {
    let order: Vec<&str> = ORDER.split_whitespace().collect();
    let place = |name: &str| order.iter().position(|other| *other == name);
    let (sources, exports) = all();
    for source in &sources {
        let name = &source.module[0];
        let own = place(name).unwrap_or_else(|| panic!("{name} has no place in the order"));
        for path in used(source, &exports) {
            let at =
                place(&path[0]).unwrap_or_else(|| panic!("{}: {path:?}", source.path.display()));
            assert!(
                at <= own,
                "{} uses {}",
                source.path.display(),
                path.join("::")
            );
        }
    }
}

#[test]
fn no_view_uses_a_view_beside_or_above_it() {
    let (sources, exports) = all();
    let mut checked = 0;
    for source in &sources {
        if !matches!(source.module[0].as_str(), "proc" | "sys") {
            continue;
        }
        for path in used(source, &exports) {
            let is_view = matches!(path[0].as_str(), "proc" | "sys");
            assert!(
                !is_view || path.starts_with(&source.module),
                "{} uses {}",
                source.path.display(),
                path.join("::")
            );
            checked += usize::from(!is_view);
        }
    }
    assert!(checked > 100, "{checked}");
}
