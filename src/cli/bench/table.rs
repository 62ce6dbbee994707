//! The report as text.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, Table, Width};

use super::report::{Compared, Report};

/// Returns the report.
pub(super) fn text(report: &Report) -> String {
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
        let mut table = comparison("view");
        for view in &report.views {
            for compared in view.ways.iter().filter(|compared| compared.way == way) {
                let kind = if view.cached { "cached" } else { "live" };
                table.add_row(row(&format!("{} {kind}", view.path), compared));
            }
        }
        out += &lines(table, &COMPARED);
    }
    if let Some(first) = report.tunables.first() {
        out += &format!(
            "\ntunables: open, read to the end or write, close; the goal is {} of the kernel's at most\n\
             the kernel's own is written in a namespace: {}\n",
            first.goal, first.written
        );
        let mut table = comparison("tunable");
        for tunable in &report.tunables {
            table.add_row(row(&format!("{} read", tunable.path), &tunable.read));
            table.add_row(row(&format!("{} write", tunable.path), &tunable.write));
        }
        out += &lines(table, &COMPARED);
    }
    if !report.threads.is_empty() {
        out += "\nthe same by several threads at once\n";
        let mut table = comparison("view, threads");
        for row_of in &report.threads {
            let title = format!("{} by {}", row_of.path, row_of.threads);
            table.add_row(row(&title, &row_of.compared));
        }
        out += &lines(table, &COMPARED);
    }
    if !report.cpu.is_empty() {
        out += "\nCPU seconds of the server per million reads\n";
        let mut table = Table::new();
        for cpu in &report.cpu {
            let title = format!("{} {}", cpu.path, cpu.way);
            table.add_row([title, format!("{:.3}", cpu.sec_per_million)]);
        }
        out += &lines(table, &[TITLE, 10]);
    }
    if let Some(scale) = &report.scale {
        out += &format!("\nmany containers; {} read by one of them\n", scale.path);
        let mut table = Table::new();
        table.set_header([
            "containers",
            "grafts",
            "attach p50 (p99) ms",
            "daemon MiB",
            "server MiB",
            "fds",
            "open",
            "ratio",
            "quiet",
        ]);
        for step in &scale.steps {
            table.add_row([
                step.containers.to_string(),
                step.grafts.to_string(),
                format!(
                    "{:.2} ({:.2})",
                    step.attach_p50_usec / 1000.0,
                    step.attach_p99_usec / 1000.0
                ),
                format!("{:.1}", step.daemon_kib as f64 / 1024.0),
                format!("{:.1}", step.server_kib as f64 / 1024.0),
                step.server_descriptors.to_string(),
                format!("{:.2}", step.open.ours.p50_usec),
                format!("{:.2}", step.open.ours_to_kernel),
                format!("{:.1}", step.quiet.ours.p50_usec),
            ]);
        }
        out += &lines(table, &[10, 7, 20, 11, 11, 7, 8, 8, 10]);
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

/// The least width of the column with names of views.
const TITLE: u16 = 42;

/// The least widths of the columns of [`comparison`].
const COMPARED: [u16; 6] = [TITLE, 18, 18, 20, 8, 8];

/// Returns a table that compares times.
fn comparison(first: &str) -> Table {
    let mut table = Table::new();
    table.set_header([first, "kernel", "eci-fs", "lxcfs", "to kern.", "lxcfs to"]);
    table
}

/// Returns a line for each row. Names are aligned to the left, numbers to the right.
fn lines(mut table: Table, widths: &[u16]) -> String {
    table.load_style(NOTHING);
    table.discover_columns();
    // The width includes the space before the next column.
    let constraint = |width: &u16| ColumnConstraint::LowerBoundary(Width::Fixed(width + 1));
    table.set_constraints(widths.iter().map(constraint));
    for (column, width) in table.column_iter_mut().zip(widths) {
        column.set_padding((0, 1));
        if *width != TITLE {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

fn row(title: &str, compared: &Compared) -> [String; 6] {
    let pair = |p50: f64, p99: f64| format!("{p50:.2} ({p99:.2})");
    let lxcfs = compared
        .lxcfs
        .map(|times| pair(times.p50_usec, times.p99_usec));
    let gain = compared.lxcfs_to_ours.map(|ratio| format!("{ratio:.1}"));
    [
        title.to_owned(),
        pair(compared.kernel.p50_usec, compared.kernel.p99_usec),
        pair(compared.ours.p50_usec, compared.ours.p99_usec),
        lxcfs.unwrap_or_else(|| "-".to_owned()),
        format!("{:.2}", compared.ours_to_kernel),
        gain.unwrap_or_else(|| "-".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::report::Times;
    use super::*;

    #[test]
    fn numbers_stand_under_their_headings() {
        let times = |p50_usec, p99_usec| Times {
            p50_usec,
            p99_usec,
            reads_per_sec: 0.0,
        };
        let mut table = comparison("view");
        let compared = Compared {
            way: "open",
            kernel: times(1.0, 2.5),
            ours: times(3.0, 4.25),
            lxcfs: None,
            ours_to_kernel: 3.0,
            lxcfs_to_ours: None,
        };
        table.add_row(row("/proc/stat live", &compared));
        let line = |columns: [&str; 6]| {
            let [first, kernel, ours, lxcfs, ratio, gain] = columns;
            format!("{first:42} {kernel:>18} {ours:>18} {lxcfs:>20} {ratio:>8} {gain:>8}\n")
        };
        let heading = ["view", "kernel", "eci-fs", "lxcfs", "to kern.", "lxcfs to"];
        let numbers = [
            "/proc/stat live",
            "1.00 (2.50)",
            "3.00 (4.25)",
            "-",
            "3.00",
            "-",
        ];
        assert_eq!(lines(table, &COMPARED), line(heading) + &line(numbers));
    }
}
