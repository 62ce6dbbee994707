//! The check of the catalogue that the server sends.

use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Row;

/// The number of rows of a catalogue that are believed at most.
const MAX_ROWS: usize = 1024;

/// Checks a catalogue. The server parses what containers send, so its catalogue is not believed before.
pub(super) fn checked(catalogue: Vec<Row>) -> Result<Vec<Row>> {
    let bad = |row: &&Row| {
        !(row.path.starts_with("/proc/") || row.path.starts_with("/sys/"))
            || row
                .path
                .split('/')
                .skip(1)
                .any(|part| matches!(part, "" | "." | ".."))
            || row.path.contains('\0')
    };
    if catalogue.len() > MAX_ROWS {
        return Err(Error::refused(format!(
            "the server offers {} views",
            catalogue.len()
        )));
    }
    if let Some(row) = catalogue.iter().find(bad) {
        return Err(Error::refused(format!(
            "the server offers a view at {:?}",
            row.path
        )));
    }
    Ok(catalogue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_fs_protocol::link::Connection;

    fn row(path: &str) -> Row {
        Row {
            path: path.to_owned(),
            connection: Connection::Cached,
            writable: false,
            directory: false,
        }
    }

    #[test]
    fn a_catalogue_that_leaves_proc_and_sys_is_refused() {
        assert!(checked(vec![row("/proc/meminfo"), row("/sys/kernel/notes")]).is_ok());
        for path in [
            "/etc/passwd",
            "/proc/../etc",
            "/proc//x",
            "proc/x",
            "/proc/",
            "/sys/./x",
            "/proc/a\0",
        ] {
            assert!(checked(vec![row(path)]).is_err(), "{path}");
        }
        assert!(checked(vec![row("/proc/a"); MAX_ROWS + 1]).is_err());
    }
}
