//! The version of the running kernel. Handlers of tunables differ between versions.

use super::Host;
use crate::Error;

/// The first two numbers of a kernel's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u16, pub u16);

impl Release {
    /// Returns the version of the host's kernel.
    ///
    /// # Errors
    /// Fails when /proc/sys/kernel/osrelease cannot be read or holds no version.
    pub(crate) fn of(host: &Host) -> Result<Release, Error> {
        const PATH: &str = "/proc/sys/kernel/osrelease";
        parse(&host.read(PATH)?).ok_or_else(|| Error::malformed(PATH, "not a version"))
    }
}

fn parse(text: &[u8]) -> Option<Release> {
    let mut numbers = text.split(|byte| !byte.is_ascii_digit());
    let mut next = || std::str::from_utf8(numbers.next()?).ok()?.parse().ok();
    Some(Release(next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse(b"5.10.0-32-amd64\n"), Some(Release(5, 10)));
        assert_eq!(parse(b"6.18.44-fc\n"), Some(Release(6, 18)));
        assert_eq!(parse(b"7\n"), None);
        assert!(Release(6, 2) < Release(6, 12));
    }
}
