//! `eci-mountd` prints its help and its version where nobody reads them, and where they cannot be written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

#[track_caller]
fn run(option: &str, stdout: OwnedFd) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eci-mountd"));
    let child = command.arg(option).stdout(stdout).stderr(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn help_and_version_need_no_reader() {
    for option in ["--help", "--version"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, said) = run(option, writer.into());
        assert_eq!((code, said.as_str()), (Some(141), ""), "{option}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = run(option, full.into());
        assert_eq!(code, Some(1), "{said}");
        let words = "eci-mountd: cannot write to standard output: No space left on device";
        assert_eq!(said.trim_end(), words);
    }
}

#[test]
fn a_wrong_option_is_told_in_words_about_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eci-mountd"));
    let output = command.args(["--freshness", "-1"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("\"-1\" is no age"), "{said}");
}
