//! Packages of any Debian release, fetched through apt with a separate configuration. The host's own sources stay
//! unchanged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::Kernel;
use crate::paths::target_dir;
use crate::process::{command, output};

/// The keys that all releases are checked with, also when the host's own sources name other keys.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Returns the folder with these packages, unpacked, from the release of `kernel`. They are fetched unless an earlier
/// call has left them in the target directory.
///
/// Nothing is installed, and dependencies have to be named too.
pub fn packages(kernel: Kernel, names: &[&str]) -> Result<PathBuf> {
    let suite = kernel.suite();
    let odd = |name: &&&str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(known)
    };
    if let Some(name) = names.iter().find(odd) {
        bail!("`{name}` is no name of a package");
    }
    let name = format!("{suite}-{}", names.join("-"));
    let dir = target_dir().join("vm").join(name);
    let _lock = lock(&dir)?;
    let root = dir.join("root");
    if !root.exists() {
        let list = names.join(", ");
        eprintln!("vm: fetching {list} of Debian {suite}");
        fetch(suite, names, &dir)
            .with_context(|| format!("cannot fetch {list} into {}", dir.display()))?;
    }
    Ok(root)
}

/// Fetches, checks and unpacks; `root` appears only when all of that has succeeded.
fn fetch(suite: &str, names: &[&str], dir: &Path) -> Result<()> {
    let apt = Apt::new(&[suite], &dir.join("apt"))?;
    let unpacked = dir.join("unpacked");
    remove_tree(&unpacked)?;
    for name in names {
        apt.unpack(name, &unpacked)?;
    }
    fs::rename(&unpacked, dir.join("root")).context("cannot rename the unpacked packages")?;
    remove_tree(&dir.join("apt"))
}

/// Makes a folder and locks it: tests run in parallel, and each may be the first to want what is to
/// be in it.
pub(super) fn lock(dir: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// Removes a folder that may be there.
pub(super) fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// apt with lists, cache and sources of its own, so that any Debian release can be asked for.
#[derive(Debug)]
pub(super) struct Apt {
    dir: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Sets up apt for these releases below `dir` and fetches their indexes.
    pub(super) fn new(suites: &[&str], dir: &Path) -> Result<Self> {
        remove_tree(dir)?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let sources = dir.join("sources.list");
        let mirror = mirror()?;
        let lines: String = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        fs::write(&sources, lines)
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let config = dir.join("apt.conf");
        // The host's own configuration still sets proxies and the like. Sandbox::User: the unprivileged user of apt
        // may not be able to reach the target directory.
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

    /// Returns an apt program with this configuration.
    fn command(&self, program: &str) -> std::process::Command {
        let mut apt = command(program);
        apt.arg("--config-file")
            .arg(&self.config)
            .current_dir(&self.dir);
        apt
    }

    /// Returns one field of a package in the index, which apt has checked against the signed release.
    pub(super) fn field(&self, package: &str, name: &str) -> Result<String> {
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

    /// Downloads a package and unpacks it into a folder.
    pub(super) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        extract(&self.download(package)?, into)
    }

    /// Returns the versions of a package that the indexes have.
    pub(super) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = output(self.command("apt-cache").args(["madison", package]))?;
        let columns = |line: &str| line.split('|').nth(1).map(|word| word.trim().to_owned());
        Ok(table.lines().filter_map(columns).collect())
    }

    /// Downloads packages (`NAME` or `NAME=VERSION`) with all their dependencies, and returns the archives. apt compares
    /// them with the indexes itself.
    pub(super) fn download_all(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let options = ["-qq", "--yes", "--no-install-recommends", "--download-only"];
        let mut install = self.command("apt-get");
        output(install.args(options).arg("install").args(packages))?;
        let mut archives = Vec::new();
        for entry in fs::read_dir(self.dir.join("cache/archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                archives.push(path);
            }
        }
        Ok(archives)
    }

    /// Downloads a package and compares its SHA256 with the index.
    fn download(&self, package: &str) -> Result<PathBuf> {
        let expected = self.field(package, "SHA256")?;
        output(self.command("apt-get").args(["-qq", "download", package]))?;
        let start = format!("{package}_");
        let is_it = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&start) && name.ends_with(".deb")
        };
        let archive = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(is_it)
            .with_context(|| format!("apt-get download left no {package}"))?;
        let sum = sha256(&archive)?;
        if sum != expected {
            bail!(
                "{} has SHA256 {sum}, the index says {expected}",
                archive.display()
            );
        }
        Ok(archive)
    }
}

/// Returns the SHA256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let line = output(command("sha256sum").arg(path))?;
    // A name with odd characters makes sha256sum begin the line with a backslash.
    let sum = line.trim_start_matches('\\').split(' ').next();
    Ok(sum.unwrap_or_default().to_owned())
}

/// Unpacks a package into a folder.
pub(super) fn extract(archive: &Path, into: &Path) -> Result<()> {
    let mut unpack = command("dpkg-deb");
    output(unpack.arg("--extract").arg(archive).arg(into))?;
    Ok(())
}

/// Returns the Debian mirror that the host uses.
pub(super) fn mirror() -> Result<String> {
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
