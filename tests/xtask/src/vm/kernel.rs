//! The kernels of the virtual machines: Debian's cloud kernels.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};

use super::apt::{Apt, lock, remove_tree};
use crate::paths::target_dir;
use crate::process::{command, output};

/// The package that depends on the newest cloud kernel of a release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel that a virtual machine can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Linux 5.10, of Debian 11: the oldest that the project supports.
    V5_10,
    /// Linux 6.1, of Debian 12.
    V6_1,
    /// Linux 6.12, of Debian 13.
    V6_12,
    /// The newest kernel of Debian sid. It was 7.2 when this was written.
    Sid,
}

impl Kernel {
    /// All kernels, oldest first.
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Sid];

    /// The kernels whose versions do not change, oldest first.
    pub const OF_RELEASES: [Self; 3] = [Self::V5_10, Self::V6_1, Self::V6_12];

    /// Returns the version as it is written on the command line.
    pub fn version(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Sid => "sid",
        }
    }

    /// Returns the Debian release that the kernel is of.
    pub(super) fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Sid => "sid",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version())
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|kernel| kernel.version() == text);
        known.ok_or_else(|| format!("no kernel {text}: known are 5.10, 6.1, 6.12 and sid"))
    }
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// The compressed kernel image.
    pub vmlinuz: PathBuf,
    /// The folder that holds `lib/modules/<release>`.
    pub root: PathBuf,
    /// The release, as `uname -r` prints it.
    pub release: String,
}

impl KernelFiles {
    /// Returns the unpacked kernel, fetched unless an earlier call has left it in the target directory.
    pub fn fetch(kernel: Kernel) -> Result<Self> {
        let dir = target_dir().join("vm").join(kernel.version());
        let _lock = lock(&dir)?;
        let root = dir.join("root");
        if !root.exists() {
            eprintln!(
                "vm: fetching the kernel {kernel} of Debian {}",
                kernel.suite()
            );
            Self::download(kernel, &dir).with_context(|| {
                format!("cannot fetch the kernel {kernel} into {}", dir.display())
            })?;
        }
        Self::open(root)
    }

    /// Fetches, checks and unpacks; `root` appears only when all of that has succeeded.
    fn download(kernel: Kernel, dir: &Path) -> Result<()> {
        let apt = Apt::new(&[kernel.suite()], &dir.join("apt"))?;
        let package = depended(&apt, META_PACKAGE, "linux-image-")?;
        let package = package.with_context(|| format!("{META_PACKAGE} names no kernel"))?;
        let unpacked = dir.join("unpacked");
        remove_tree(&unpacked)?;
        apt.unpack(&package, &unpacked)?;
        // The image, the modules, and the list of what is built in are packages of their own in newer releases.
        for part in ["linux-base-", "linux-binary-", "linux-modules-"] {
            if let Some(package) = depended(&apt, &package, part)? {
                apt.unpack(&package, &unpacked)?;
            }
        }
        if !unpacked.join("lib/modules").exists() {
            // Newer packages ship /usr/lib/modules; the tools of kmod look below /lib.
            std::os::unix::fs::symlink("usr/lib", unpacked.join("lib"))
                .context("cannot link lib to usr/lib")?;
        }
        let release = release_of(&unpacked)?;
        output(
            command("depmod")
                .arg("--basedir")
                .arg(&unpacked)
                .arg(&release),
        )?;
        fs::rename(&unpacked, dir.join("root")).context("cannot rename the unpacked kernel")?;
        // The index and the package are not needed again: 30 MB each.
        remove_tree(&dir.join("apt"))
    }

    /// Returns a kernel that was unpacked earlier.
    fn open(root: PathBuf) -> Result<Self> {
        let release = release_of(&root)?;
        let in_boot = root.join("boot").join(format!("vmlinuz-{release}"));
        let in_modules = root.join("lib/modules").join(&release).join("vmlinuz");
        let mut places = [in_boot, in_modules].into_iter();
        let vmlinuz = places.find(|path| path.exists()).with_context(|| {
            format!(
                "there is no image of Linux {release} in {0}; remove {0} and try again",
                root.display()
            )
        })?;
        Ok(Self {
            vmlinuz,
            root,
            release,
        })
    }

    /// Returns the files of a module and of those it needs, in the order of insertion. Returns none for a built-in
    /// module.
    pub fn module(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut modprobe = command("modprobe");
        modprobe
            .arg("--dirname")
            .arg(&self.root)
            .args(["--set-version", &self.release]);
        // The host's configuration of modules (a blacklist, an `install` line) must not apply to the guest.
        modprobe.args(["--config", "/dev/null", "--show-depends", name]);
        let lines = output(&mut modprobe)
            .with_context(|| format!("the kernel {} has no module {name}", self.release))?;
        let files = lines
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }
}

/// Returns the first package with a name that starts so, of those that a package depends on.
fn depended(apt: &Apt, package: &str, start: &str) -> Result<Option<String>> {
    let depends = apt.field(package, "Depends")?;
    let mut names = depends.split([' ', ',', '|']);
    Ok(names
        .find(|name| name.starts_with(start))
        .map(str::to_owned))
}

/// Returns the only folder in `lib/modules`.
fn release_of(root: &Path) -> Result<String> {
    let modules = root.join("lib/modules");
    let mut entries = fs::read_dir(&modules).with_context(|| {
        format!(
            "cannot list {}; remove {}",
            modules.display(),
            root.display()
        )
    })?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", modules.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
