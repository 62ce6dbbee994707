//! The container beside the attacker, which reads and writes its files at a steady pace.

use std::collections::BTreeMap;
use std::time::Duration;

use support::{Container, Limits, Scene};

/// What it uses: a view of the cached connection, one of the live connection, a tunable, and a file below a directory
/// graft.
pub(crate) const FILES: [&str; 5] = [
    "read:/proc/meminfo",
    "read:/proc/vmstat",
    "read:/proc/sys/vm/swappiness",
    "write:/proc/sys/vm/swappiness=33\n",
    "read:/sys/devices/system/cpu/cpu0/topology/core_id",
];

/// A container that measures.
#[derive(Debug)]
pub(crate) struct Neighbour {
    container: Container,
}

/// What it has measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The number of times that it used all files.
    pub(crate) passes: u64,
    /// What did not work.
    pub(crate) failures: Vec<String>,
    /// The nanoseconds of each use, by file.
    pub(crate) times: BTreeMap<String, Vec<u64>>,
}

impl Neighbour {
    /// Starts and attaches it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub(crate) fn start(scene: &Scene) -> Self {
        let limits = Limits {
            memory: Some(256 << 20),
            ..Limits::default()
        };
        let mut container = scene.container().limits(limits).start();
        scene.attach(&container);
        let program = container.program("probe");
        let start = ["start", "latencies", &program, "latencies"];
        container.ask(&[&start[..], &FILES].concat());
        Self { container }
    }

    /// Returns the container.
    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Uses its files for a while: once at least, however long that takes.
    #[track_caller]
    pub(crate) fn measure(&mut self, span: Duration) -> Measured {
        let line = format!("{} {}", usize::MAX, span.as_millis());
        let answer = self.container.ask(&["tell", "latencies", &line]);
        let answer = &answer["ok"];
        let failures = answer["failures"].as_array().unwrap();
        let times = answer["times"].as_object().unwrap();
        Measured {
            passes: answer["passes"].as_u64().unwrap(),
            failures: failures.iter().map(ToString::to_string).collect(),
            times: times
                .iter()
                .map(|(file, times)| {
                    let times = times.as_array().unwrap().iter();
                    (
                        file.clone(),
                        times.map(|time| time.as_u64().unwrap()).collect(),
                    )
                })
                .collect(),
        }
    }
}
