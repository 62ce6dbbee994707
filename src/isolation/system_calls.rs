//! The system calls of an isolated container that a supervisor answers, as far as its runtime can hand it the filter.

use std::os::unix::net::UnixStream;
use std::path::Path;

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::runtime_dir::SYSTEM_CALLS;
use eci_fs_protocol::error::{Error, Result};
use serde::Deserialize;

use super::Bundle;
use super::runtime_version::{self, Version};
use crate::oci::annotations;
use crate::oci::isolation::{KEEP_SPECULATION, NOTIFY, SystemCalls, Trapped, WAIT_KILLABLE};

/// The first version of each runtime that knows the key `listenerPath` and passes flags of filters on, of those that do not say
/// so: crun 1.8.1 does not tell its features, and crun 1.28 tells no flags.
const SILENT: [(&str, [u32; 3]); 1] = [("crun", [1, 0, 0])];

/// The first version of such a runtime that passes [`WAIT_KILLABLE`] on.
const SILENT_KILLABLE: [(&str, [u32; 3]); 1] = [("crun", [1, 8, 1])];

/// The first kernel that knows this flag.
const WAIT_KILLABLE_KERNEL: [u32; 2] = [5, 19];

/// The calls of a container that are trapped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// These are.
    Trap(SystemCalls),
    /// None, as it was asked for.
    Unwanted,
}

/// The abilities of a runtime that can hand over a filter of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abilities {
    /// It passes [`KEEP_SPECULATION`] on.
    keep_speculation: bool,
    /// It passes [`WAIT_KILLABLE`] on.
    wait_killable: bool,
}

/// What a runtime says of its features, as far as it is about filters (features-linux.md of the specification).
#[derive(Debug, Deserialize)]
struct Features {
    linux: Option<LinuxFeatures>,
}

