//! Fixtures: a recorded host, a recorded cgroup, and who the container is. README.md beside the archives in
//! `tests/fixtures` says how they are read, recorded and changed.
//!
//! ```text
//! fixtures/<kernel>-<v1|v2>-<case>.txt
//!   host/proc host/sys          the host
//!   cgroup/<controllers>/...    one tree per hierarchy: "cpu,cpuacct" for v1, "unified" for v2
//!   container.json              who and when
//! fixtures/<kernel>-<v1|v2>-<case>.expect.txt
//!   proc sys                    what the views say
//! ```
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use archive::Archive;
use eci_fs_emulators::{
    Cgroup, Container, Context, CpuIds, DescriptorCache, Hierarchy, History, Host, Identity, Load,
    Settings, Version, initial_load, read_threads,
};
use tempfile::TempDir;

pub(crate) struct Fixture {
    /// As [`all`] returns it.
    pub(crate) path: PathBuf,
    /// The unpacked files, which go with the fixture.
    pub(crate) dir: TempDir,
    pub(crate) host: Host,
    pub(crate) container: Container,
    pub(crate) settings: Settings,
    pub(crate) boottime: Duration,
    pub(crate) load: Load,
}

/// container.json, as it was recorded. The optional fields are for fixtures written by hand.
#[derive(serde::Deserialize)]
struct Recorded {
    case: String,
    hierarchies: Vec<RecordedHierarchy>,
    init: Init,
    boottime_offset_nsec: Option<i64>,
    #[serde(default)]
    cpu_ids: String,
}

#[derive(serde::Deserialize)]
struct RecordedHierarchy {
    dir: String,
    version: u8,
    controllers: Vec<String>,
    path: String,
}

#[derive(serde::Deserialize)]
struct Init {
    start_ticks: u64,
    nspid: Vec<u32>,
}

impl Fixture {
    /// Opens one of [`all`].
    pub(crate) fn open(path: &Path) -> Fixture {
        let unpacked = unpack(path);
        let dir = unpacked.path();
        let text = std::fs::read_to_string(dir.join("container.json")).unwrap();
        let recorded: Recorded = serde_json::from_str(&text).unwrap();
        let host = Host::from_dirs(open(&dir.join("host/proc")), open(&dir.join("host/sys")));
        let cgroup = recorded
            .hierarchies
            .iter()
            .map(|recorded| hierarchy(dir, recorded));
        let container = Container {
            cgroup: Cgroup::new(cgroup.collect()),
            identity: Identity {
                id: recorded.case,
                start: Duration::from_millis(recorded.init.start_ticks * 10),
                boottime_offset: recorded.boottime_offset_nsec.map(i128::from),
                pid_level: u32::try_from(recorded.init.nspid.len()).unwrap() - 1,
                // Linux has this from 6.14 on.
                network: None,
                pid_max_is_own: path.to_string_lossy().contains("/6.18-"),
                boot_id: *b"\x01\x23\x45\x67\x89\xab\x4d\xef\x81\x23\x45\x67\x89\xab\xcd\xef",
                host_secret: [7; 32],
            },
            history: History::new(),
            tunables: Default::default(),
            can_measure_cpus: Default::default(),
        };
        let cpu_ids = if recorded.cpu_ids == "dense" {
            CpuIds::Dense
        } else {
            CpuIds::Physical
        };
        let threads = read_threads(&host, &container).unwrap();
        let uptime = std::fs::read_to_string(dir.join("host/proc/uptime")).unwrap();
        let boottime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        Fixture {
            path: path.to_owned(),
            dir: unpacked,
            host,
            container,
            settings: Settings {
                cpu_ids,
                ..Settings::default()
            },
            boottime: Duration::from_millis((boottime * 1000.0).round() as u64),
            load: Load {
                avenrun: initial_load(threads.active()),
                threads,
            },
        }
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context::new(&self.host, &self.container, &self.settings, self.boottime)
            .with_cgroup()
            .with_load(self.load)
    }
}

/// The paths of all fixtures without the ending of their archives, sorted by name.
pub(crate) fn all() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut fixtures: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let path = path.to_str().unwrap().strip_suffix(".txt")?;
            (!path.ends_with(".expect")).then(|| path.into())
        })
        .collect();
    fixtures.sort();
    assert!(!fixtures.is_empty());
    fixtures
}

/// What was recorded for one of [`all`].
pub(crate) fn recorded(path: &Path) -> Archive {
    Archive::read(Path::new(&format!("{}.txt", path.display()))).unwrap()
}

/// The path of the archive with what the views of one of [`all`] are expected to say.
pub(crate) fn expected(path: &Path) -> PathBuf {
    format!("{}.expect.txt", path.display()).into()
}

/// The files that were recorded for one of [`all`]. They are deleted when the value is dropped.
pub(crate) fn unpack(path: &Path) -> TempDir {
    recorded(path).unpack_temporary().unwrap()
}

/// The first fixture of a cgroup version, "v1" or "v2". Its files stay open, as they do in the server.
pub(crate) fn as_in_the_server(version: &str) -> Option<Fixture> {
    let wanted = format!("-{version}-");
    let dir = all()
        .into_iter()
        .find(|dir| dir.display().to_string().contains(&wanted))?;
    let mut fixture = Fixture::open(&dir);
    let cache = Arc::new(DescriptorCache::new(NonZeroUsize::new(1024).unwrap()));
    fixture.container.cgroup.cache_descriptors_in(&cache);
    Some(fixture)
}

pub(crate) fn open(path: &Path) -> OwnedFd {
    File::open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .into()
}

fn hierarchy(fixture: &Path, recorded: &RecordedHierarchy) -> Hierarchy {
    let path = recorded.path.trim_matches('/');
    let depth = path.split('/').filter(|name| !name.is_empty()).count();
    Hierarchy {
        version: if recorded.version == 1 {
            Version::V1
        } else {
            Version::V2
        },
        controllers: recorded
            .controllers
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect(),
        dir: open(&fixture.join("cgroup").join(&recorded.dir).join(path)),
        depth: depth.try_into().unwrap(),
        cache: Default::default(),
    }
}
