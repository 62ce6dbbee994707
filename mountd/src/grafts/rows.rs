//! Which rows of a catalogue get a mount, and in which order.

use eci_fs_protocol::link::Row;

/// Those of a container's rows that get a mount: what can be written to in a directory is in the mount of that already.
pub(super) fn to_be_grafted(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter()
        .filter(|row| !row.writable || !inside_another(row, rows, |other| other.writable))
}

/// Whether a row lies in a directory that is another row, and one of `those`.
pub(super) fn inside_another(row: &Row, rows: &[Row], those: impl Fn(&Row) -> bool) -> bool {
    rows.iter().any(|other| {
        other.directory
            && those(other)
            && row
                .path
                .strip_prefix(&other.path)
                .is_some_and(|rest| rest.starts_with('/'))
    })
}
