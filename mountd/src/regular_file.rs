//! Reading of files that somebody else wrote: a bundle's config.json, a configuration.
//!
//! Only a regular file is read, and only up to a limit. Opening a FIFO would wait for a writer, opening a device can do
//! something, and both may never end.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The most bytes of a configuration of a container. Engines write some tens of kilobytes.
pub const MAX_BUNDLE_CONFIG: u64 = 16 << 20;

/// The most bytes of a configuration that a person writes.
pub const MAX_CONFIG: u64 = 1 << 20;

/// Returns the content of the regular file at `path`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is no regular file, [`ErrorKind::FileTooLarge`] when it has more than `limit`
/// bytes, and the kernel's.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Before it is opened, too: a device hears of that.
    check(&std::fs::metadata(path)?)?;
    let file = std::fs::File::options()
        .read(true)
        // Another file may have taken its place meanwhile.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)?;
    check(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let words = format!("it has more than {limit} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, words));
    }
    Ok(bytes)
}

/// As [`read`], for text.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] when it is no UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

fn check(metadata: &std::fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        "it is no regular file",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, Path::new("/dev/zero"), dir.path()] {
            let error = read(path, 10).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "0123456789").unwrap();
        assert_eq!(read_to_string(&file, 10).unwrap(), "0123456789");
        assert_eq!(read(&file, 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(
            read(&dir.path().join("none"), 9).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
