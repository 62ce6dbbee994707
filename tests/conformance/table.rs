//! The table of docs/conformance.md.

use crate::Means;
use crate::said::read;

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    /// The program.
    pub(crate) program: &'static str,
    /// What it says, in words.
    pub(crate) says: &'static str,
    /// What that is without the views.
    pub(crate) before: Means,
    /// What that is with them.
    pub(crate) after: Means,
    /// Where it has that from.
    pub(crate) from: &'static str,
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conformance.md");

/// The tests, in which every row must occur.
const TESTS: [&str; 10] = [
    include_str!("affinity.rs"),
    include_str!("cpus.rs"),
    include_str!("devices.rs"),
    include_str!("measuring.rs"),
    include_str!("monitors.rs"),
    include_str!("offline.rs"),
    include_str!("procps.rs"),
    include_str!("runtimes.rs"),
    include_str!("terminal.rs"),
    include_str!("topology.rs"),
];

/// That the table has a row which a test has found to be true.
///
/// # Panics
/// When it has not; it says the row.
#[track_caller]
pub(crate) fn check(row: &Row) {
    let line = format!(
        "| `{}` | {} | {} | {} | {} |",
        row.program,
        row.says,
        row.before.word(),
        row.after.word(),
        row.from
    );
    let page = read(PAGE);
    assert!(
        page.lines().any(|has| has == line),
        "docs/conformance.md lacks this row, or has another one in its place:\n{line}"
    );
}

#[test]
fn every_row_of_the_table_is_one_that_a_test_checks() {
    let page = read(PAGE);
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let program = cells[1].trim_matches('`');
        let quoted = |text: &str| format!("\"{text}\"");
        let tested = TESTS
            .iter()
            .any(|test| test.contains(&quoted(program)) && test.contains(&quoted(cells[2])));
        assert!(tested, "no test checks {row}");
    }
}
