//! Programs for which Debian has only the library: they are built from `programs/` when a test runs them.

use std::path::PathBuf;
use std::process::Command;

use support::Ran;

use crate::case::need;

/// Build `programs/SOURCE` with a C or a C++ compiler, and return the path of the program.
#[track_caller]
pub(crate) fn with_compiler(compiler: &str, source: &str, libraries: &[&str]) -> PathBuf {
    need(compiler, compiler);
    let (path, source) = paths(source);
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]);
    command.arg(&path).arg(source).args(libraries);
    Ran::run(&mut command).ok();
    path
}

/// The same with Go, and the modules that Debian has packages of.
#[track_caller]
pub(crate) fn with_go(source: &str) -> PathBuf {
    need("go", "golang-go");
    let (path, source) = paths(source);
    let mut command = Command::new("go");
    command
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", path.with_extension("cache"));
    command.args(["build", "-o"]).arg(&path).arg(source);
    Ran::run(&mut command).ok();
    path
}

/// Returns where the program goes, and its source.
fn paths(source: &str) -> (PathBuf, PathBuf) {
    let dir = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/conformance/programs"
    ));
    let name = source.replace('.', "-");
    (
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name),
        dir.join(source),
    )
}
