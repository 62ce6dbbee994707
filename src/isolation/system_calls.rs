//! The system calls of an isolated container that a supervisor answers, as far as its runtime can hand it the filter.

use std::path::Path;

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::runtime_dir::SYSTEM_CALLS;
use eci_fs_protocol::error::Result;

use super::Bundle;
use super::runtime_version::Version;
use crate::oci::annotations;
use crate::oci::isolation::{SystemCalls, Trapped};

/// The first version of each runtime that knows the key `listenerPath`.
const LISTENERS: [(&str, [u32; 3]); 2] = [("runc", [1, 1, 0]), ("crun", [1, 0, 0])];

/// The first version of each runtime that passes flags of filters on. runc 1.1 refuses a container with one.
const FLAGS: [(&str, [u32; 3]); 2] = [("runc", [1, 2, 0]), ("crun", [1, 0, 0])];

/// The first version of each runtime that passes the flag on with which only signals that kill end a call which is being
/// answered. runc 1.3 refuses a container with it.
const WAIT_KILLABLE: [(&str, [u32; 3]); 1] = [("crun", [1, 8, 1])];

/// The first kernel that knows this flag.
const WAIT_KILLABLE_KERNEL: [u32; 2] = [5, 19];

/// The calls of a container that are trapped, or why none are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// These are.
    Trap(SystemCalls),
    /// None, as it was asked for.
    Unwanted,
    /// None, because of its runtime. The words are for the log.
    Unable(String),
}

/// Returns the calls of the container that are trapped.
///
/// # Errors
/// When its annotation is neither true nor false, or is not allowed.
pub(super) fn of(
    bundle: &Bundle<'_>,
    version: Option<&Version>,
    settings: &Isolation,
) -> Result<Choice> {
    let wanted = annotations::system_calls(&bundle.container.annotations, settings.opt_out)?;
    if !wanted.unwrap_or(settings.system_calls) {
        return Ok(Choice::Unwanted);
    }
    let able = version.filter(|version| version.is_one_of(&LISTENERS) && version.has_seccomp());
    let Some(version) = able else {
        let runtime = bundle.runtime.display();
        let said = version.map_or_else(|| "of another kind".to_owned(), Version::to_string);
        return Ok(Choice::Unable(format!(
            "its calls of sysinfo(2) are not trapped: {runtime} ({said}) cannot hand over a filter of system calls"
        )));
    };
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    Ok(Choice::Trap(SystemCalls {
        listener: bundle.runtime_dir.join(SYSTEM_CALLS),
        metadata: bundle.key.to_owned(),
        keep_speculation: version.is_one_of(&FLAGS),
        wait_killable: version.is_one_of(&WAIT_KILLABLE)
            && kernel_is_at_least(&release, WAIT_KILLABLE_KERNEL),
    }))
}

fn kernel_is_at_least(release: &str, first: [u32; 2]) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let found = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    found >= first
}

/// Returns what the log says of a container whose configuration was edited with this result.
pub(super) fn note(trapped: Trapped) -> Option<&'static str> {
    match trapped {
        Trapped::Yes => None,
        Trapped::Refused => {
            Some("its seccomp profile refuses sysinfo(2), so that call stays refused")
        }
        Trapped::OtherListener => Some(
            "its calls of sysinfo(2) are not trapped: its seccomp profile names another listener",
        ),
    }
}

/// Checks that the daemon takes filters, before the runtime finds that out with darker words.
pub(super) fn check_listener(path: &Path) -> Result<()> {
    use eci_fs_protocol::error::Error;
    use std::os::unix::net::UnixStream;
    UnixStream::connect(path).map(drop).map_err(|e| {
        Error::io("connect to", path, e).remedy(
            "eci-mountd takes filters of system calls there: restart it, or set system-calls = false in [isolation]",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runtimes_that_were_built_with_seccomp_hand_filters_over() {
        for (version, able, killable) in [
            (
                "runc version 1.1.5+ds1\ncommit: x\nlibseccomp: 2.5.4\n",
                true,
                false,
            ),
            ("runc version 1.3.6\nspec: 1.2.0\n", false, false),
            ("runc version 1.0.3\nlibseccomp: 2.5.4\n", false, false),
            (
                "crun version 1.8.1\n+SYSTEMD +CAP +SECCOMP +EBPF\n",
                true,
                true,
            ),
            ("crun version 1.28\n+SYSTEMD +CAP +EBPF\n", false, true),
            ("crun version 1.5\n+SECCOMP\n", true, false),
            ("youki version: 0.7.0\n", false, false),
            ("", false, false),
        ] {
            let known = Version::parse(version);
            let is_able = known
                .as_ref()
                .is_some_and(|v| v.is_one_of(&LISTENERS) && v.has_seccomp());
            assert_eq!(is_able, able, "{version}");
            let knows = known.is_some_and(|v| v.is_one_of(&WAIT_KILLABLE));
            assert_eq!(knows, killable, "{version}");
        }
    }

    #[test]
    fn releases_of_kernels_are_compared_as_numbers() {
        for (release, at_least) in [
            ("5.19.0", true),
            ("5.4.0-100", false),
            ("6.18.44-fc-v769", true),
            ("10.1", true),
            ("", false),
        ] {
            assert_eq!(kernel_is_at_least(release, [5, 19]), at_least, "{release}");
        }
    }
}
