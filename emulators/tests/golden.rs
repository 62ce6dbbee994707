//! Every view of every fixture, byte for byte. `ECI_FS_BLESS=1` writes the expectations; read the
//! difference before committing it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::Fixture;
use eci_fs_emulators::{EMULATORS, Emulator, Pace, render_view};

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

#[test]
fn every_view_says_what_is_expected() {
    let bless = std::env::var_os("ECI_FS_BLESS").is_some();
    each_view(|fixture, emulator| {
        let path = fixture
            .dir
            .join("expect")
            .join(emulator.facts().path.trim_start_matches('/'));
        let text = view(fixture, emulator, false);
        if bless {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let expected =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            String::from_utf8_lossy(&text),
            String::from_utf8_lossy(&expected),
            "{}",
            path.display()
        );
    });
}

#[test]
fn a_padded_view_is_as_long_as_its_bound() {
    each_view(|fixture, emulator| {
        let bound = emulator.bound(&fixture.context()).unwrap();
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
            assert!(
                EMULATORS
                    .iter()
                    .any(|emulator| emulator.facts().path == path),
                "{}{path}",
                dir.display()
            );
        }
    }
}
