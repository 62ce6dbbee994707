//! The report, for a person.

use super::report::{Compared, Report};

/// Print it.
#[allow(clippy::print_stdout, reason = "the table is what the command is for")]
pub(super) fn print(report: &Report) {
    println!("{}", text(report));
}

fn text(report: &Report) -> String {
    let mut out = format!(
        "eci-fs {}, Linux {}, {} CPUs, {} MiB{}\n",
        report.version,
        report.kernel,
        report.cpus,
        report.memory_mib,
        if report.quick { ", quick" } else { "" }
    );
    for (way, title) in [
        ("open", "open, read to the end, close"),
        ("held", "pread on a descriptor held open"),
        ("quiet", "first read after 20 ms of silence"),
    ] {
        out += &format!("\n{title}; microseconds, p50 (p99)\n");
        out += &heading("view");
        for view in &report.views {
            for compared in view.ways.iter().filter(|compared| compared.way == way) {
                let kind = if view.cached { "cached" } else { "live" };
                out += &row(&format!("{} {kind}", view.path), compared);
            }
        }
    }
    if let Some(first) = report.tunables.first() {
        out += &format!(
            "\ntunables: open, read to the end or write, close; the goal is {} of the kernel's at most\n\
             the kernel's own is written in a namespace: {}\n",
            first.goal, first.written
        );
        out += &heading("tunable");
        for tunable in &report.tunables {
            out += &row(&format!("{} read", tunable.path), &tunable.read);
            out += &row(&format!("{} write", tunable.path), &tunable.write);
        }
    }
    if !report.threads.is_empty() {
        out += "\nthe same by several threads at once\n";
        out += &heading("view, threads");
        for row_of in &report.threads {
            let title = format!("{} by {}", row_of.path, row_of.threads);
            out += &row(&title, &row_of.compared);
        }
    }
    if !report.cpu.is_empty() {
        out += "\nCPU seconds of the server per million reads\n";
        for cpu in &report.cpu {
            let title = format!("{} {}", cpu.path, cpu.way);
            out += &format!("{title:42} {:>10.3}\n", cpu.sec_per_million);
        }
    }
    if let Some(scale) = &report.scale {
        out += &format!(
            "\nmany containers; {} read by one of them\n{:>10} {:>7} {:>20} {:>11} {:>11} {:>7} {:>8} {:>8} {:>10}\n",
            scale.path,
            "containers",
            "grafts",
            "attach p50 (p99) ms",
            "daemon MiB",
            "server MiB",
            "fds",
            "open",
            "ratio",
            "quiet"
        );
        for step in &scale.steps {
            out += &format!(
                "{:>10} {:>7} {:>20} {:>11.1} {:>11.1} {:>7} {:>8.2} {:>8.2} {:>10.1}\n",
                step.containers,
                step.grafts,
                format!(
                    "{:.2} ({:.2})",
                    step.attach_p50_usec / 1000.0,
                    step.attach_p99_usec / 1000.0
                ),
                step.daemon_kib as f64 / 1024.0,
                step.server_kib as f64 / 1024.0,
                step.server_descriptors,
                step.open.ours.p50_usec,
                step.open.ours_to_kernel,
                step.quiet.ours.p50_usec,
            );
        }
        let all = &scale.all_read;
        out += &format!(
            "with all {} views of all {} read: daemon {:.1} MiB, server {:.1} MiB, {} fds\n",
            all.views,
            all.containers,
            all.daemon_kib as f64 / 1024.0,
            all.server_kib as f64 / 1024.0,
            all.server_descriptors
        );
        out += &format!(
            "wake-ups a second when nobody reads: {:.2} (over {:.0} s, both programs)\n",
            scale.idle_wake_ups_per_sec, scale.idle_sec
        );
    }
    for (path, why) in &report.skipped {
        out += &format!("not measured: {path}: {why}\n");
    }
    out
}

fn heading(first: &str) -> String {
    format!(
        "{first:42} {:>18} {:>18} {:>20} {:>8} {:>8}\n",
        "kernel", "eci-fs", "lxcfs", "to kern.", "lxcfs to"
    )
}

fn row(title: &str, compared: &Compared) -> String {
    let pair = |p50: f64, p99: f64| format!("{p50:.2} ({p99:.2})");
    let lxcfs = compared
        .lxcfs
        .map(|times| pair(times.p50_usec, times.p99_usec));
    let gain = compared.lxcfs_to_ours.map(|ratio| format!("{ratio:.1}"));
    format!(
        "{title:42} {:>18} {:>18} {:>20} {:>8.2} {:>8}\n",
        pair(compared.kernel.p50_usec, compared.kernel.p99_usec),
        pair(compared.ours.p50_usec, compared.ours.p99_usec),
        lxcfs.unwrap_or_else(|| "-".to_owned()),
        compared.ours_to_kernel,
        gain.unwrap_or_else(|| "-".to_owned()),
    )
}
