//! The views and directories of a container, over files of the host and of cgroups that say anything.

use std::cell::RefCell;
use std::time::Duration;

use arbitrary::Arbitrary;
use eci_fs_emulators::{
    Cgroup, Container, Context, CpuIds, CpuQuota, DIRECTORIES, Decision, EMULATORS, Effort,
    Hierarchy, History, Identity, Load, Settings, Version, initial_load, next_load, read_threads,
    render_view,
};

use crate::made_up::{self, Edit};
use crate::recorded::{FIXTURES, Recorded};

/// The most bytes of one view. The edits make files of 256 KiB.
const LONGEST: usize = 1 << 20;

/// The most paths of a directory that one step looks at.
const PATHS: usize = 100;

#[derive(Debug, Arbitrary)]
struct Input {
    fixture: u8,
    dense: bool,
    ignore_quota: Option<bool>,
    disks: Option<(u8, u8)>,
    offset: Option<i64>,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Edit(Edit),
    /// Lets time pass.
    Pass(u32),
    /// Renders the view at this place in the table.
    Render(u16),
    /// Renders all views.
    RenderAll,
    /// Looks at the paths of a directory.
    Walk(u8),
    /// Looks at a path that may not be there.
    Look(u8, String),
}

thread_local! {
    static RECORDED: RefCell<[Option<Recorded>; FIXTURES.len()]> = const { RefCell::new([const { None }; FIXTURES.len()]) };
}

/// Takes the bytes for changes of files, and renders views between them.
pub fn run(bytes: &[u8]) {
    let Some(input) = made_up::decode::<Input>(bytes) else {
        return;
    };
    RECORDED.with_borrow_mut(|all| {
        let fixture = usize::from(input.fixture) % FIXTURES.len();
        let recorded = all[fixture].get_or_insert_with(|| Recorded::unpack(FIXTURES[fixture]));
        render(&input, recorded);
        recorded.restore();
    });
}

fn render(input: &Input, recorded: &mut Recorded) {
    let (host, container) = (recorded.host(), container(input, recorded));
    let settings = Settings {
        cpu_ids: match input.dense {
            true => CpuIds::Dense,
            false => CpuIds::Physical,
        },
        cpu_quota: input.ignore_quota.map(|ignore| match ignore {
            true => CpuQuota::Ignore,
            false => CpuQuota::Online,
        }),
        ..Settings::default()
    };
    let mut boottime = Duration::from_secs(100_000);
    let mut avenrun = initial_load(1, Duration::ZERO);
    for step in input.steps.iter().chain([&Step::RenderAll]) {
        let threads = read_threads(&host, &container, Effort::FULL).unwrap_or_default();
        let cx = Context::new(&host, &container, &settings, boottime)
            .with_cgroup()
            .with_load(Load { avenrun, threads });
        match step {
            Step::Edit(edit) => recorded.edit(edit),
            Step::Pass(msec) => {
                boottime += Duration::from_millis((*msec).into());
                avenrun = next_load(avenrun, threads.active());
            }
            Step::Render(index) => render_one(usize::from(*index) % EMULATORS.len(), &cx),
            Step::RenderAll => {
                let views = 0..EMULATORS.len();
                let views = views.filter(|index| EMULATORS[*index].tunable().is_none());
                views.for_each(|index| render_one(index, &cx));
            }
            Step::Walk(index) => walk(usize::from(*index) % DIRECTORIES.len(), &cx),
            Step::Look(index, path) => {
                look(usize::from(*index) % DIRECTORIES.len(), path, &cx);
            }
        }
    }
}

/// Renders a file. Its text keeps the bound that it has now, and the same text comes twice.
fn render_one(index: usize, cx: &Context<'_>) {
    let emulator = EMULATORS[index];
    let _ = (emulator.exists(cx), emulator.mode(cx));
    let mut text = Vec::new();
    if let Ok(bound) = render_view(emulator, cx, &mut text) {
        let path = emulator.facts().path;
        assert!(text.len() <= LONGEST, "{path}: {} bytes", text.len());
        if let Some(bound) = bound.bytes(text.len()) {
            assert!(text.len() <= bound, "{path}: {} > {bound}", text.len());
        }
    }
}

/// Looks at the paths below a directory.
fn walk(index: usize, cx: &Context<'_>) {
    let directory = DIRECTORIES[index];
    let _ = (directory.exists(cx), directory.single_files(cx));
    let mut open = vec![String::new()];
    let mut left = PATHS;
    while let Some(path) = open.pop() {
        let Ok(names) = directory.names(cx, &path) else {
            continue;
        };
        for name in names {
            assert!(!name.is_empty() && !name.contains('/'), "{path}: {name:?}");
            left = left.saturating_sub(1);
            if left == 0 {
                return;
            }
            let path = match path.as_str() {
                "" => name,
                path => format!("{path}/{name}"),
            };
            if look(index, &path, cx) {
                open.push(path);
            }
        }
    }
}

/// Looks at a path. Returns true if it may be a directory.
fn look(index: usize, path: &str, cx: &Context<'_>) -> bool {
    let directory = DIRECTORIES[index];
    let Ok(decision) = directory.entry(cx, path) else {
        return false;
    };
    match decision {
        Decision::View { .. } => {
            let mut text = Vec::new();
            let _ = directory.render(cx, path, &mut text);
            assert!(text.len() <= LONGEST, "{path}: {} bytes", text.len());
        }
        Decision::Passthrough(path) => {
            let _ = (cx.host.read_once(&path), cx.host.read_link(&path));
            return cx.host.is_directory(&path);
        }
        Decision::Made => return true,
        Decision::Hidden | Decision::Link(_) | Decision::Namespaced(_) | Decision::Tunable(_) => {}
    }
    false
}

fn container(input: &Input, recorded: &Recorded) -> Container {
    let hierarchies = recorded.hierarchies().map(|(known, dir)| Hierarchy {
        version: match known.version {
            1 => Version::V1,
            _ => Version::V2,
        },
        controllers: known
            .controllers
            .iter()
            .flat_map(|name| name.parse())
            .collect(),
        dir,
        depth: known.depth,
        cache: Default::default(),
    });
    Container {
        cgroup: Cgroup::new(hierarchies.collect()),
        identity: Identity {
            id: "made-up".to_owned(),
            start: Duration::from_secs(99_000),
            boottime_offset: input.offset.map(i128::from),
            pid_level: 1,
            disks: input
                .disks
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect(),
            ..Identity::default()
        },
        history: History::new(),
        tunables: Default::default(),
        can_measure_cpus: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without them the target would reach nothing.
    #[test]
    fn the_fixtures_are_read() {
        for fixture in FIXTURES {
            let recorded = Recorded::unpack(fixture);
            assert!(recorded.host().exists("/proc/meminfo"), "{fixture}");
        }
    }
}
