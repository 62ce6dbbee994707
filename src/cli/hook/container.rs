//! The container of a hook: the input that a runtime or LXC gives the hook.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use eci_fs_protocol::error::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::oci::bundle::{Bundle, CONFIG};
use crate::oci::state::{State, name_of};

/// The limit of the state in bytes. Runtimes write a few hundred bytes and the annotations.
const MAX_STATE: u64 = 16 << 20;

/// The container, as the engine describes it.
#[derive(Debug)]
pub(super) struct ContainerInfo {
    pub(super) name: String,
    pub(super) pid: i32,
    /// The root file system on the host, if the container has not entered it yet.
    pub(super) root: Option<PathBuf>,
    pub(super) unmasked: bool,
    /// True if its programs can measure CPUs; none if the engine's configuration does not tell.
    pub(super) measures_cpus: Option<bool>,
    /// True if a cgroup is mounted so that it can be written to.
    pub(super) writable_cgroup: bool,
    pub(super) annotations: BTreeMap<String, String>,
}

impl ContainerInfo {
    /// Returns the container of a runtime's state. Its bundle has the configuration `config`. `stage` is where the files of
    /// an isolated container are put together.
    pub(super) fn of_state(state: State, config: &Path, stage: &Path) -> Result<Self> {
        let name = name_of(&state.id);
        if state.pid <= 0 {
            return Err(Error::refused(format!(
                "the state of container {name} has no process of this host"
            ))
            .remedy("call it as a createRuntime hook"));
        }
        // The edited configuration of an isolated container is in the stage, which only the runtime of that container and its
        // hooks have. The bundle is not asked then: crun takes its working directory for the bundle, loses that where it
        // makes device nodes for a user namespace, and reports "/", where the host may have a file of that name.
        let bundle = match Bundle::read(stage, CONFIG.as_ref()) {
            // Who may not look into the stage has no isolated container.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Denied) => {
                Bundle::read(&state.bundle, config)?
            }
            bundle => bundle?,
        };
        let mut annotations = bundle.annotations;
        annotations.extend(state.annotations.unwrap_or_default());
        Ok(Self {
            name,
            pid: state.pid,
            root: Some(bundle.root),
            unmasked: bundle.unmasked,
            measures_cpus: Some(bundle.measures_cpus),
            writable_cgroup: bundle.writable_cgroup,
            annotations,
        })
    }

    /// Returns the container that LXC describes in the environment (lxc.container.conf(5), "Container hooks environment
    /// variables"). At start-host the container's init has entered its root and waits.
    pub(super) fn of_lxc() -> Result<Self> {
        let get = |name: &str| {
            std::env::var(name).map_err(|_| {
                Error::refused(format!("{name} is not set"))
                    .remedy("LXC sets it for the hook lxc.hook.start-host")
            })
        };
        let pid = std::env::var("LXC_PID").unwrap_or_default();
        Ok(Self {
            name: name_of(&get("LXC_NAME")?),
            pid: pid.parse().unwrap_or(0),
            root: None,
            unmasked: false,
            measures_cpus: None,
            writable_cgroup: false,
            annotations: BTreeMap::new(),
        })
    }
}

/// Reads the state that the runtime writes to standard input.
pub(super) fn read_state(deadline: Instant) -> Result<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        return Err(
            Error::refused("a runtime calls this, with a state on standard input")
                .remedy("by hand use `eci-fs attach PID`"),
        );
    }
    let mut state = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Error::refused("the time limit"))?;
        let ready = rustix::event::poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&left));
        if ready.is_ok_and(|ready| ready == 0) {
            return Err(Error::new(
                Kind::System,
                "the runtime did not write the whole state in time",
            ));
        }
        let read = input.read(&mut part);
        match read.map_err(|e| Error::io("read", "standard input", e))? {
            0 => return Ok(state),
            count => state.extend_from_slice(&part[..count]),
        }
        if state.len() as u64 > MAX_STATE {
            return Err(Error::refused("what stands on standard input is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_an_isolated_container_is_that_of_its_stage_whatever_the_bundle_is() {
        let dir = tempfile::tempdir().unwrap();
        let (stage, bundle) = (dir.path().join("stage"), dir.path().join("bundle"));
        for dir in [&stage, &bundle] {
            std::fs::create_dir(dir).unwrap();
        }
        let write = |dir: &Path, root: &str| {
            let text = format!(r#"{{"root":{{"path":"{root}"}}}}"#);
            std::fs::write(dir.join(CONFIG), text).unwrap();
        };
        let root = || {
            let state = State {
                id: "web".to_owned(),
                pid: 42,
                bundle: bundle.clone(),
                annotations: None,
            };
            let container = ContainerInfo::of_state(state, CONFIG.as_ref(), &stage);
            container.map(|container| container.root)
        };
        assert!(root().is_err());
        write(&bundle, "/other");
        assert_eq!(root().unwrap(), Some("/other".into()));
        write(&stage, "/own");
        assert_eq!(root().unwrap(), Some("/own".into()));
    }
}
