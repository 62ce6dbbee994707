//! The containers in which programs run, and the reports of the programs there.

use std::time::Instant;

use crate::said::{machine_cpus, read};
use crate::table::{self, Row};
use crate::{Means, Said, Shell};

/// A container.
#[derive(Debug)]
pub(crate) struct Case {
    /// Options of `eci-fs run`.
    options: &'static [&'static str],
    /// The limit of memory in bytes.
    pub(crate) memory: u64,
    /// The quota, rounded up to whole CPUs.
    quota: usize,
    /// The CPU it is bound to.
    cpu: Option<u64>,
}

/// One and a half CPUs; the same bound to a CPU that is not the first, and to the first; and half a CPU, which differs
/// from the machine even where that has only two.
static CASES: [Case; 4] = [
    Case {
        options: &["--memory", "300M", "--cpus", "1.5"],
        memory: 300 << 20,
        quota: 2,
        cpu: None,
    },
    Case {
        options: &["--memory", "300M", "--cpus", "1.5", "--cpuset", "1"],
        memory: 300 << 20,
        quota: 2,
        cpu: Some(1),
    },
    Case {
        options: &["--memory", "300M", "--cpus", "1.5", "--cpuset", "0"],
        memory: 300 << 20,
        quota: 2,
        cpu: Some(0),
    },
    Case {
        options: &["--memory", "300M", "--cpus", "0.5"],
        memory: 300 << 20,
        quota: 1,
        cpu: None,
    },
];

/// Half a CPU, of which nothing shows: for programs that measure CPUs.
static MEASURING: [Case; 1] = [Case {
    options: &["--memory", "300M", "--cpus", "0.5", "--cpu-quota", "ignore"],
    memory: 300 << 20,
    quota: usize::MAX,
    cpu: None,
}];

impl Case {
    /// The CPUs it may run on.
    pub(crate) fn cpus(&self) -> Vec<u64> {
        let mut all = machine_cpus();
        assert!(all.contains(&1), "these tests need a machine with a CPU 1");
        all.retain(|id| self.cpu.is_none_or(|cpu| cpu == *id));
        all
    }

    /// The CPUs it is shown.
    pub(crate) fn visible(&self) -> Vec<u64> {
        let mut ids = self.cpus();
        ids.truncate(self.quota);
        ids
    }

    /// Start it.
    #[track_caller]
    pub(crate) fn start(&self) -> Shell {
        Shell::start(self.options)
    }
}

/// One and a half CPUs, for tests that are not about these.
pub(crate) fn first() -> &'static Case {
    &CASES[0]
}

/// A program that is run in containers.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name, as the table has it.
    name: &'static str,
    /// The script that runs it.
    script: String,
}

impl Program {
    /// `needs` is a file, and Debian's package of it.
    #[track_caller]
    pub(crate) fn new(name: &'static str, needs: (&str, &str), script: impl Into<String>) -> Self {
        need(needs.0, needs.1);
        Self {
            name,
            script: script.into(),
        }
    }

    /// A program that the test has built.
    pub(crate) fn built(name: &'static str, path: &std::path::Path) -> Self {
        let script = ended(&path.display().to_string());
        Self { name, script }
    }
}

/// A script that says as its last word how it ended.
pub(crate) fn ended(script: &str) -> String {
    format!("( {script}\n)\necho \"exit $?\"")
}

/// What one program said in all cases, with and without the views.
#[derive(Debug)]
pub(crate) struct Seen {
    program: &'static str,
    pub(crate) said: Vec<Said>,
}

impl Seen {
    /// Run a script in all containers. `package` is Debian's package of `program`.
    #[track_caller]
    pub(crate) fn of(program: &'static str, package: &str, script: &str) -> Self {
        need(program.split(' ').next().unwrap(), package);
        let said = CASES
            .iter()
            .flat_map(|case| in_one(case, "", &[script]))
            .flatten()
            .collect();
        Self { program, said }
    }

