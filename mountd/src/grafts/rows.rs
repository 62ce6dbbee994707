//! The choice of rows that get a mount, and their order.

use eci_fs_protocol::link::Row;

/// Returns the rows that get a mount. A row that can be written to, in a directory that can be, is in that directory's
/// mount already.
pub(super) fn to_be_grafted(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter()
        .filter(|row| !row.writable || !inside_another(row, rows, |other| other.writable))
}

/// Returns true if a row lies in a directory that is another row, and one of `those`.
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
