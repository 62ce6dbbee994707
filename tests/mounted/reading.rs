//! All ways of reading give the same, whole text.

use std::collections::BTreeMap;

use eci_fs_emulators::{Facts, Pace};
use serde_json::{Value, json};
use support::form;

use crate::{LIMITS, cached, scene, views};

/// What holds of a view beside that it is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Every version is of the same length.
    Constant,
    /// A version may be longer than the one before, and fstat(2) measures the present and not what was opened.
    Moving,
}

fn all_ways_agree(daemon_options: &[&str]) {
    let scene = scene();
    let daemon = scene.daemon(daemon_options);
    let mut container = scene.container().limits(LIMITS).start();
    scene.attach(&container);
    let cached = match daemon_options {
        [] => cached(&scene, &container),
        _ => Vec::new(),
    };
    for facts in views(&container) {
        let size = match cached.iter().any(|path| path == facts.path) {
            true => Size::Constant,
            false => Size::Moving,
        };
        let answer = container.ask(&["ways", facts.path])[facts.path].clone();
        assert_eq!(
            answer["past_the_end"],
            json!([0, 0, 0, 0, 0]),
            "{}: pread past the end",
            facts.path
        );
        compare(facts, &answer["ways"], size);
    }
    drop(container);
    daemon.end();
}

fn compare(facts: &Facts, ways: &Value, size: Size) {
    let path = facts.path;
    let ways: BTreeMap<String, Value> = serde_json::from_value(ways.clone()).unwrap();
    let Some(whole) = ways["whole"]["text"].as_str() else {
        panic!("{path}: {}", ways["whole"]);
    };
    assert!(
        whole.is_empty() || whole.ends_with('\n'),
        "{path}: {whole:?}"
    );
    assert!(!whole.contains('\0'), "{path}: {whole:?}");
    for (name, way) in &ways {
        if name == "mmap" && size == Size::Moving {
            // A mapping is as long as fstat(2) tells; the kernel's own files cannot be mapped at all.
            continue;
        }
        let Some(text) = way["text"].as_str() else {
            panic!("{path} by {name}: {way}");
        };
        assert_eq!(form(text), form(whole), "{path} by {name}");
        if size == Size::Constant {
            assert_eq!(json!(text.len()), way["size"], "{path} by {name}: {text:?}");
            assert_eq!(text.len(), whole.len(), "{path} by {name}: {text:?}");
        }
        if facts.pace == Pace::Static {
            assert_eq!(text, whole, "{path} by {name}");
        }
    }
}

#[test]
fn privileged_every_view_is_the_same_in_every_way_of_reading() {
    all_ways_agree(&[]);
}

#[test]
fn privileged_every_view_is_the_same_in_every_way_of_reading_when_nothing_is_cached() {
    all_ways_agree(&["--freshness", "0"]);
}

#[test]
fn privileged_every_view_is_the_same_in_every_way_of_reading_without_padding() {
    all_ways_agree(&["--no-padding"]);
}

#[test]
fn privileged_a_view_in_a_user_namespace_is_the_same_in_every_way_of_reading() {
    let scene = scene();
    let mut container = scene
        .container()
        .limits(LIMITS)
        .user_namespace(true)
        .start();
    scene.attach(&container);
    for facts in views(&container) {
        let answer = container.ask(&["ways", facts.path])[facts.path].clone();
        compare(facts, &answer["ways"], Size::Moving);
    }
}