#[derive(Debug, Deserialize)]
struct LinuxFeatures {
    seccomp: Option<SeccompFeatures>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SeccompFeatures {
    enabled: Option<bool>,
    actions: Option<Vec<String>>,
    /// None of runc 1.1, which refuses a container with any flag, and of crun.
    supported_flags: Option<Vec<String>>,
}

impl Abilities {
    /// Returns the abilities of a runtime that says so of its version and its features; none if it cannot hand over a filter.
    fn of(version: Option<&Version>, features: Option<&str>) -> Option<Self> {
        let by_version = |known: &Version| Self {
            keep_speculation: known.is_one_of(&SILENT),
            wait_killable: known.is_one_of(&SILENT_KILLABLE),
        };
        let Some(features) = features else {
            let able = version.filter(|known| known.is_one_of(&SILENT) && known.has_seccomp());
            return able.map(by_version);
        };
        let features: Features = serde_json::from_str(features).ok()?;
        let seccomp = features.linux?.seccomp?;
        let can_notify = seccomp.actions?.iter().any(|action| action == NOTIFY);
        if seccomp.enabled != Some(true) || !can_notify {
            return None;
        }
        let Some(flags) = seccomp.supported_flags else {
            let none = Self {
                keep_speculation: false,
                wait_killable: false,
            };
            return Some(version.map_or(none, by_version));
        };
        let has = |flag: &str| flags.iter().any(|one| one == flag);
        Some(Self {
            keep_speculation: has(KEEP_SPECULATION),
            wait_killable: has(WAIT_KILLABLE),
        })
    }
}

/// Returns the calls of the container that are trapped. `version` is the runtime's, if it is known.
///
/// # Errors
/// When its annotation is neither true nor false, or is not allowed, and when calls are to be trapped and the runtime cannot
/// hand over a filter.
pub(super) fn of(
    bundle: &Bundle<'_>,
    version: Option<&Version>,
    settings: &Isolation,
) -> Result<Choice> {
    let wanted = annotations::system_calls(&bundle.container.annotations, settings.opt_out)?;
    if !wanted.unwrap_or(settings.system_calls) {
        return Ok(Choice::Unwanted);
    }
    let features = runtime_version::features(bundle.runtime, bundle.runtime_dir);
    let abilities = Abilities::of(version, features.as_deref()).ok_or_else(|| {
        let runtime = bundle.runtime.display();
        let said = version.map_or_else(|| "of another kind".to_owned(), Version::to_string);
        Error::refused(format!(
            "the runtime {runtime} ({said}) cannot hand over a filter of system calls, so sysinfo(2) would tell of the host"
        ))
        .remedy("use runc or crun, or set system-calls = false in [isolation]")
    })?;
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    Ok(Choice::Trap(SystemCalls {
        listener: bundle.runtime_dir.join(SYSTEM_CALLS),
        metadata: bundle.key.to_owned(),
        keep_speculation: abilities.keep_speculation,
        wait_killable: abilities.wait_killable
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
        Trapped::OtherListener => {
            Some("its seccomp profile names another listener, so sysinfo(2) is refused")
        }
    }
}

/// Checks that the daemon takes filters, before the runtime finds that out with darker words.
pub(super) fn check_listener(path: &Path) -> Result<()> {
    UnixStream::connect(path).map(drop).map_err(|e| {
        Error::io("connect to", path, e).remedy(
            "eci-mountd takes filters of system calls there: restart it, or set system-calls = false in [isolation]",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abilities(version: &str, features: Option<&str>) -> Option<(bool, bool)> {
        let abilities = Abilities::of(Version::parse(version).as_ref(), features);
        abilities.map(|abilities| (abilities.keep_speculation, abilities.wait_killable))
    }

    #[test]
    fn only_runtimes_that_were_built_with_seccomp_hand_filters_over() {
        for (version, able) in [
            (
                "crun version 1.8.1\n+SYSTEMD +CAP +SECCOMP +EBPF\n",
                Some((true, true)),
            ),
            ("crun version 1.5\n+SECCOMP\n", Some((true, false))),
            ("crun version 1.28\n+SYSTEMD +CAP +EBPF\n", None),
            ("crun version 0.21\n+SECCOMP\n", None),
            // From 1.1 it tells of its features.
            ("runc version 1.0.3\nlibseccomp: 2.5.4\n", None),
            ("youki version 0.7.0\n", None),
            ("", None),
        ] {
            assert_eq!(abilities(version, None), able, "{version}");
        }
    }

    #[test]
    fn what_a_runtime_says_of_its_features_decides() {
        let says_of = |version: &str, seccomp: &str| {
            let features =
                format!(r#"{{"ociVersionMin":"1.0.0","linux":{{"seccomp":{seccomp}}}}}"#);
            abilities(version, Some(&features))
        };
        // It would be able by its version.
        let says = |seccomp: &str| says_of("crun version 1.8.1\n+SECCOMP\n", seccomp);
        let notify = r#""actions":["SCMP_ACT_ALLOW","SCMP_ACT_NOTIFY"]"#;
        let flagless = format!(r#"{{"enabled":true,{notify}}}"#);
        assert_eq!(
            says_of("runc version 1.1.5\n", &flagless),
            Some((false, false))
        );
        assert_eq!(
            says_of("crun version 1.28\n", &flagless),
            Some((true, true))
        );
        assert_eq!(says_of("another 1\n", &flagless), Some((false, false)));
        // As runc 1.3.
        let flags = r#""knownFlags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"supportedFlags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#;
        assert_eq!(
            says(&format!(r#"{{"enabled":true,{notify},{flags}}}"#)),
            Some((true, false))
        );
        let flags = r#""supportedFlags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
        assert_eq!(
            says(&format!(r#"{{"enabled":true,{notify},{flags}}}"#)),
            Some((false, true))
        );
        for unable in [
            "null".to_owned(),
            "{}".to_owned(),
            format!(r#"{{"enabled":false,{notify}}}"#),
            r#"{"enabled":true,"actions":["SCMP_ACT_ALLOW"]}"#.to_owned(),
            r#"{"enabled":true}"#.to_owned(),
        ] {
            assert_eq!(says(&unable), None, "{unable}");
        }
        assert_eq!(
            abilities("crun version 1.8.1\n+SECCOMP\n", Some("{}")),
            None
        );
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
