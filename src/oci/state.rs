//! The state that a runtime writes to a hook's standard input (OCI runtime specification, "State").

use std::collections::BTreeMap;
use std::path::PathBuf;

use eci_fs_mountd::registry::check_id;
use eci_fs_protocol::error::{Error, Result};
use serde::Deserialize;

/// The fields of the state that are used. Runtimes add fields of their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct State {
    /// The name that the engine gave.
    pub id: String,
    /// The pid on the host. Some runtimes leave it out or write 0 when there is no process.
    #[serde(default)]
    pub pid: i32,
    /// The directory of the bundle.
    pub bundle: PathBuf,
    /// The annotations of the configuration; some runtimes leave them out.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl State {
    /// Parses the state.
    ///
    /// # Errors
    /// When the text is no state of a container.
    pub fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|error| {
            Error::refused(format!(
                "what stands on standard input is not the state of a container: {error}"
            ))
            .remedy("a runtime calls this as a hook; by hand use `eci-fs attach PID`")
        })
    }
}

/// Returns the name of a container for lists and logs: that of the engine, with invalid characters replaced.
pub fn name_of(id: &str) -> String {
    if check_id(id).is_ok() {
        return id.to_owned();
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let mut name: String = id
        .chars()
        .map(|c| if good(c) { c } else { '_' })
        .take(120)
        .collect();
    if check_id(&name).is_err() {
        // The name is empty, is a number like a pid, or begins with an invalid character.
        name.insert_str(0, "c-");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_all_runtimes_are_read() {
        // As runc, crun (which has the annotations and its own fields) and youki write it.
        for (text, pid) in [
            (
                r#"{"ociVersion":"1.0.2","id":"web","status":"creating","pid":42,"bundle":"/b"}"#,
                42,
            ),
            (
                r#"{"ociVersion":"1.0","id":"web","pid":42,"root":"/b/rootfs","bundle":"/b","status":"created","annotations":{"a":"b"}}"#,
                42,
            ),
            (
                r#"{"ociVersion":"1.0.2","id":"web","status":"stopped","bundle":"/b"}"#,
                0,
            ),
        ] {
            let state = State::parse(text.as_bytes()).unwrap();
            assert_eq!((state.id.as_str(), state.pid), ("web", pid));
        }
    }

    #[test]
    fn what_is_no_state_is_refused_with_a_remedy() {
        for text in ["", "42", r#"{"id":"web"}"#] {
            let error = State::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("eci-fs attach"), "{error}");
        }
    }

    #[test]
    fn every_name_of_an_engine_becomes_one_that_can_stand_in_a_list() {
        assert_eq!(name_of("k8s_web-1.a"), "k8s_web-1.a");
        assert_eq!(name_of("a+b c"), "a_b_c");
        for odd in [
            "",
            "123",
            "-x",
            ".",
            "..",
            "é",
            &"9".repeat(300),
            &"x".repeat(300),
        ] {
            assert!(check_id(&name_of(odd)).is_ok(), "{odd}");
        }
    }
}
