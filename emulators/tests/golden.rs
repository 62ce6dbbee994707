//! Every view of every fixture, byte for byte. `ECI_FS_BLESS=1` writes the expectations into the `.expect.txt`
//! archives; read the difference before committing it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::path::Path;

use archive::Archive;
use common::Fixture;
use eci_fs_emulators::{
    DIRECTORIES, Decision, Directory, EMULATORS, Emulator, Pace, directory, render_view,
};
use rustix::fs::{FlockOperation, flock};

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

fn view(fixture: &Fixture, emulator: &dyn Emulator) -> Vec<u8> {
    let mut out = Vec::new();
    render_view(emulator, &fixture.context(), &mut out)
        .unwrap_or_else(|error| panic!("{}: {:?}: {error}", fixture.path.display(), emulator));
    out
}

/// Compares the texts of these views with what is expected, or writes them there.
fn expect(fixture: &Fixture, texts: &[(String, Vec<u8>)]) {
    let archive = common::expected(&fixture.path);
    if std::env::var_os("ECI_FS_BLESS").is_some() {
        bless(&archive, texts);
    }
    let expected = Archive::read(&archive).unwrap();
    for (path, text) in texts {
        let expected = expected
            .file(path.trim_start_matches('/'))
            .unwrap_or_else(|| panic!("{}: {path} is missing", archive.display()));
        let (text, expected) = (
            String::from_utf8_lossy(text),
            String::from_utf8_lossy(expected),
        );
        assert_eq!(text, expected, "{}: {path}", archive.display());
    }
}

/// Writes the texts of these views into the archive, which is made if missing. What else is in it stays.
fn bless(path: &Path, texts: &[(String, Vec<u8>)]) {
    // Another test, which is another process, has other entries of the same archive.
    let dir = File::open(path.parent().unwrap()).unwrap();
    flock(&dir, FlockOperation::LockExclusive).unwrap();
    let mut archive = match path.exists() {
        true => Archive::read(path).unwrap(),
        false => Archive::default(),
    };
    for (path, text) in texts {
        let path = path.trim_start_matches('/');
        archive.insert_file(path, text.clone()).unwrap();
    }
    archive.write(path).unwrap();
}

#[test]
fn every_view_says_what_is_expected() {
    for path in common::all() {
        let fixture = Fixture::open(&path);
        let emulators = EMULATORS
            .iter()
            .filter(|emulator| emulator.exists(&fixture.context()));
        let texts: Vec<_> = emulators
            .map(|emulator| {
                let path = emulator.facts().path.to_owned();
                (path, view(&fixture, *emulator))
            })
            .collect();
        expect(&fixture, &texts);
    }
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
            Decision::Namespaced(_) | Decision::Tunable(_) => {
                panic!("{below} is of a network namespace")
            }
            Decision::Made => {
                out.push_str(&format!("{below}/\n"));
                walk_directory(fixture, directory, &below, out);
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
    for path in common::all() {
        let fixture = Fixture::open(&path);
        let mut texts = Vec::new();
        for directory in DIRECTORIES {
            if directory.exists(&fixture.context()) {
                let mut text = String::new();
                walk_directory(&fixture, *directory, "", &mut text);
                let path = format!("{}.directory", directory.facts().path);
                texts.push((path, text.into_bytes()));
            }
        }
        expect(&fixture, &texts);
    }
}

/// No view has blanks at its end that the kernel does not write, and none is longer than its bound.
#[test]
fn a_view_ends_with_a_newline_and_within_its_bound() {
    each_view(|fixture, emulator| {
        let mut text = Vec::new();
        let bound = render_view(emulator, &fixture.context(), &mut text).unwrap();
        assert!(text.is_empty() || text.ends_with(b"\n"), "{emulator:?}");
        // The kernel ends /proc/cpuinfo with an empty line, which is static.
        let blanks: [&[u8]; 2] = [b" \n", b"\n\n"];
        let is_blank = blanks.iter().any(|blank| text.ends_with(blank));
        assert!(
            emulator.facts().pace == Pace::Static || !is_blank,
            "{emulator:?}"
        );
        let bound = bound.bytes(text.len());
        assert!(
            bound.is_none_or(|bound| text.len() <= bound),
            "{emulator:?}"
        );
        match emulator.facts().pace {
            Pace::Static => {}
            Pace::Ticking => assert!(
                bound.is_some_and(|bound| bound <= 4096),
                "{emulator:?} would not be cached on a small machine"
            ),
            Pace::Resizing => assert_eq!(bound, None, "{emulator:?}"),
        }
    });
}

#[test]
fn nothing_falls_when_a_view_is_read_again() {
    each_view(|fixture, emulator| {
        assert_eq!(
            view(fixture, emulator),
            view(fixture, emulator),
            "{emulator:?}"
        );
    });
}

#[test]
fn no_expectation_is_left_over() {
    for path in common::all() {
        let archive = common::expected(&path);
        for path in Archive::read(&archive).unwrap().paths() {
            let emulated = match path.strip_suffix(".directory") {
                Some(path) => DIRECTORIES
                    .iter()
                    .any(|directory| directory.facts().path[1..] == *path),
                None => EMULATORS
                    .iter()
                    .any(|emulator| emulator.facts().path[1..] == *path),
            };
            assert!(emulated, "{}: {path}", archive.display());
        }
    }
}

/// So that whoever writes an archive anew changes nothing but what is different.
#[test]
fn every_archive_is_as_it_is_written() {
    for path in common::all() {
        let recorded = format!("{}.txt", path.display()).into();
        for path in [recorded, common::expected(&path)] {
            let text = std::fs::read_to_string(&path).unwrap();
            let written = Archive::parse(&text).unwrap().to_string();
            assert_eq!(text, written, "{}", path.display());
        }
    }
}
