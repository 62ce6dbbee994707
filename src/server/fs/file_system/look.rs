//! A look at a path of a container, for a command: nothing is served.

use eci_fs_emulators::EMULATORS;
use eci_fs_protocol::link::Connection;

use super::FileSystem;
use super::operations::Target;
use crate::server::error::Errno;
use crate::server::fs::attr::{DirEntry, Kind};

/// The most symbolic links on the way to a path, as in the kernel.
const MOST_LINKS: usize = 40;

/// The file or directory at a path of a container.
#[derive(Debug)]
pub enum Looked {
    /// A file, with its text.
    File(Vec<u8>),
    /// A directory, with its entries.
    Directory(Vec<DirEntry>),
}

impl FileSystem {
    /// Returns what is at the absolute `path` of the container in `slot`: the text of a view, or what is at or below a
    /// directory graft. Links are followed.
    ///
    /// # Errors
    /// ENOENT when nothing of ours is there; ELOOP; EIO when it cannot be computed.
    pub fn look(&self, slot: u64, path: &str) -> Result<Looked, Errno> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            if EMULATORS.iter().any(|view| view.facts().path == path) {
                return self.text(slot, &path).map(Looked::File);
            }
            let mut id = self.directories.top(slot)?;
            let mut kind = Kind::Directory;
            let mut so_far = String::new();
            let mut names = path.split('/').filter(|name| !name.is_empty());
            while kind == Kind::Directory
                && let Some(name) = names.next()
            {
                id = self.find(Connection::Live, id, name)?;
                kind = match self.target(id)? {
                    Target::Directory => Kind::Directory,
                    Target::View(_) => Kind::File,
                    Target::Graft(place) => self.grafts.attr(id, &place, false)?.kind,
                };
                if kind != Kind::Symlink {
                    so_far = format!("{so_far}/{name}");
                }
            }
            let rest: Vec<&str> = names.collect();
            match (kind, self.target(id)?) {
                (Kind::Symlink, Target::Graft(place)) => {
                    let link = self.grafts.read_link(&place)?;
                    let link = String::from_utf8_lossy(&link);
                    path = join(&so_far, &format!("{link}/{}", rest.join("/")));
                }
                _ if !rest.is_empty() => return Err(Errno::NOTDIR),
                (Kind::Directory, Target::Graft(place)) => {
                    return self.grafts.entries(&place).map(Looked::Directory);
                }
                (Kind::File, Target::Graft(place)) => {
                    let content = self.grafts.content(&place)?;
                    return content.at(0).map(|text| Looked::File(text.to_vec()));
                }
                (_, Target::View(_)) => return self.text(slot, &path).map(Looked::File),
                // A directory on the way to views is the kernel's own.
                _ => return Err(Errno::NOENT),
            }
        }
        Err(Errno(libc::ELOOP))
    }
}

/// Returns the path to which the link `target` in the directory `dir` leads, without `.` and `..`.
fn join(dir: &str, target: &str) -> String {
    let whole = match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("{dir}/{target}"),
    };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/').filter(|name| !name.is_empty()) {
        match name {
            "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
        .iter()
        .fold(String::new(), |path, name| path + "/" + name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_from_its_directory_or_from_the_top() {
        let dir = "/sys/devices/system/cpu/cpu0";
        assert_eq!(
            join(dir, "../../node/node0"),
            "/sys/devices/system/node/node0"
        );
        assert_eq!(join(dir, "./topology/"), format!("{dir}/topology"));
        assert_eq!(join(dir, "/proc/stat"), "/proc/stat");
        assert_eq!(join("/a", "../../../b"), "/b");
    }
}
