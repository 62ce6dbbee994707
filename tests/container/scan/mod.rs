//! What a container learns of the rest of the host by reading everything in /proc and /sys again and again. Everything
//! that changes there is in `may_change.txt`, with the reason. A file that changes and is not there is a finding.

mod host_load;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Limits, Scene};

use crate::{limits, scene};
use host_load::HostLoad;

/// The files that may change: lines of a pattern and a reason, below a heading that says what they tell.
const MAY_CHANGE: &str = include_str!("may_change.txt");

/// The capabilities that docker gives to a container.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What docker 24 hides. Later versions hide more.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// A pattern of paths of files that may change.
struct MayChange {
    /// The names in it.
    pattern: Vec<&'static str>,
    /// What follows it on the line.
    reason: &'static str,
    /// True if it tells about the host.
    is_left: bool,
}

impl MayChange {
    /// Returns all patterns.
    fn all() -> Vec<Self> {
        let (own, left) = MAY_CHANGE.split_once("# LEFT").unwrap();
        let lines = |text: &'static str, is_left| {
            let lines = text.lines().filter(|line| line.starts_with('/'));
            lines.map(move |line| Self::of(line, is_left))
        };
        lines(own, false).chain(lines(left, true)).collect()
    }

    #[track_caller]
    fn of(line: &'static str, is_left: bool) -> Self {
        let (pattern, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let reason = reason.trim();
        assert!(!reason.is_empty(), "{pattern} has no reason");
        let pattern = pattern.split('/').collect();
        Self {
            pattern,
            reason,
            is_left,
        }
    }

    /// Returns whether a path is meant.
    fn matches(&self, path: &str) -> bool {
        are_like(&self.pattern, &path.split('/').collect::<Vec<_>>())
    }
}

/// Returns whether names are like patterns of names, in which `**` stands for any number of names.
fn are_like(patterns: &[&str], names: &[&str]) -> bool {
    match (patterns.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=names.len()).any(|at| are_like(rest, &names[at..])),
        (Some((pattern, patterns)), Some((name, names))) => {
            is_like(pattern, name) && are_like(patterns, names)
        }
        _ => false,
    }
}

/// Returns whether a name is like a pattern of a name, in which `*` stands for any characters.
fn is_like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, rest)) => {
            let Some(left) = name.strip_prefix(begin) else {
                return false;
            };
            (0..=left.len()).any(|at| left.is_char_boundary(at) && is_like(rest, &left[at..]))
        }
    }
}

/// A container as docker makes them.
#[track_caller]
fn like_dockers(scene: &Scene, limits: &Limits) -> Container {
    let bundle = Bundle::new(scene, Engine::Runc, limits, false);
    bundle.change(|config| {
        let sets = ["bounding", "effective", "permitted"];
        for set in sets {
            config["process"]["capabilities"][set] = json!(CAPABILITIES);
        }
        config["linux"]["maskedPaths"] = json!(MASKED);
    });
    Container::of_bundle(bundle)
}

/// Returns what has changed in a container and is not known to.
#[track_caller]
fn findings(container: &mut Container, known: &[MayChange]) -> BTreeMap<String, Value> {
    let changed = container.ask(&["scan-again"]);
    let changed = changed.as_object().unwrap().clone().into_iter();
    changed
        .filter(|(path, _)| !known.iter().any(|one| one.matches(path)))
        .collect()
}

#[test]
fn privileged_what_a_container_reads_does_not_change_with_the_host_but_for_what_is_known() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut docker = like_dockers(&scene, &limits(128, 1.0));
    let user = scene
        .container()
        .limits(limits(128, 1.0))
        .options(&["--network"]);
    let mut user = user.user_namespace(true).start();
    let known = MayChange::all();
    let mut containers = [("docker", &mut docker), ("user", &mut user)];
    for (name, container) in &mut containers {
        scene.attach(container);
        let count = container.ask(&["scan"]).as_u64().unwrap();
        assert!(count > 1000, "{name}: {count}");
    }
    let load = HostLoad::new(&scene);
    let mut found = Vec::new();
    for (name, container) in &mut containers {
        found.extend(
            findings(container, &known)
                .into_iter()
                .map(|of| (*name, of)),
        );
    }
    let lines = found
        .iter()
        .map(|(name, (path, texts))| format!("{name} {path} {texts}\n"));
    let lines: String = lines.collect();
    drop(load);
    assert!(
        found.is_empty(),
        "files that change, and are not in may_change.txt:\n{lines}"
    );
    drop((docker, user));
    daemon.end();
}

#[test]
fn what_tells_about_the_host_and_changes_is_left_by_the_table_of_the_documents() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().map(|line| line.split('|').map(str::trim));
    let rows: Vec<Vec<&str>> = rows.map(Iterator::collect).collect();
    let is_left = |path: &str| {
        rows.iter().any(|row| match row[..] {
            ["", entries, _, here, ..] => {
                let is_kernels = here.contains("left") || here.contains("passed through");
                is_kernels && entries.split(", ").any(|entry| entry == path)
            }
            _ => false,
        })
    };
    let mut left = MayChange::all();
    left.retain(|one| one.is_left && !is_left(one.reason));
    let missing: Vec<_> = left.iter().map(|one| one.reason).collect();
    assert!(missing.is_empty(), "docs/security.md leaves no {missing:?}");
}

#[test]
fn a_pattern_means_the_names_that_it_says() {
    let is_meant = |line, path| MayChange::of(line, false).matches(path);
    assert!(is_meant("/proc/a reason", "/proc/a"));
    assert!(!is_meant("/proc/a reason", "/proc/ab"));
    assert!(!is_meant("/proc/a reason", "/proc/a/"));
    assert!(is_meant("/sys/*/b*d reason", "/sys/x/bcd"));
    assert!(!is_meant("/sys/*/b reason", "/sys/x/y/b"));
    assert!(is_meant("/sys/** reason", "/sys/x/y"));
    assert!(is_meant("/sys/x/** reason", "/sys/x/"));
    assert!(!is_meant("/sys/x/** reason", "/sys/y/x"));
    assert!(is_meant("/sys/**/x/* reason", "/sys/a/b/x/y"));
    assert!(!is_meant("/sys/**/x/* reason", "/sys/a/b/x/y/z"));
}