    /// Run several programs, one after the other, in containers that are bound to a CPU, or have half of one.
    #[track_caller]
    pub(crate) fn each<const N: usize>(programs: [Program; N]) -> [Self; N] {
        Self::each_in(&CASES[1..], programs)
    }

    /// The same, in a container that has half a CPU and is shown all of them.
    #[track_caller]
    pub(crate) fn measuring<const N: usize>(programs: [Program; N]) -> [Self; N] {
        Self::each_in(&MEASURING, programs)
    }

    #[track_caller]
    fn each_in<const N: usize>(cases: &'static [Case], programs: [Program; N]) -> [Self; N] {
        let scripts: Vec<&str> = programs.iter().map(|each| &*each.script).collect();
        let mut seen = programs.each_ref().map(|program| Self {
            program: program.name,
            said: Vec::new(),
        });
        for case in cases {
            for (seen, said) in seen.iter_mut().zip(in_one(case, "", &scripts)) {
                seen.said.extend(said);
            }
        }
        seen
    }

    /// The same, in containers with three busy threads whose load has been asked for once.
    #[track_caller]
    pub(crate) fn busy(program: &'static str, package: &str, script: &str) -> Self {
        need(program.split(' ').next().unwrap(), package);
        let said = in_one(first(), BUSY, &[script]);
        let said = said.into_iter().flatten().collect();
        Self { program, said }
    }

    /// That it says what the row of the table tells, in every case.
    #[track_caller]
    pub(crate) fn row(
        &self,
        says: &'static str,
        before: Means,
        after: Means,
        from: &'static str,
        check: impl Fn(&Said, Means),
    ) {
        for said in &self.said {
            check(said, if said.attached { after } else { before });
        }
        table::check(&Row {
            program: self.program,
            says,
            before,
            after,
            from,
        });
    }
}

/// Three threads that never wait, which end with the container. The average over 15 minutes begins near 0, and hardly
/// moves in a test's time.
pub(crate) const BUSY: &str = "
for i in 1 2 3; do bash -c 'while :; do :; done' & pids=\"$pids $!\"; done
for pid in $pids; do until grep -q '^while' <(tr '\\0' '\\n' < /proc/$pid/cmdline); do :; done; done";

/// What each script says with the views, and without.
#[track_caller]
fn in_one(case: &'static Case, before: &str, scripts: &[&str]) -> Vec<[Said; 2]> {
    let started = Instant::now();
    let mut shell = case.start();
    shell.run(before);
    let say = |shell: &mut Shell, script: &str, attached: bool| {
        let container_load = attached.then(|| load(&shell.run("cat /proc/loadavg")));
        let text = shell.run(script);
        Said {
            text,
            case,
            attached,
            machine_up: support::uptime(&read("/proc/uptime")),
            container_up: started.elapsed().as_secs_f64(),
            machine_load: load(&read("/proc/loadavg")),
            container_load,
        }
    };
    let all = |shell: &mut Shell, attached: bool| -> Vec<Said> {
        let said = scripts.iter().map(|script| say(shell, script, attached));
        said.collect()
    };
    let with = all(&mut shell, true);
    shell.detach();
    let without = all(&mut shell, false);
    let pairs = with.into_iter().zip(without);
    pairs.map(|(with, without)| [with, without]).collect()
}

/// The average over 15 minutes of a /proc/loadavg.
pub(crate) fn load(text: &str) -> f64 {
    text.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// That a program is there.
///
/// # Panics
/// When it is not; it names the package.
#[track_caller]
pub(crate) fn need(program: &str, package: &str) {
    let dirs = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/lib/nagios/plugins",
    ];
    let there = dirs
        .iter()
        .any(|dir| std::path::Path::new(dir).join(program).is_file());
    assert!(
        there,
        "{program} is not installed: `cargo xtask setup` installs what the tests need, \
         or `apt-get install --no-install-recommends {package}`"
    );
}
