//! All ways of reading give the same, whole text.

use std::collections::BTreeMap;

use eci_fs_emulators::{Facts, Pace};
use serde_json::{Value, json};
use support::form;

use crate::{LIMITS, cached, scene, views};

/// What holds of a view beside that it is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// It is cached: it has the size that fstat(2) tells. While that changes it may show an empty line.
    Cached,
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
            true => Size::Cached,
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
        match size {
            Size::Cached => assert_eq!(ended(&form(text)), ended(&form(whole)), "{path} by {name}"),
            Size::Moving => assert_eq!(form(text), form(whole), "{path} by {name}"),
        }
        if size == Size::Cached {
            assert_eq!(json!(text.len()), way["size"], "{path} by {name}: {text:?}");
        }
        if facts.pace == Pace::Static {
            assert_eq!(text, whole, "{path} by {name}");
        }
    }
}

/// Returns a text without the empty lines at its end, which a cached view may have more while its size changes.
fn ended(text: &str) -> &str {
    text.trim_end_matches('\n')
}

#[test]
fn privileged_every_view_is_the_same_in_every_way_of_reading() {
    all_ways_agree(&[]);
}

#[test]
fn privileged_every_view_is_the_same_in_every_way_of_reading_when_nothing_is_cached() {
    all_ways_agree(&["--freshness", "0"]);
}

/// An upgrade passes the options of the daemon that runs to the next one, and units name them.
#[test]
fn privileged_the_option_of_the_version_that_padded_views_is_taken_and_changes_nothing() {
    let scene = scene();
    let daemon = scene.daemon(&["--no-padding"]);
    let container = scene.container().limits(LIMITS).start();
    scene.attach(&container);
    assert!(cached(&scene, &container).contains(&"/proc/uptime".to_owned()));
    drop(container);
    daemon.end();
}

/// No view has blanks at its end that the kernel's file does not have, however long it was read before.
#[test]
fn privileged_a_view_ends_where_the_file_of_the_kernel_ends() {
    let scene = scene();
    let mut container = scene.container().limits(LIMITS).start();
    scene.attach(&container);
    for facts in views(&container) {
        let Ok(kernel) = std::fs::read_to_string(facts.path) else {
            continue;
        };
        let blanks = |text: &str| {
            let ended = text.trim_end_matches(['\n', ' ', '\t']);
            text[ended.len()..].to_owned()
        };
        let text = container.read(facts.path);
        if !text.is_empty() && !kernel.is_empty() {
            assert_eq!(blanks(&text), blanks(&kernel), "{}: {text:?}", facts.path);
        }
    }
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
