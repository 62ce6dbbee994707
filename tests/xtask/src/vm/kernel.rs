//! The kernels of the virtual machines: Debian's cloud kernels, fetched through apt with a
//! configuration of its own, so that the sources of the machine itself stay as they are.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::paths::target_dir;
use crate::process::{command, output};

/// The package that depends on the newest cloud kernel of a release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The keys that the releases are checked with, whatever the machine's own sources say.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that a virtual machine can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Linux 5.10, of Debian 11: the oldest that the project supports.
    V5_10,
    /// Linux 6.1, of Debian 12.
    V6_1,
    /// Linux 6.12, of Debian 13.
    V6_12,
}

impl Kernel {
    /// All kernels, oldest first.
    pub const ALL: [Self; 3] = [Self::V5_10, Self::V6_1, Self::V6_12];

    /// The version as it is written on the command line.
    pub fn version(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The Debian release that the kernel is of.
    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
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
        known.ok_or_else(|| format!("no kernel {text}: known are 5.10, 6.1 and 6.12"))
    }
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// The compressed kernel image.
    pub vmlinuz: PathBuf,
    /// The folder that holds `lib/modules/<release>`.
    pub root: PathBuf,
    /// What `uname -r` says.
    pub release: String,
}

impl KernelFiles {
    /// The unpacked kernel, fetched unless an earlier call has left it in the target directory.
    pub fn fetch(kernel: Kernel) -> Result<Self> {
        let dir = target_dir().join("vm").join(kernel.version());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Tests run in parallel, and each may be the first to want this kernel.
        let path = dir.join("lock");
        let lock =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("cannot lock {}", path.display()))?;
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
        let apt = Apt::new(kernel.suite(), &dir.join("apt"))?;
        let depends = apt.field(META_PACKAGE, "Depends")?;
        let package = depends.split([' ', ',', '|']).next().unwrap_or_default();
        if !package.starts_with("linux-image-") {
            bail!("{META_PACKAGE} depends on `{depends}`, which names no kernel");
        }
        let archive = apt.download(package)?;

        let unpacked = dir.join("unpacked");
        remove_tree(&unpacked)?;
        output(
            command("dpkg-deb")
                .arg("--extract")
                .arg(&archive)
                .arg(&unpacked),
        )?;
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

    /// A kernel that was unpacked earlier.
    fn open(root: PathBuf) -> Result<Self> {
        let release = release_of(&root)?;
        let vmlinuz = root.join("boot").join(format!("vmlinuz-{release}"));
        if !vmlinuz.exists() {
            bail!(
                "{} is missing; remove {} and try again",
                vmlinuz.display(),
                root.display()
            );
        }
        Ok(Self {
            vmlinuz,
            root,
            release,
        })
    }

    /// The files of a module and of those it needs, in the order of insertion. None if built in.
    pub fn module(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut modprobe = command("modprobe");
        modprobe
            .arg("--dirname")
            .arg(&self.root)
            .args(["--set-version", &self.release]);
        // The configuration of this machine (a blacklist, an `install` line) is not the guest's.
        modprobe.args(["--config", "/dev/null", "--show-depends", name]);
        let lines = output(&mut modprobe)
            .with_context(|| format!("the kernel {} has no module {name}", self.release))?;
        let files = lines
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }
}

/// The only folder in `lib/modules`.
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

/// Removes a folder that may be there.
fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// apt with lists, cache and sources of its own, so that any Debian release can be asked for.
#[derive(Debug)]
struct Apt {
    dir: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Sets up apt for `suite` below `dir` and fetches that release's index.
    fn new(suite: &str, dir: &Path) -> Result<Self> {
        remove_tree(dir)?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let sources = dir.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        let config = dir.join("apt.conf");
        // Proxies and the like still come from the machine's own configuration. Sandbox::User:
        // the unprivileged user of apt may not be able to reach the target directory.
        let text = format!(
            r#"Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{dir}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{dir}/cache";
APT::Architecture "amd64";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"#,
            dir = dir.display()
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let apt = Self {
            dir: dir.to_path_buf(),
            config,
        };
        output(apt.command("apt-get").args(["-qq", "update"]))
            .context("is the Debian archive reachable? apt-get update must work here")?;
        Ok(apt)
    }

    /// An apt program with this configuration.
    fn command(&self, program: &str) -> std::process::Command {
        let mut apt = command(program);
        apt.arg("--config-file")
            .arg(&self.config)
            .current_dir(&self.dir);
        apt
    }

    /// One field of a package in the index, which apt has checked against the signed release.
    fn field(&self, package: &str, name: &str) -> Result<String> {
        let shown = output(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )?;
        let value = shown
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(value
            .with_context(|| format!("the index gives {package} no {name}"))?
            .to_owned())
    }

    /// Downloads a package and compares its SHA256 with the index.
    fn download(&self, package: &str) -> Result<PathBuf> {
        let expected = self.field(package, "SHA256")?;
        output(self.command("apt-get").args(["-qq", "download", package]))?;
        let archive = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download left no {package}"))?;
        let line = output(command("sha256sum").arg(&archive))?;
        // A name with odd characters makes sha256sum begin the line with a backslash.
        let sum = line
            .trim_start_matches('\\')
            .split(' ')
            .next()
            .unwrap_or_default();
        if sum != expected {
            bail!(
                "{} has SHA256 {sum}, the index says {expected}",
                archive.display()
            );
        }
        Ok(archive)
    }
}

/// The Debian mirror that this machine uses.
fn mirror() -> Result<String> {
    let mut list = command("apt-get");
    list.args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Identifier: Packages",
    ]);
    list.args(["Label: Debian", "Origin: Debian", "Component: main"]);
    let targets = output(&mut list)?;
    let first = targets.lines().next();
    Ok(first
        .context("apt knows no Debian archive; run apt-get update and try again")?
        .to_owned())
}
