//! The disk of a guest that is a whole Debian system, with systemd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt::{KEYRING, lock, mirror, remove_tree};
use crate::paths::target_dir;
use crate::process::{command, output};

/// The release that the system is of.
const SUITE: &str = "bookworm";

/// The size of the disk, most of which is a hole.
const SIZE: &str = "3G";

/// The packages that a bootable system needs, besides the requested ones.
const BOOTS: [&str; 5] = ["systemd-sysv", "dbus", "udev", "kmod", "iproute2"];

/// Returns a disk with Debian 12 and these packages, as their own scripts install them. Made unless an earlier call
/// has left it in the target directory.
pub fn system(packages: &[&str]) -> Result<PathBuf> {
    let list = BOOTS.iter().chain(packages).copied().collect::<Vec<_>>();
    let list = list.join(",");
    let dir = target_dir().join("vm").join(format!("{SUITE}-system"));
    let _lock = lock(&dir)?;
    let (disk, made_of) = (dir.join("disk"), dir.join("packages"));
    if !disk.exists() || fs::read_to_string(&made_of).is_ok_and(|made| made != list) {
        eprintln!("vm: making a disk with a system of Debian {SUITE}, which takes minutes");
        make(&list, &dir, &disk)
            .with_context(|| format!("cannot make a system in {}", dir.display()))?;
        fs::write(&made_of, list).with_context(|| format!("cannot write {}", made_of.display()))?;
    }
    Ok(disk)
}

/// Installs the packages into a directory, and makes a file system of that.
fn make(packages: &str, dir: &Path, disk: &Path) -> Result<()> {
    let root = dir.join("root");
    remove_tree(&root)?;
    let mut install = command("mmdebstrap");
    install.args(["--quiet", "--variant=minbase", "--mode=root"]);
    install.arg(format!("--keyring={KEYRING}"));
    // These directories are half of all files, and no test reads them.
    for path in ["doc", "man", "locale"] {
        install.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    install.args([
        "--dpkgopt=force-unsafe-io",
        &format!("--include={packages}"),
    ]);
    install.arg("--customize-hook=rm -rf \"$1\"/var/cache/apt \"$1\"/var/lib/apt/lists");
    output(install.arg(SUITE).arg(&root).arg(mirror()?))?;
    let new = dir.join("disk.new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        bail!("cannot remove {}: {error}", new.display());
    }
    let mut format = command("mke2fs");
    format.args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d"]);
    output(format.arg(&root).arg(&new).arg(SIZE))?;
    fs::rename(&new, disk).context("cannot rename the disk")?;
    remove_tree(&root)
}
