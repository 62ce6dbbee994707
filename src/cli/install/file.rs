//! A configuration file: it is read once, shown as a diff, copied, and replaced atomically.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use eci_fs_mountd::regular_file;
use eci_fs_protocol::error::{Error, Result};
use similar::TextDiff;
use tempfile::NamedTempFile;

/// The suffix of the copy of the original file.
const BACKUP: &str = ".before-eci-fs";

/// A file of an engine's configuration, and its text.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    text: Option<String>,
}

impl File {
    /// Reads the file at `path` below `root`, if there is one.
    pub(super) fn read(root: &Path, path: &str) -> Result<Self> {
        let path = below(root, path)?;
        let text = read(&path)?;
        Ok(Self { path, text })
    }

    /// Returns the path of the file, below the root.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the text that was read. Returns none if the file does not exist.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Returns the text of the copy, if there is one.
    pub(super) fn backup(&self) -> Result<Option<String>> {
        read(&self.backup_path())
    }

    /// Returns the change in the format of `diff -u`.
    pub(super) fn diff(&self, after: Option<&str>) -> String {
        let name = |there: bool| match there {
            true => self.path.display().to_string(),
            false => "/dev/null".to_owned(),
        };
        let (before, after) = (self.text(), after);
        TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default())
            .unified_diff()
            .header(&name(before.is_some()), &name(after.is_some()))
            .to_string()
    }

    /// Copies the file, and returns the path of the copy. Returns none when the file does not exist.
    pub(super) fn back_up(&self) -> Result<Option<PathBuf>> {
        let Some(text) = self.text() else {
            // A stale copy would be taken for the current text.
            self.remove_backup()?;
            return Ok(None);
        };
        let copy = self.backup_path();
        self.replace(&copy, text)?;
        Ok(Some(copy))
    }

    /// Removes the copy.
    pub(super) fn remove_backup(&self) -> Result<()> {
        remove(&self.backup_path())
    }

    /// Replaces the text atomically: a reader sees the old text or the new one.
    pub(super) fn write(&self, text: &str) -> Result<()> {
        self.replace(&self.path, text)
    }

    /// Removes the file.
    pub(super) fn remove(&self) -> Result<()> {
        remove(&self.path)
    }

    fn backup_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(BACKUP);
        path.into()
    }

    /// Replaces `path` by a file with the mode and the owner of this one.
    fn replace(&self, path: &Path, text: &str) -> Result<()> {
        let trouble = |e: std::io::Error| Error::io("write", path, e);
        let dir = path.parent().unwrap_or_else(|| Path::new("/"));
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let (mode, owner) = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_symlink() => {
                return Err(Error::refused(format!(
                    "{} is a symbolic link: somebody else manages that file",
                    self.path.display()
                ))
                .remedy("see the change with --dry-run, and make it where the file comes from"));
            }
            Ok(found) => (found.mode() & 0o7777, Some((found.uid(), found.gid()))),
            Err(e) if e.kind() == ErrorKind::NotFound => (0o644, None),
            Err(e) => return Err(trouble(e)),
        };
        let mut file = NamedTempFile::with_prefix_in(".eci-fs-", dir).map_err(trouble)?;
        file.write_all(text.as_bytes()).map_err(trouble)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(file.as_file(), Some(uid), Some(gid)).map_err(trouble)?;
        }
        let mode = fs::Permissions::from_mode(mode);
        file.as_file().set_permissions(mode).map_err(trouble)?;
        file.as_file().sync_all().map_err(trouble)?;
        file.persist(path).map_err(|e| trouble(e.error))?;
        let dir = fs::File::open(dir).map_err(trouble)?;
        dir.sync_all().map_err(trouble)
    }
}

/// Returns the text of a file. Returns none if it does not exist.
fn read(path: &Path) -> Result<Option<String>> {
    match regular_file::read_to_string(path, regular_file::MAX_CONFIG) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::InvalidData => {
            Err(Error::refused(format!("{} is not UTF-8", path.display())))
        }
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Returns `path` below `root`. A symbolic link to a directory outside of `root` is refused: the change would hit a
/// file of the host.
fn below(root: &Path, path: &str) -> Result<PathBuf> {
    let root = root
        .canonicalize()
        .map_err(|e| Error::io("find", root, e))?;
    let mut dir = root.clone();
    let names = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    for name in names {
        if dir.exists() && !dir.canonicalize().is_ok_and(|real| real.starts_with(&root)) {
            return Err(Error::refused(format!(
                "{} leads out of {}",
                dir.display(),
                root.display()
            )));
        }
        dir.push(name);
    }
    Ok(dir)
}
