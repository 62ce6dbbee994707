//! Every graft, read in every way: nothing is cut, and modes and owners are the kernel's.

use std::os::unix::fs::MetadataExt;

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::host;
use crate::report::{Report, equal};

/// How often a view whose size changes is measured again.
const TRIES: usize = 50;

pub(super) fn checks(report: &mut Report) {
    report.group("reading in `run`", |report| {
        let mut container = Container::run(&["--memory", "96M", "--cpus", "1.5"])?;
        everything(report, &mut container, true)?;
        container.end()
    });
    report.group("reading in `run --userns`", |report| {
        let mut container = Container::run(&["--memory", "96M", "--userns"])?;
        everything(report, &mut container, false)?;
        container.end()
    });
    report.group("reading in a user namespace that was attached", |report| {
        let cgroup = Cgroup::new("reading")?;
        cgroup.set("memory.max", "100000000")?;
        let mut container = Container::attach(&cgroup, true)?;
        everything(report, &mut container, false)?;
        container.end()?;
        cgroup.remove()
    });
}

/// `slowly` too: a byte at a time.
fn everything(report: &mut Report, container: &mut Container, slowly: bool) -> Result<()> {
    let mut paths: Vec<String> = Vec::new();
    for graft in container.grafts()? {
        let kernel = std::fs::symlink_metadata(&graft).map_err(|e| format!("{graft}: {e}"))?;
        report.check(
            &format!("{graft}: mode and owner"),
            mode_and_owner(container, &graft, &kernel),
        );
        if kernel.is_file() {
            paths.push(graft);
        } else {
            // Those that are computed. The size of the kernel's own files in sysfs is that of a page.
            for name in ["online", "offline", "has_cpu"] {
                let path = format!("{graft}/{name}");
                if graft.starts_with("/sys/devices/system/") && host(&path).is_ok() {
                    paths.push(path);
                }
            }
        }
    }
    report.check(
        "there are grafts",
        match paths.len() {
            0 => Err("expected some files got none".to_owned()),
            _ => Ok(()),
        },
    );
    for path in &paths {
        // What the kernel lets nobody read, or nobody read twice, is not to be read here either.
        if host(path).is_err() {
            report.skip(path, "the kernel's own file cannot be read");
            continue;
        }
        report.check(&format!("{path}: sendfile"), sendfile(container, path));
        if slowly {
            report.check(
                &format!("{path}: read(2) by bytes"),
                bytewise(container, path),
            );
        }
        report.check(&format!("{path}: past its end"), past_end(container, path));
    }
    Ok(())
}

fn mode_and_owner(container: &mut Container, path: &str, kernel: &std::fs::Metadata) -> Result<()> {
    let stat = container.tell(&["stat", path])?;
    let mut words = stat.split(' ');
    let mode = words.next().unwrap_or_default().to_owned();
    // Empty directories and hidden files have the modes that the project gives them.
    let hidden = [
        "/sys/kernel/",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ];
    let hidden_files = [
        "/proc/schedstat",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/sys/kernel/core_pattern",
    ];
    if !hidden.iter().any(|start| path.starts_with(start)) && !hidden_files.contains(&path) {
        let expected = format!("{:o}", kernel.mode() & 0o7777);
        // Older kernels leave it to root to set triggers, which the views let everybody do.
        let trigger = path.starts_with("/proc/pressure/") && mode == "666";
        if !trigger {
            equal("mode", &mode, &expected)?;
        }
    }
    let owner: Vec<&str> = words.take(2).collect();
    equal("owner and group", &owner, &vec!["0", "0"])
}

/// The size that stat says, and how much sendfile copies.
fn sendfile(container: &mut Container, path: &str) -> Result<()> {
    let size = |container: &mut Container| -> Result<usize> {
        let stat = container.tell(&["stat", path])?;
        let size = stat.rsplit(' ').next().unwrap_or_default();
        size.parse().map_err(|_| stat.clone())
    };
    let mut trouble = "its size never stood still".to_owned();
    for _ in 0..TRIES {
        let before = size(container)?;
        let copied = container.tell(&["sendfile", path])?;
        if size(container)? != before {
            continue;
        }
        let read = container.read(path)?;
        let result = equal("bytes copied", &copied.len(), &before)
            .and_then(|()| equal("the layout", &layout(&copied), &layout(&read)));
        match result {
            Ok(()) => return Ok(()),
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

/// A text without its numbers, and without the empty line that it has at its end while its size changes
/// (docs/architecture.md, "How the size of a cached view changes").
fn layout(text: &str) -> Vec<String> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let text = match text.strip_suffix("\n\n") {
        Some(before) => before,
        None => text,
    };
    text.lines()
        .map(|line| {
            let words = line.split_whitespace().map(|word| word.replace(digits, ""));
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn bytewise(container: &mut Container, path: &str) -> Result<()> {
    let bytes = container.tell(&["bytewise", path])?;
    let read = container.read(path)?;
    equal("the layout", &layout(&bytes), &layout(&read))
}

fn past_end(container: &mut Container, path: &str) -> Result<()> {
    let mut trouble = String::new();
    for _ in 0..TRIES {
        let answer = container.tell(&["pread-past-end", path])?;
        let numbers: Vec<usize> = answer
            .split(' ')
            .filter_map(|number| number.parse().ok())
            .collect();
        match numbers.as_slice() {
            [whole, rest, 0] if *rest + whole.min(&3) == *whole => return Ok(()),
            // A cached view that grew in between has another end.
            _ => trouble = format!("whole, rest and past the end are {answer}"),
        }
    }
    Err(trouble)
}
