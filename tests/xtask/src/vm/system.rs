//! Whole Debian systems: the disk of a guest with systemd, and the image of a container.

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

/// Returns an archive of the root file system of Debian 12 with `installed` packages, as their own scripts install them. In
/// `/srv/repository` it has the packages `beside` with all their dependencies, for apt in a container without a network.
/// Made unless an earlier call has left it in the target directory.
pub fn root_archive(installed: &[&str], beside: &[&str]) -> Result<PathBuf> {
    let (list, beside) = (installed.join(","), beside.join(" "));
    let dir = target_dir().join("vm").join(format!("{SUITE}-archive"));
    let _lock = lock(&dir)?;
    let (archive, made_of) = (dir.join("root.tar"), dir.join("packages"));
    let wanted = format!("{list}\n{beside}\n");
    if archive.exists() && fs::read_to_string(&made_of).is_ok_and(|made| made == wanted) {
        return Ok(archive);
    }
    eprintln!("vm: making an archive of Debian {SUITE}, which takes minutes");
    let new = dir.join("new.tar");
    let download = format!(
        "APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get -qq --yes --no-install-recommends --download-only install {beside}"
    );
    let index = "mkdir \"$1\"/srv/repository && mv \"$1\"/var/cache/apt/archives/*.deb \"$1\"/srv/repository/ && \
                 chroot \"$1\" sh -c 'cd /srv/repository && apt-ftparchive packages . >Packages'";
    let list = format!("apt-utils,{list}");
    let hooks = [download.as_str(), index];
    install(&list, &hooks, &new)
        .with_context(|| format!("cannot make an archive in {}", dir.display()))?;
    fs::rename(&new, &archive).context("cannot rename the archive")?;
    fs::write(&made_of, wanted).with_context(|| format!("cannot write {}", made_of.display()))?;
    Ok(archive)
}

/// Installs the packages into a directory, and makes a file system of that.
fn make(packages: &str, dir: &Path, disk: &Path) -> Result<()> {
    let root = dir.join("root");
    remove_tree(&root)?;
    install(packages, &[], &root)?;
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

/// Installs the packages into `target`, a directory or the name of an archive. The hooks are commands of a shell that are run
/// when all is installed; `$1` is the root file system.
fn install(packages: &str, hooks: &[&str], target: &Path) -> Result<()> {
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
    for hook in hooks {
        install.arg(format!("--customize-hook={hook}"));
    }
    install.arg("--customize-hook=rm -rf \"$1\"/var/cache/apt \"$1\"/var/lib/apt/lists");
    output(install.arg(SUITE).arg(target).arg(mirror()?))?;
    Ok(())
}
