//! The two overlays of one container.
//!
//! An engine mounts an overlay for a container. An isolated container has another one, of ID-mapped clones of the same
//! layers. Each caches names, and the kernel tells neither what the other changes. So `docker cp` would miss the files of the
//! container, and the container those of `docker cp`.
//!
//! The thread `overlays` hears by fanotify of each use of the engine's overlay. After the use the kernel forgets the unused
//! names of that overlay, so the next use finds what the container has changed. After a write it forgets the container's
//! too. A container cannot reach the overlay of its engine, so it causes none of that.
//!
//! An event holds the engine's mount until it is read, a moment later. An unmount just then is EBUSY, unless it is lazy, as
//! that of engines is.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::error::{Error, Result};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, Timespec};
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

use crate::container::procfs::Proc;
use crate::faults;
use crate::threads::{self, Mend};

/// A use of the engine's overlay is over when nothing was heard for this long.
const SILENCE: Duration = Duration::from_millis(3);

/// The longest time for which the names of a use without a pause are kept.
const LONGEST: Duration = Duration::from_millis(100);

/// The number of reads after which the thread turns to the next container. One read is some 170 events.
const MOST_READS: usize = 64;

/// The type of an overlay (`OVERLAYFS_SUPER_MAGIC` of linux/magic.h).
const OVERLAY: i64 = 0x794c_7630;

/// The overlays of all isolated containers.
#[derive(Debug)]
pub(crate) struct Overlays {
    epoll: OwnedFd,
    pairs: Mutex<BTreeMap<u64, Arc<Pair>>>,
    /// True if the thread has been started. Where no container is isolated there is none.
    has_thread: Mutex<bool>,
}

/// The overlays of one container.
#[derive(Debug)]
struct Pair {
    heard: Fanotify,
    engines: Names,
    containers: Names,
    used: Mutex<Option<Use>>,
}

/// A use of the engine's overlay that is not over.
#[derive(Debug, Clone, Copy)]
struct Use {
    began: Instant,
    last: Instant,
    wrote: bool,
}

/// The names that an overlay has cached. This holds the file system and none of its mounts, so these can be unmounted.
#[derive(Debug)]
struct Names(OwnedFd);

impl Overlays {
    /// Returns no overlays yet.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| Error::io("make", "an epoll set", e))?;
        Ok(Arc::new(Self {
            epoll,
            pairs: Mutex::default(),
            has_thread: Mutex::default(),
        }))
    }

    /// Starts the thread if there is none.
    fn start(self: &Arc<Self>) -> Result<()> {
        let mut has_thread = self.has_thread.lock();
        if !*has_thread {
            let this = Arc::clone(self);
            threads::start("overlays", Mend::Again, move || {
                loop {
                    this.wait();
                }
            })?;
            *has_thread = true;
        }
        Ok(())
    }

    /// Watches the overlays of the container in `slot`, until [`Self::forget`]. `engine` and `container` are the
    /// roots of the engine's overlay and of its own, open for reading.
    ///
    /// # Errors
    /// When one of the two is no overlay, or cannot be watched, and when there are no more threads.
    pub(crate) fn watch(
        self: &Arc<Self>,
        slot: u64,
        engine: OwnedFd,
        container: OwnedFd,
    ) -> Result<()> {
        check(&container)?;
        self.enter(slot, &engine, &container)
    }

    /// Watches the overlays of a container that another daemon has attached. `engine` is the path of the engine's overlay.
    ///
    /// # Errors
    /// As [`Self::watch`]; also when the engine has no overlay there any more.
    pub(crate) fn watch_again(
        self: &Arc<Self>,
        slot: u64,
        proc: &Proc,
        pid: i32,
        engine: &Path,
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let engine = rustix::fs::open(engine, flags, Mode::empty())
            .map_err(|e| Error::io("open", engine, e))?;
        // The container decides what its root is by now. The file system of that must not be asked for anything.
        let root = proc.open_at(&format!("{pid}/root"), OFlags::PATH)?;
        let mount = mount_of(&root)?;
        let mounts = proc.mounts(&format!("{pid}/mountinfo"))?;
        let is_overlay = mounts
            .iter()
            .any(|one| one.id == mount && one.fstype == "overlay");
        if !is_overlay {
            return Err(Error::refused(
                "the root of the container is no overlay any more",
            ));
        }
        self.enter(slot, &engine, &root)
    }

    fn enter(self: &Arc<Self>, slot: u64, engine: &OwnedFd, container: &OwnedFd) -> Result<()> {
        check(engine)?;
        self.start()?;
        let pair = Pair::new(engine, container)?;
        let mut pairs = self.pairs.lock();
        epoll::add(
            &self.epoll,
            &pair.heard,
            EventData::new_u64(slot),
            EventFlags::IN,
        )
        .map_err(|e| Error::io("watch", "the overlay of an engine", e))?;
        pairs.insert(slot, Arc::new(pair));
        Ok(())
    }

    /// Ends the watch of the overlays of a container, if there is one.
    pub(crate) fn forget(&self, slot: u64) {
        let Some(pair) = self.pairs.lock().remove(&slot) else {
            return;
        };
        // The end of an overlay waits for the disk.
        let ended = std::thread::Builder::new()
            .name("overlay-end".to_owned())
            .spawn(move || drop(pair));
        if let Err(error) = ended {
            tracing::debug!(%error, "waiting for the disk");
        }
    }

    /// Waits for uses of overlays, and ends those that are over.
    fn wait(&self) {
        let next = self
            .pairs
            .lock()
            .values()
            .filter_map(|pair| pair.due())
            .min();
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or_default()
        });
        let mut events = Vec::with_capacity(64);
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref())
        {
            tracing::debug!(%error, "ignoring");
        }
        faults::at("overlays");
        let now = Instant::now();
        let over: Vec<(u64, Arc<Pair>)> = {
            let pairs = self.pairs.lock();
            for event in events {
                if let Some(pair) = pairs.get(&event.data.u64()) {
                    pair.hear();
                }
            }
            let due = |pair: &&Arc<Pair>| pair.due().is_some_and(|at| at <= now);
            let all = pairs.iter().filter(|(_, pair)| due(pair));
            all.map(|(slot, pair)| (*slot, Arc::clone(pair))).collect()
        };
        // Without the lock: the kernel may wait here for what a container writes to its disk.
        for (slot, pair) in over {
            if let Err(error) = pair.end_use() {
                tracing::warn!(slot, %error, "an engine may see old names in its overlay");
            }
        }
    }
}

