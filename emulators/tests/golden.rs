//! Every view of every fixture, byte for byte. `ECI_FS_BLESS=1` writes the expectations; read the
//! difference before committing it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::Fixture;
use eci_fs_emulators::{
    DIRECTORIES, Decision, Directory, EMULATORS, Emulator, Pace, directory, render_view,
};

fn each_view(check: impl Fn(&Fixture, &dyn Emulator)) {
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        for emulator in EMULATORS {
            if emulator.exists(&fixture.context()) {
                check(&fixture, *emulator);
            }
        }
    }
}

fn view(fixture: &Fixture, emulator: &dyn Emulator, padding: bool) -> Vec<u8> {
    let mut out = Vec::new();
    render_view(emulator, &fixture.context(), padding, &mut out)
        .unwrap_or_else(|error| panic!("{}: {:?}: {error}", fixture.dir.display(), emulator));
    out
}

/// Compares with expect/<path>, or writes it.
fn expect(fixture: &Fixture, path: &str, text: &[u8]) {
    let path = fixture
        .dir
        .join("expect")
        .join(path.trim_start_matches('/'));
    if std::env::var_os("ECI_FS_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected =
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (text, expected) = (
        String::from_utf8_lossy(text),
        String::from_utf8_lossy(&expected),
    );
    assert_eq!(text, expected, "{}", path.display());
}

#[test]
fn every_view_says_what_is_expected() {
    each_view(|fixture, emulator| {
        expect(
            fixture,
            emulator.facts().path,
            &view(fixture, emulator, false),
        );
    });
}

/// One line for each path below a directory: what it is, and what it says if it is a view.
fn walk_directory(fixture: &Fixture, directory: &dyn Directory, rel: &str, out: &mut String) {
    let cx = fixture.context().only(directory::NEEDS);
    for name in directory.names(&cx, rel).unwrap() {
        let below = if rel.is_empty() {
            name
        } else {
            format!("{rel}/{name}")
        };
        match directory.entry(&cx, &below).unwrap() {
            Decision::Hidden => panic!("{below} is listed and hidden"),
            Decision::Link(target) => out.push_str(&format!("{below} -> {target}\n")),
            Decision::View { .. } => {
                let mut text = Vec::new();
                directory.render(&cx, &below, &mut text).unwrap();
                let text = String::from_utf8(text).unwrap().replace('\n', "\n    ");
                out.push_str(&format!("{below}:\n    {}\n", text.trim_end()));
            }
            // No recorded container has a network namespace.
            Decision::Namespaced(_) | Decision::Tunable(_) | Decision::Made => {
                panic!("{below} is of a network namespace")
            }
            Decision::Passthrough(path) => {
                out.push_str(&format!("{below} is {path}\n"));
                if cx.host.names(&path).is_ok() {
                    walk_directory(fixture, directory, &below, out);
                }
            }
        }
    }
}

#[test]
fn every_directory_has_what_is_expected() {
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        for directory in DIRECTORIES {
            if directory.exists(&fixture.context()) {
                let mut text = String::new();
                walk_directory(&fixture, *directory, "", &mut text);
                let path = format!("{}.directory", directory.facts().path);
                expect(&fixture, &path, text.as_bytes());
            }
        }
    }
}

#[test]
fn a_padded_view_is_as_long_as_its_bound() {
    each_view(|fixture, emulator| {
        let mut now = Vec::new();
        let bound = emulator.render(&fixture.context(), &mut now).unwrap();
        let bound = bound.bytes(now.len());
        let text = view(fixture, emulator, true);
        if let Some(bound) = bound {
            assert_eq!(text.len(), bound, "{:?}", emulator);
            if emulator.facts().pace == Pace::Ticking {
                assert!(
                    bound <= 4096,
                    "{emulator:?} would not be cached on a small machine"
                );
            }
        }
        assert!(text.is_empty() || text.ends_with(b"\n"), "{emulator:?}");
    });
}

#[test]
fn nothing_falls_when_a_view_is_read_again() {
    each_view(|fixture, emulator| {
        assert_eq!(
            view(fixture, emulator, true),
            view(fixture, emulator, true),
            "{emulator:?}"
        );
    });
}

#[test]
fn no_expectation_is_left_over() {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push(format!("/{}", path.strip_prefix(root).unwrap().display()));
            }
        }
    }
    for dir in common::all() {
        let mut found = Vec::new();
        walk(&dir.join("expect"), &dir.join("expect"), &mut found);
        for path in found {
            let emulated = match path.strip_suffix(".directory") {
                Some(path) => DIRECTORIES
                    .iter()
                    .any(|directory| directory.facts().path == path),
                None => EMULATORS
                    .iter()
                    .any(|emulator| emulator.facts().path == path),
            };
            assert!(emulated, "{}{path}", dir.display());
        }
    }
}
