//! Checks of the engines: which are installed, and which use eci-fs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Findings;
use crate::cli::install::{Engine, Installation, RUNTIME, installation};
use crate::cli::program::USUAL_DIRECTORIES;

/// The engines and runtimes, and the programs by which they are found.
const ENGINES: [(&str, &str, Option<Engine>); 8] = [
    ("docker", "dockerd", Some(Engine::Docker)),
    ("podman", "podman", Some(Engine::Podman)),
    ("containerd", "containerd", Some(Engine::Containerd)),
    ("crio", "crio", Some(Engine::Crio)),
    ("runc", "runc", None),
    ("crun", "crun", None),
    ("youki", "youki", None),
    ("lxc", "lxc-start", None),
];

/// Checks all engines. Returns whether one of them is set up to use eci-fs.
pub(super) fn examine(findings: &mut Findings, root: &Path) -> bool {
    let mut any = false;
    let mut runtimes = false;
    for (name, program, engine) in ENGINES {
        let found = find(program);
        let Some(engine) = engine else {
            // Runtimes and LXC are not set up themselves; their callers are.
            if let Some(path) = found {
                runtimes |= name != "lxc";
                findings.ok(format!("{name} {}", version(&path)));
            }
            continue;
        };
        let set_up = match installation(engine, root) {
            Ok(set_up) => set_up,
            Err(error) => {
                findings.error(error);
                continue;
            }
        };
        any |= set_up.is_some();
        let version = found.as_deref().map(version);
        match (version, set_up) {
            (Some(version), Some(found)) => {
                report_installation(findings, engine, &format!("{name} {version}"), &found, root);
            }
            (None, Some(found)) => {
                report_installation(
                    findings,
                    engine,
                    &format!("{name}, which is not in PATH,"),
                    &found,
                    root,
                );
            }
            (Some(version), None) => findings.note(
                format!("{name} {version} does not use eci-fs"),
                &format!("eci-fs install --engine {name} --dry-run, and then without --dry-run"),
            ),
            (None, None) => {}
        }
    }
    if any && !runtimes {
        findings.wrong("no OCI runtime is in PATH", "install runc or crun");
    }
    any
}

/// Reports how an engine is set up, and whether the programs that it calls exist.
fn report_installation(
    findings: &mut Findings,
    engine: Engine,
    name: &str,
    installation: &Installation,
    root: &Path,
) {
    let programs = installation.programs(engine);
    let missing = programs
        .iter()
        .find(|path| !is_program(&root.join(path.trim_start_matches('/'))));
    if let Some(path) = missing {
        return findings.wrong(
            format!("{name} is to call {path}, which is no program"),
            "install eci-fs and eci-runc there, or `eci-fs install` again",
        );
    }
    let how = match (engine, installation.is_default()) {
        (Engine::Podman, _) => "for every container".to_owned(),
        (_, true) => "for every container that names no other runtime".to_owned(),
        (_, false) => format!("for containers that name the runtime {RUNTIME}"),
    };
    findings.ok(format!("{name} uses eci-fs {how}"));
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(USUAL_DIRECTORIES.map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    let found = std::fs::metadata(path);
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Returns the version that a program prints.
fn version(path: &Path) -> String {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return format!("({} does not start: {error})", path.display()),
    };
    number(&text).unwrap_or_else(|| "of unknown version".to_owned())
}

/// Returns the first word that is a version number: "20.10.24+dfsg1" in "Docker version 20.10.24+dfsg1, build
/// 297e128".
fn number(text: &str) -> Option<String> {
    let word = text.split_whitespace().find(|word| {
        let word = word.trim_start_matches('v');
        word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit())
    })?;
    Some(word.trim_end_matches(',').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, wanted) in [
            (
                "Docker version 20.10.24+dfsg1, build 297e128\n",
                Some("20.10.24+dfsg1"),
            ),
            ("podman version 4.3.1\n", Some("4.3.1")),
            (
                "containerd github.com/containerd/containerd v1.7.24 abc\n",
                Some("v1.7.24"),
            ),
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 x\n",
                Some("1.6.20~ds1"),
            ),
            ("runc version 1.1.5+ds1\ncommit: 1.1\n", Some("1.1.5+ds1")),
            ("crun version 1.8.1\n", Some("1.8.1")),
            ("5.0.2\n", Some("5.0.2")),
            ("usage: thing\n", None),
        ] {
            assert_eq!(number(text).as_deref(), wanted, "{text}");
        }
    }
}
