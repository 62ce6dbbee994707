//! runc and crun of a newer release than the host's, unpacked in the target directory and not installed.
//!
//! [`PINS`] names the versions that the tests were written with. A mirror keeps a version only while a release has it,
//! so a later one is taken when that is gone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt::{Apt, lock, remove_tree, sha256};
use crate::paths::target_dir;
use crate::process::{command, output};

/// The releases that are looked through. Testing keeps a version for some days longer than sid.
const SUITES: [&str; 2] = ["sid", "forky"];

/// A package with a version, and the SHA256 of its archive for amd64.
#[derive(Debug, Clone, Copy)]
struct Pin {
    package: &'static str,
    version: &'static str,
    sha256: &'static str,
}

/// The versions that the tests were written with. `apt-cache show PACKAGE` on a host with sid prints the two values.
const PINS: [Pin; 2] = [
    Pin {
        package: "runc",
        version: "1.3.6+ds1-1",
        sha256: "8e95d7bdfd22242ae4d48d58e3c277ba2b69dffc4ed8e573b837e6e93925d911",
    },
    Pin {
        package: "crun",
        version: "1.28-1",
        sha256: "20fbc3d0544d5c78e98fda1f02eed07d92529b1b82b6fe657d0c865b4a654cef",
    },
];

/// This file, for messages.
const HERE: &str = "tests/xtask/src/vm/newer.rs";

/// A program of the same releases that tests use with the runtimes: the one of the host may be linked with older
/// libraries.
const BESIDE: &str = "busybox-static";

/// Returns the folder with the newer runc and crun and all their libraries. They are fetched unless an earlier call has
/// left them in the target directory.
///
/// Fails if the archive cannot be reached, has only versions older than those in [`PINS`], or has another archive
/// under one of these versions.
pub fn newer_runtimes() -> Result<PathBuf> {
    let versions = PINS.map(|pin| format!("{}-{}", pin.package, pin.version));
    let dir = target_dir()
        .join("vm")
        .join(format!("newer-{}", versions.join("-")));
    let _lock = lock(&dir)?;
    let root = dir.join("root");
    if !root.exists() {
        eprintln!("vm: fetching {}", versions.join(" and "));
        fetch(&dir)
            .with_context(|| format!("cannot fetch the newer runtimes into {}", dir.display()))?;
    }
    Ok(root)
}

/// Fetches, checks and unpacks; `root` appears only when all of that has succeeded.
fn fetch(dir: &Path) -> Result<()> {
    let apt = Apt::new(&SUITES, &dir.join("apt"))?;
    let mut wanted = vec![BESIDE.to_owned()];
    let mut exact = Vec::new();
    for pin in PINS {
        let there = apt.versions(pin.package)?;
        let version = choose(&pin, &there)?;
        wanted.push(format!("{}={version}", pin.package));
        if version == pin.version {
            exact.push(pin);
        }
    }
    let archives = apt.download_all(&wanted)?;
    for pin in exact {
        check(&pin, &archives)?;
    }
    let unpacked = dir.join("unpacked");
    remove_tree(&unpacked)?;
    for archive in &archives {
        super::apt::extract(archive, &unpacked)?;
    }
    fs::rename(&unpacked, dir.join("root")).context("cannot rename the unpacked packages")?;
    remove_tree(&dir.join("apt"))
}

/// Returns the pinned version if the archive has it, else its newest one, and says so. One that is older than the
/// pinned version is an error.
fn choose<'a>(pin: &Pin, there: &'a [String]) -> Result<&'a str> {
    let Pin {
        package, version, ..
    } = pin;
    if let Some(found) = there.iter().find(|one| one == version) {
        return Ok(found);
    }
    let mut newest: Option<&String> = None;
    for one in there {
        if newest.map_or(Ok(true), |newest| is_later(one, newest))? {
            newest = Some(one);
        }
    }
    let newest =
        newest.with_context(|| format!("Debian {} has no {package}", SUITES.join(" and ")))?;
    if !is_later(newest, version)? {
        bail!(
            "Debian {} has {package} {newest}, and the tests want {version} or later: is the mirror old? Use another \
             mirror, or move the pin in {HERE}",
            SUITES.join(" and ")
        );
    }
    eprintln!(
        "vm: {package} {version} is gone from the archive, so {newest} is taken; the pin is in {HERE}"
    );
    Ok(newest)
}

/// Returns true if dpkg takes the first version for the later one.
fn is_later(version: &str, than: &str) -> Result<bool> {
    let mut compare = command("dpkg");
    compare.args(["--compare-versions", version, "gt", than]);
    Ok(compare
        .status()
        .context("cannot start dpkg; is this Debian?")?
        .success())
}

/// Compares an archive with the pin.
fn check(pin: &Pin, archives: &[PathBuf]) -> Result<()> {
    let start = format!("{}_", pin.package);
    let archive = archives
        .iter()
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .with_context(|| format!("apt-get left no archive of {}", pin.package))?;
    let sum = sha256(archive)?;
    if sum != pin.sha256 {
        bail!(
            "{} has SHA256 {sum}, and {HERE} says {}",
            archive.display(),
            pin.sha256
        );
    }
    Ok(())
}

/// Returns the first line of `--version` of each runtime, for the output of `cargo xtask setup`.
pub(crate) fn said_versions(root: &Path) -> Result<Vec<String>> {
    PINS.iter()
        .map(|pin| {
            let mut run = command(root.join("usr/lib64/ld-linux-x86-64.so.2"));
            run.arg("--library-path")
                .arg(root.join("usr/lib/x86_64-linux-gnu"));
            run.arg(program(root, pin.package)?).arg("--version");
            Ok(output(&mut run)?
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned())
        })
        .collect()
}

/// Returns the path of a program of the packages below `root`.
pub fn program(root: &Path, name: &str) -> Result<PathBuf> {
    let mut paths = ["usr/bin", "usr/sbin"]
        .into_iter()
        .map(|dir| root.join(dir).join(name));
    paths
        .find(|path| path.exists())
        .with_context(|| format!("{name} is in no package below {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::{PINS, choose};

    fn versions(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn the_pinned_version_is_taken_while_the_archive_has_it() {
        let there = versions(&["99.0-1", PINS[0].version]);
        assert_eq!(choose(&PINS[0], &there).ok(), Some(PINS[0].version));
    }

    #[test]
    fn the_newest_version_is_taken_when_the_pinned_one_is_gone() {
        let there = versions(&["99.0~rc1-1", "99.0-1", "98.7-2"]);
        assert_eq!(choose(&PINS[0], &there).ok(), Some("99.0-1"));
    }

    #[test]
    fn an_archive_with_older_versions_alone_is_refused_with_the_place_of_the_pin() {
        let there = versions(&["0.1-1"]);
        let said = match choose(&PINS[0], &there) {
            Ok(version) => version.to_owned(),
            Err(error) => format!("{error:#}"),
        };
        assert!(said.contains("newer.rs"), "{said}");
        assert!(choose(&PINS[1], &[]).is_err());
    }
}
