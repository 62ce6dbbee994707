//! Other programs on the host disturb figures of time. In a long run, this test and all that it starts have a weight of
//! 28 times theirs. What belongs to the run competes as ever, because all of it has the same weight.

use std::fs;
use std::path::{Path, PathBuf};

use support::Container;

/// The files of a cgroup's weight, v1 and v2, with 28 times the usual weight.
const WEIGHTS: [(&str, &str); 2] = [("cpu.shares", "29154"), ("cpu.weight", "2847")];

/// A cgroup with that weight. This process is in it until the value is dropped.
#[derive(Debug)]
pub(crate) struct Preferred {
    before: PathBuf,
    dir: PathBuf,
}

/// Gives a container that weight. Returns the directory of its cgroup in the hierarchy of the weight.
#[track_caller]
pub(crate) fn prefer(container: &Container) -> PathBuf {
    let dirs = container.cgroup().dirs();
    let mut weights = WEIGHTS.into_iter();
    let found = weights.find_map(|(file, weight)| {
        let dir = dirs.iter().find(|dir| dir.join(file).exists())?;
        Some((dir, dir.join(file), weight))
    });
    let (dir, file, weight) = found.expect("a cpu controller");
    fs::write(file, weight).unwrap();
    dir.clone()
}

impl Preferred {
    /// Puts this process into such a cgroup beside that of a container, which [`prefer`] returned.
    #[track_caller]
    pub(crate) fn beside(container: &Path) -> Self {
        let top = container.parent().unwrap();
        let dir = top.join(format!("eci-test-attack-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        for (file, weight) in WEIGHTS {
            if dir.join(file).exists() {
                fs::write(dir.join(file), weight).unwrap();
            }
        }
        let this = Self {
            before: own_cgroup(top),
            dir,
        };
        enter(&this.dir);
        this
    }
}

/// Returns the cgroup of this process in the hierarchy that is mounted at `top`.
#[track_caller]
pub(crate) fn own_cgroup(top: &Path) -> PathBuf {
    let name = top.file_name().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    });
    // The mount point of a hierarchy of v1 has the names of its controllers; the line of v2 has none.
    let found = lines.find(|(controllers, _)| *controllers == name || controllers.is_empty());
    let (_, path) = found.unwrap();
    top.join(path.trim_start_matches('/'))
}

#[track_caller]
fn enter(dir: &Path) {
    fs::write(dir.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

impl Drop for Preferred {
    fn drop(&mut self) {
        enter(&self.before);
        let removed = fs::remove_dir(&self.dir);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}
