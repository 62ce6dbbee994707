//! The ranges that are given, of all daemons of the host: a directory with a symbolic link for each.
//!
//! Two daemons with two runtime directories know nothing of each other, and may not give the same range. So this directory
//! is shared, and locked while a range is looked for. The name of a link is the first id of the range. What it says is the
//! first process that held the range, and the path of the record. A link is made and read as a whole: it is never torn.
//! A link whose record is not there is what a daemon has left that was killed: the range is free if no process has an id
//! of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, flock, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::record::{self, Member};
use crate::container::procfs::Proc;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Result};

/// The path, unless an option names another one.
pub const DEFAULT: &str = "/run/eci-fs-ids";

/// The environment variable that names another one.
pub const VARIABLE: &str = "ECI_FS_IDS_DIR";

/// The file with the first id of the range that was given last.
const LAST: &str = "last";

/// The directory, while this daemon alone may change it.
#[derive(Debug)]
pub(super) struct Claims {
    dir: RuntimeDir,
}

/// The holder of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The first process that held the range.
    first: Member,
    /// The path of the record.
    pub(super) record: PathBuf,
}

impl Claims {
    /// Opens and locks the directory, and makes it if it is not there. It is unlocked when this is dropped.
    ///
    /// # Errors
    /// When it cannot be trusted or locked.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        let dir = RuntimeDir::create(path)?;
        rustix::io::retry_on_intr(|| flock(&dir, FlockOperation::LockExclusive))
            .map_err(|e| Error::io("lock", path, e))?;
        Ok(Self { dir })
    }

    /// Returns the first ids of all ranges that have a link.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn all(&self) -> Result<BTreeSet<u32>> {
        let names = self.dir.names()?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns the first id of the range that was given last; none if that is not known.
    pub(super) fn last(&self) -> Option<u32> {
        let text = self.dir.read(LAST).ok()??;
        text.trim().parse().ok()
    }

    /// Notes the range that was given last.
    ///
    /// # Errors
    /// When the file system is full.
    pub(super) fn set_last(&self, first_id: u32) -> Result<()> {
        self.dir.write(LAST, &format!("{first_id}\n"))
    }

    /// Returns who has a range; none if nobody has it, or the link says nothing.
    pub(super) fn of(&self, first_id: u32) -> Option<Claim> {
        let text = readlinkat(&self.dir, first_id.to_string(), Vec::new()).ok()?;
        let text = text.into_string().ok()?;
        let mut words = text.splitn(3, ' ');
        Some(Claim {
            first: Member {
                pid: words.next()?.parse().ok()?,
                start_ticks: words.next()?.parse().ok()?,
            },
            record: words.next()?.into(),
        })
    }

    /// Gives a range to a container. A link that is there is replaced.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub(super) fn put(&self, first_id: u32, first: Member, record: &Path) -> Result<()> {
        self.remove(first_id)?;
        let name = first_id.to_string();
        let text = format!("{} {} {}", first.pid, first.start_ticks, record.display());
        symlinkat(text, &self.dir, &name).map_err(|e| {
            Error::io("create", self.dir.path().join(name), e).remedy("free space there")
        })
    }

    /// Takes the link of a range away.
    ///
    /// # Errors
    /// When the directory is read-only.
    pub(super) fn remove(&self, first_id: u32) -> Result<()> {
        let name = first_id.to_string();
        match unlinkat(&self.dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", self.dir.path().join(name), e)),
        }
    }
}

impl Claim {
    /// Returns true if a process lives that holds the range `first_id`.
    pub(super) fn is_held(&self, proc: &Proc, first_id: u32) -> bool {
        let record = record::read(&self.record).ok().flatten();
        let members = record.filter(|record| record.first_id == first_id);
        let members = members.map(|record| record.members).unwrap_or_default();
        let mut all = members.into_iter().chain([self.first]);
        all.any(|member| member.lives(proc))
    }
}