impl Pair {
    fn new(engine: &OwnedFd, container: &OwnedFd) -> Result<Self> {
        let trouble = |e: nix::errno::Errno| Error::io("watch", "the overlay of an engine", e);
        let (engines, containers) = (Names::of(engine)?, Names::of(container)?);
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        // The kernel opens the file of each event. A FIFO must not make it wait.
        let opened = EventFFlags::O_RDONLY | EventFFlags::O_NONBLOCK | EventFFlags::O_CLOEXEC;
        let heard = Fanotify::init(flags, opened).map_err(trouble)?;
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        let uses = MaskFlags::FAN_OPEN
            | MaskFlags::FAN_CLOSE_WRITE
            | MaskFlags::FAN_CLOSE_NOWRITE
            | MaskFlags::FAN_ONDIR;
        heard
            .mark::<_, Path>(flags, uses, engine, None)
            .map_err(trouble)?;
        Ok(Self {
            heard,
            engines,
            containers,
            used: Mutex::default(),
        })
    }

    /// Reads what was heard of the engine's overlay.
    fn hear(&self) {
        let now = Instant::now();
        let mut used = self.used.lock();
        let own = std::process::id();
        for _ in 0..MOST_READS {
            let Ok(events) = self.heard.read_events() else {
                return;
            };
            for event in events {
                // What got lost may have been a write.
                let lost = event.mask().contains(MaskFlags::FAN_Q_OVERFLOW);
                if !lost && u32::try_from(event.pid()) == Ok(own) {
                    continue;
                }
                let wrote = lost || event.mask().contains(MaskFlags::FAN_CLOSE_WRITE);
                let used = used.get_or_insert(Use {
                    began: now,
                    last: now,
                    wrote: false,
                });
                used.last = now;
                used.wrote |= wrote;
            }
        }
    }

    /// Returns the time at which the use ends that is under way.
    fn due(&self) -> Option<Instant> {
        let used = (*self.used.lock())?;
        Some((used.last + SILENCE).min(used.began + LONGEST))
    }

    /// Has the kernel forget the names that are out of date after a use.
    fn end_use(&self) -> Result<()> {
        let Some(used) = self.used.lock().take() else {
            return Ok(());
        };
        self.engines.forget()?;
        if used.wrote {
            self.containers.forget()?;
        }
        Ok(())
    }
}

impl Names {
    /// Returns the names of the overlay with this root.
    fn of(root: impl AsFd) -> Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        fspick(root, "", flags)
            .map(Self)
            .map_err(|e| Error::io("pick", "an overlay", e))
    }

    /// Has the kernel forget the names that nobody uses: a reconfiguration that changes nothing does that.
    fn forget(&self) -> Result<()> {
        fsconfig_reconfigure(self.0.as_fd()).map_err(|e| Error::io("reconfigure", "an overlay", e))
    }
}

