//! The output of a program, and the parts of it that describe the container or the host.

use crate::Case;

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// The machine's: all memory, all CPUs, since its boot.
    Machine,
    /// The container's: its limit of memory, the CPUs that its quota and its cpuset leave, since its start.
    Container,
    /// The CPUs of its cpuset: those its threads may run on. A quota does not change them.
    Cpuset,
    /// The container's, and those below the highest of them.
    Below,
    /// Nothing: the machine's figure is hidden, and the container has none.
    Zero,
    /// No figure: the program does what it was asked for.
    Works,
    /// The same, except in a container without CPU 0.
    NeedsFirst,
    /// The same, except where it may run on a CPU whose id is not below the number of CPUs that are shown.
    NeedsLow,
}

impl Means {
    /// As the table has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Machine => "the machine's",
            Self::Container => "the container's",
            Self::Cpuset => "its cpuset's",
            Self::Below => "the container's and lower ones",
            Self::Zero => "0",
            Self::Works => "works",
            Self::NeedsFirst => "fails without CPU 0",
            Self::NeedsLow => "fails with high ids",
        }
    }
}

/// What a program said in one container, with the views or without.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its words.
    pub(crate) text: String,
    /// In which container.
    pub(crate) case: &'static Case,
    /// Whether the views were grafted.
    pub(crate) attached: bool,
    /// The machine's seconds since its boot when it had ended.
    pub(crate) machine_up: f64,
    /// The container's seconds since its start, as the test measured them.
    pub(crate) container_up: f64,
    /// The machine's load of the last 15 minutes.
    pub(crate) machine_load: f64,
    /// The container's own load of the last 15 minutes; none where the views are gone.
    pub(crate) container_load: Option<f64>,
}

impl Said {
    /// That this is an amount of memory.
    #[track_caller]
    pub(crate) fn is_memory(&self, bytes: u64, means: Means) {
        let near = |whole: u64, part: u64| bytes.abs_diff(whole) <= part;
        let good = match means {
            // A node counts less than the machine, and some programs print whole gigabytes.
            Means::Machine => machine_memory().iter().any(|all| near(*all, all / 20)),
            Means::Container => near(self.case.memory, 1 << 20),
            Means::Zero => bytes == 0,
            _ => false,
        };
        assert!(good, "{bytes} bytes are not {}: {self:#?}", means.word());
    }

    /// That this is a number of CPUs.
    #[track_caller]
    pub(crate) fn is_count(&self, count: usize, means: Means) {
        let expected = self.cpus(means).len();
        assert_eq!(count, expected, "CPUs are not {}: {self:#?}", means.word());
    }

    /// That these are ids of CPUs.
    #[track_caller]
    pub(crate) fn is_list(&self, ids: &[u64], means: Means) {
        assert_eq!(
            ids,
            self.cpus(means),
            "CPUs are not {}: {self:#?}",
            means.word()
        );
    }

    /// Ids of CPUs.
    #[track_caller]
    pub(crate) fn cpus(&self, means: Means) -> Vec<u64> {
        match means {
            Means::Machine => machine_cpus(),
            Means::Container => self.case.visible(),
            Means::Cpuset => self.case.cpus(),
            Means::Below => (0..=self.case.visible().pop().unwrap()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the script of [`crate::case::ended`] succeeded.
    #[track_caller]
    pub(crate) fn succeeded(&self) -> bool {
        let last = self.text.lines().last().unwrap_or_default();
        match last.strip_prefix("exit ") {
            Some(code) => code == "0",
            None => panic!("it has not said how it ended: {self:#?}"),
        }
    }

    /// That the program did what it was asked for, or failed.
    #[track_caller]
    pub(crate) fn is_success(&self, done: bool, means: Means) {
        let expected = match means {
            Means::Works => true,
            Means::NeedsFirst => self.case.cpus().contains(&0),
            Means::NeedsLow => {
                let shown = self.case.visible().len() as u64;
                self.case.cpus().iter().all(|id| *id < shown)
            }
            _ => panic!("{means:?} is a figure"),
        };
        assert_eq!(done, expected, "not {:?}: {self:#?}", means.word());
    }

    /// That this is a time since a start, as a program prints it that counts in units of `unit` seconds.
    #[track_caller]
    pub(crate) fn is_uptime(&self, seconds: f64, unit: f64, means: Means) {
        let since = match means {
            Means::Machine => self.machine_up,
            _ => self.container_up,
        };
        // The container is some time old when the test's clock starts, and so is the text when it ends.
        let good = (since - seconds).abs() <= unit + 5.0;
        assert!(
            good,
            "{seconds} seconds are not {}: {self:#?}",
            means.word()
        );
    }

    /// That this is a load of the last 15 minutes. The container has had three busy threads from its start, which is a
    /// moment ago: in half a minute they make 0.10.
    #[track_caller]
    pub(crate) fn is_load(&self, load: f64, means: Means) {
        let (expected, slack) = match means {
            Means::Machine => (self.machine_load, 0.15),
            _ => (self.container_load.unwrap(), 0.1),
        };
        assert!(
            (load - expected).abs() < slack,
            "{load} is not {}: {self:#?}",
            means.word()
        );
    }

    /// That this is a counter of the kernel's which is the machine's, or is hidden.
    #[track_caller]
    pub(crate) fn is_counter(&self, count: u64, means: Means) {
        assert_eq!(
            count == 0,
            means == Means::Zero,
            "{count} is not {}: {self:#?}",
            means.word()
        );
    }
}

/// The online CPUs of the machine.
pub(crate) fn machine_cpus() -> Vec<u64> {
    support::cpu_list(&read("/sys/devices/system/cpu/online"))
}

/// The memory of the machine in bytes: of all of it, and of its nodes together.
pub(crate) fn machine_memory() -> [u64; 2] {
    let total = |text: &str| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.split_once("MemTotal:"))
            .unwrap();
        line.1
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap()
            << 10
    };
    let nodes = support::cpu_list(&read("/sys/devices/system/node/online"));
    let of = |node| {
        total(&read(&format!(
            "/sys/devices/system/node/node{node}/meminfo"
        )))
    };
    [
        total(&read("/proc/meminfo")),
        nodes.into_iter().map(of).sum(),
    ]
}

/// A file of the host.
#[track_caller]
pub(crate) fn read(path: &str) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => panic!("{path}: {error}"),
    }
}
