//! What engines and runtimes write: the state of a container, its config.json and annotations, and command lines.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use eci_fs::oci::annotations::{self, PREFIX};
use eci_fs::oci::command_line::CommandLine;
use eci_fs::oci::decision::decide;
use eci_fs::oci::hooks::{Hook, with_hooks};
use eci_fs::oci::state::{State, name_of};
use eci_fs_mountd::registry::check_id;
use eci_fs_protocol::choices::Choice;

/// The stages that get a hook.
const STAGES: [&str; 2] = ["createContainer", "poststop"];

/// Takes the bytes for each of them in turn.
pub fn run(bytes: &[u8]) {
    if let Ok(state) = State::parse(bytes) {
        check_id(&name_of(&state.id)).unwrap();
        decide_by(&state.annotations.unwrap_or_default());
    }
    let text = String::from_utf8_lossy(bytes);
    check_id(&name_of(&text)).unwrap();
    edit(&text);
    decide_by(&in_lines(&text));
    let arguments = bytes.split(|byte| matches!(byte, 0 | b'\n'));
    let arguments: Vec<OsString> = arguments.map(|a| OsString::from_vec(a.to_vec())).collect();
    let count = arguments.len();
    let line = CommandLine::parse(arguments);
    assert!(line.rest.len() <= count);
    let _ = line.creates_container();
}

/// Adds hooks to a configuration. To add them again changes nothing.
fn edit(text: &str) {
    let hook = Hook {
        path: "/usr/bin/eci-fs".into(),
        args: vec!["eci-fs".to_owned(), "hook".to_owned()],
        env: Vec::new(),
        timeout: 10,
    };
    let hooks = STAGES.map(|stage| (stage, hook.clone()));
    if let Ok(Some(edited)) = with_hooks(text, &hooks) {
        let _: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_str(&edited).unwrap();
        assert_eq!(with_hooks(&edited, &hooks).unwrap(), None);
    }
}

/// Decides with all choices allowed, and with none.
fn decide_by(annotations: &BTreeMap<String, String>) {
    let wanted = annotations::parse(annotations);
    let free = decide(annotations, &Choice::ALL);
    assert_eq!(wanted.is_ok(), free.is_ok());
    let _ = decide(annotations, &[]);
}

/// Returns annotations, one in a line: a name, `=`, and a value.
fn in_lines(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()))
        .collect()
}