/// Has the kernel forget the names of the overlay at `root` that nobody uses. A root of another type is left alone: it has
/// one view for all.
///
/// # Errors
/// When it cannot be opened, and when the kernel refuses it.
pub fn forget_names(root: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(root, flags, Mode::empty()).map_err(|e| Error::io("open", root, e))?;
    match is_overlay(&root)? {
        true => Names::of(&root)?.forget(),
        false => Ok(()),
    }
}

/// Returns the id of the mount of a descriptor. The kernel is asked, and not the file system.
fn mount_of(fd: &OwnedFd) -> Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    rustix::fs::statx(fd, "", flags, StatxFlags::MNT_ID)
        .map(|stat| stat.stx_mnt_id)
        .map_err(|e| Error::io("look at", "the root of a container", e))
}

fn is_overlay(root: &OwnedFd) -> Result<bool> {
    rustix::fs::fstatfs(root)
        .map(|stat| stat.f_type == OVERLAY)
        .map_err(|e| Error::io("look at", "the root of a container", e))
}

fn check(root: &OwnedFd) -> Result<()> {
    match is_overlay(root)? {
        true => Ok(()),
        false => Err(Error::refused("the root of a container is no overlay")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Two overlays of the same layers, in a mount namespace of their own.
    struct Scene {
        dir: tempfile::TempDir,
    }

    impl Scene {
        #[track_caller]
        fn new() -> Self {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let this = Self { dir };
            for name in ["lower", "upper", "work", "work-eci", "engine", "container"] {
                fs::create_dir(this.path(name)).unwrap();
            }
            fs::write(this.path("lower/passwd"), "root\n").unwrap();
            this.mount("work", "engine");
            this.mount("work-eci", "container");
            this
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(name)
        }

        #[track_caller]
        fn mount(&self, work: &str, at: &str) {
            let [lower, upper, work] = ["lower", "upper", work].map(|name| self.path(name));
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                upper.display(),
                work.display()
            );
            let flags = MsFlags::empty();
            mount(
                Some("overlay"),
                &self.path(at),
                Some("overlay"),
                flags,
                Some(options.as_str()),
            )
            .unwrap();
        }

        #[track_caller]
        fn open(&self, name: &str) -> OwnedFd {
            fs::File::open(self.path(name)).unwrap().into()
        }
    }

    /// Reads a file until it has this text; the daemon is another process than those that it hears.
    #[track_caller]
    fn becomes(path: &Path, text: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let cat = std::process::Command::new("cat")
                .arg(path)
                .output()
                .unwrap();
            if cat.stdout == text.as_bytes() {
                return;
            }
            assert!(Instant::now() < end, "{}: {cat:?}", path.display());
        }
    }

    #[track_caller]
    fn write(path: &Path, text: &str) {
        let script = r#"printf %s "$1" > "$0""#;
        let path = path.to_str().unwrap();
        let status = std::process::Command::new("sh")
            .args(["-c", script, path, text])
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn privileged_each_overlay_sees_what_was_changed_by_the_other() {
        let scene = Scene::new();
        let [engine, container] =
            ["engine/passwd", "container/passwd"].map(|name| scene.path(name));
        let overlays = Overlays::new().unwrap();
        overlays
            .watch(1, scene.open("engine"), scene.open("container"))
            .unwrap();
        for path in [&engine, &container] {
            becomes(path, "root\n");
        }
        // Copied up by the container, of which the engine's overlay knows nothing.
        write(&container, "root\nnew\n");
        becomes(&engine, "root\nnew\n");
        write(&engine, "from the engine\n");
        becomes(&container, "from the engine\n");
        assert!(!scene.path("container/later").exists());
        write(&scene.path("engine/later"), "later\n");
        becomes(&scene.path("container/later"), "later\n");
        overlays.forget(1);
    }

    #[test]
    fn privileged_an_overlay_that_is_watched_can_be_unmounted_and_mounted_again() {
        let scene = Scene::new();
        let overlays = Overlays::new().unwrap();
        overlays
            .watch(1, scene.open("engine"), scene.open("container"))
            .unwrap();
        // An event that the thread has not read holds the mount.
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = nix::mount::umount(&scene.path("engine")) {
            assert!(
                error == nix::errno::Errno::EBUSY && Instant::now() < end,
                "{error}"
            );
        }
        scene.mount("work", "engine");
        becomes(&scene.path("engine/passwd"), "root\n");
        overlays.forget(1);
    }

    #[test]
    fn privileged_what_is_no_overlay_is_refused() {
        let scene = Scene::new();
        let overlays = Overlays::new().unwrap();
        let error = overlays.watch(1, scene.open("lower"), scene.open("container"));
        assert!(error.unwrap_err().to_string().contains("no overlay"));
    }
}
