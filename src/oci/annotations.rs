//! The annotations with which a container chooses its views.

use std::collections::BTreeMap;

use eci_fs_emulators::{DIRECTORIES, EMULATORS};
use eci_fs_protocol::choices::{Choice, Choices, CpuIds, CpuQuota, MAX_FRESHNESS_MS};
use eci_fs_protocol::error::{Error, Result};
use glob::{MatchOptions, Pattern};

/// The prefix of all annotations of eci-fs.
pub const PREFIX: &str = "eci-fs.";

/// The annotation with which a container asks for isolation. It is no choice about views.
pub const ISOLATE: &str = "eci-fs.isolate";

/// The annotation that asks for no time namespace in an isolated container, with `false`. Everybody may have it: the clocks
/// of the host are no secret to a container that asks for them.
pub const TIME_NAMESPACE: &str = "eci-fs.time-namespace";

/// The annotation that leaves system calls of an isolated container to the kernel, with `false`. The administrator has to
/// allow it.
pub const SYSTEM_CALLS: &str = "eci-fs.system-calls";

/// The annotations that are no choices about views.
const OTHERS: [&str; 3] = [ISOLATE, TIME_NAMESPACE, SYSTEM_CALLS];
/// The beginnings of annotations with which crun opens files and sockets of the host that the container names.
const OF_THE_HOST: [&str; 4] = [
    "run.oci.handler",
    "run.oci.hooks.",
    "run.oci.pidfd_receiver",
    "run.oci.seccomp.",
];

/// Checks that no annotation has a runtime write to a file of the host, or load a program of it.
///
/// # Errors
/// When one does.
pub fn check_host_files(annotations: &BTreeMap<String, String>) -> Result<()> {
    let is_refused = |key: &&String| OF_THE_HOST.iter().any(|start| key.starts_with(start));
    match annotations.keys().find(is_refused) {
        None => Ok(()),
        Some(key) => Err(Error::refused(format!(
            "the annotation {key} has the runtime use a file of the host, which isolated containers may not"
        ))
        .remedy("remove it")),
    }
}

/// The choices in a container's annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// True if the container gets views.
    pub enabled: bool,
    /// The choices about the views.
    pub choices: Choices,
    /// The choices that were made, with any value.
    pub chosen: Vec<Choice>,
}

/// Parses the annotations of eci-fs in `annotations`; all others are ignored.
///
/// # Errors
/// For an unknown name that begins with [`PREFIX`], and for an invalid value.
pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Wanted> {
    let mut wanted = Wanted {
        enabled: true,
        choices: Choices::default(),
        chosen: Vec::new(),
    };
    for (key, value) in annotations {
        let Some(name) = key
            .strip_prefix(PREFIX)
            .filter(|_| !OTHERS.contains(&key.as_str()))
        else {
            continue;
        };
        let choice = Choice::ALL.into_iter().find(|choice| choice.name() == name);
        let choice = choice.ok_or_else(|| {
            Error::refused(format!("there is no annotation {key:?}")).remedy(format!(
                "there are {}, {}",
                Choice::ALL
                    .map(|choice| format!("{PREFIX}{choice}"))
                    .join(", "),
                OTHERS.join(", ")
            ))
        })?;
        let about = |error: Error| error.context(format!("the annotation {key}={value:?}"));
        let value = value.trim();
        match choice {
            Choice::Enabled => wanted.enabled = parse_enabled(value).map_err(about)?,
            Choice::Views => wanted.choices.without = parse_views(value).map_err(about)?,
            Choice::Freshness => {
                wanted.choices.freshness_ms = Some(parse_freshness(value).map_err(about)?);
            }
            Choice::CpuIds => wanted.choices.cpu_ids = Some(parse_cpu_ids(value).map_err(about)?),
            Choice::CpuQuota => {
                wanted.choices.cpu_quota = Some(parse_cpu_quota(value).map_err(about)?)
            }
        }
        wanted.chosen.push(choice);
    }
    Ok(wanted)
}

/// Returns whether a container asks to be isolated, or not to be; none when it says neither.
///
/// # Errors
/// For an invalid value.
pub fn isolate(annotations: &BTreeMap<String, String>) -> Result<Option<bool>> {
    read(annotations, ISOLATE)
}

/// Returns whether an isolated container may get a time namespace.
///
/// # Errors
/// When the annotation is neither true nor false.
pub fn time_namespace(annotations: &BTreeMap<String, String>) -> Result<bool> {
    Ok(read(annotations, TIME_NAMESPACE)?.unwrap_or(true))
}

/// Returns whether an isolated container wants its system calls trapped; none when it does not say.
///
/// # Errors
/// When the annotation is neither true nor false, or is false where `opt_out` does not allow that.
pub fn system_calls(annotations: &BTreeMap<String, String>, opt_out: bool) -> Result<Option<bool>> {
    let wanted = read(annotations, SYSTEM_CALLS)?;
    if wanted == Some(false) && !opt_out {
        return Err(Error::refused(format!(
            "the annotation {SYSTEM_CALLS}=false is not allowed on this host"
        ))
        .remedy("take it away, or set opt-out = true in [isolation]"));
    }
    Ok(wanted)
}

fn read(annotations: &BTreeMap<String, String>, key: &str) -> Result<Option<bool>> {
    let value = annotations.get(key).map(|value| {
        parse_enabled(value.trim())
            .map_err(|error| error.context(format!("the annotation {key}={value:?}")))
    });
    value.transpose()
}

fn parse_enabled(value: &str) -> Result<bool> {
    value
        .parse()
        .map_err(|_| Error::refused("neither true nor false"))
}

fn parse_freshness(value: &str) -> Result<u64> {
    value
        .parse()
        .ok()
        .filter(|freshness| *freshness <= MAX_FRESHNESS_MS)
        .ok_or_else(|| {
            Error::refused(format!(
                "no number of milliseconds from 0 to {MAX_FRESHNESS_MS}"
            ))
        })
}

fn parse_cpu_ids(value: &str) -> Result<CpuIds> {
    match value {
        "physical" => Ok(CpuIds::Physical),
        "dense" => Ok(CpuIds::Dense),
        _ => Err(Error::refused("neither physical nor dense")),
    }
}

fn parse_cpu_quota(value: &str) -> Result<CpuQuota> {
    value.parse().map_err(Error::refused)
}

/// Returns the paths of all views and directories.
fn paths() -> impl Iterator<Item = &'static str> {
    let views = EMULATORS.iter().map(|emulator| emulator.facts().path);
    views.chain(DIRECTORIES.iter().map(|directory| directory.facts().path))
}

/// Returns the paths that a list of patterns leaves out. Commas or spaces separate the patterns, and a pattern that
/// begins with "!" leaves out. The last pattern that matches a path decides. A pattern that matches a directory
/// matches everything below it. If all patterns leave out, all other paths are kept.
fn parse_views(list: &str) -> Result<Vec<String>> {
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let mut rules = Vec::new();
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let (keep, text) = match word.strip_prefix('!') {
            Some(rest) => (false, rest),
            None => (true, word),
        };
        let pattern = Pattern::new(text)
            .map_err(|error| Error::refused(format!("{text:?} is no pattern: {}", error.msg)))?;
        let matches = |path: &str| {
            let mut at = Some(path);
            std::iter::from_fn(|| {
                let here = at.filter(|here| !here.is_empty())?;
                at = here.rsplit_once('/').map(|(above, _)| above);
                Some(here)
            })
            .any(|path| pattern.matches_with(path, options))
        };
        let matched: Vec<&str> = paths().filter(|path| matches(path)).collect();
        if matched.is_empty() {
            return Err(Error::refused(format!("no view is at {text:?}"))
                .remedy("docs/semantics.md lists them; write whole paths, as /proc/meminfo"));
        }
        rules.push((keep, matched));
    }
    if rules.is_empty() {
        return Err(Error::refused("it names no view").remedy(format!(
            "to have none, set {PREFIX}{}=false",
            Choice::Enabled
        )));
    }
    let all = rules.iter().all(|(keep, _)| !keep);
    let kept = |path: &str| {
        let last = rules.iter().rfind(|(_, matched)| matched.contains(&path));
        last.map_or(all, |(keep, _)| *keep)
    };
    Ok(paths()
        .filter(|path| !kept(path))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> Result<Wanted> {
        let pairs = pairs.iter();
        parse(&pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    fn kept(list: &str) -> Vec<&'static str> {
        let without = wanted(&[("eci-fs.views", list)]).unwrap().choices.without;
        paths()
            .filter(|path| !without.iter().any(|w| w == path))
            .collect()
    }

    #[test]
    fn annotations_by_which_crun_uses_files_of_the_host_are_refused() {
        for (key, allowed) in [
            ("run.oci.hooks.stderr", false),
            ("run.oci.hooks.stdout", false),
            ("run.oci.handler", false),
            ("run.oci.seccomp.receiver", false),
            ("run.oci.pidfd_receiver", false),
            ("run.oci.keep_original_groups", true),
            ("org.systemd.property.TasksMax", true),
        ] {
            let annotations = [(key.to_owned(), "1".to_owned())].into();
            assert_eq!(check_host_files(&annotations).is_ok(), allowed, "{key}");
        }
    }

    #[test]
    fn annotations_of_others_choose_nothing() {
        let wanted = wanted(&[("org.x", "y"), ("eci-fsx", "z")]).unwrap();
        assert!(wanted.enabled && wanted.choices.is_empty() && wanted.chosen.is_empty());
    }

    #[test]
    fn isolation_is_asked_for_beside_the_views() {
        for (value, asked) in [
            ("true", Some(true)),
            (" false ", Some(false)),
            ("yes", None),
        ] {
            let annotations = BTreeMap::from([(ISOLATE.to_owned(), value.to_owned())]);
            assert_eq!(isolate(&annotations).ok().flatten(), asked, "{value}");
            assert_eq!(isolate(&annotations).is_err(), asked.is_none(), "{value}");
            assert!(parse(&annotations).unwrap().chosen.is_empty());
        }
        assert_eq!(isolate(&BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn each_choice_is_read() {
        let wanted = wanted(&[
            ("eci-fs.enabled", "false"),
            ("eci-fs.freshness", "0"),
            ("eci-fs.cpu-ids", "dense"),
            ("eci-fs.cpu-quota", "ignore"),
        ]);
        let wanted = wanted.unwrap();
        assert!(!wanted.enabled);
        assert_eq!(wanted.choices.freshness_ms, Some(0));
        assert_eq!(wanted.choices.cpu_ids, Some(CpuIds::Dense));
        assert_eq!(wanted.choices.cpu_quota, Some(CpuQuota::Ignore));
    }

    #[test]
    fn a_list_of_views_keeps_those_and_no_others() {
        assert_eq!(
            kept("/proc/meminfo, /proc/stat"),
            ["/proc/meminfo", "/proc/stat"]
        );
        assert!(
            kept("/proc/pressure/*")
                .iter()
                .all(|p| p.starts_with("/proc/pressure/"))
        );
        assert_eq!(kept("/proc/pressure"), kept("/proc/pressure/*"));
    }

    #[test]
    fn a_list_of_what_is_left_out_keeps_the_rest() {
        let rest = kept("!/proc/loadavg");
        assert_eq!(rest.len(), paths().count() - 1);
        assert!(!rest.contains(&"/proc/loadavg"));
        let proc = kept("!/sys");
        assert!(proc.iter().all(|path| path.starts_with("/proc/")) && !proc.is_empty());
    }

    #[test]
    fn the_last_pattern_that_matches_counts() {
        let some = kept("/proc,!/proc/pressure,/proc/pressure/cpu");
        assert!(some.contains(&"/proc/pressure/cpu") && some.contains(&"/proc/stat"));
        assert!(!some.contains(&"/proc/pressure/io"));
    }

    #[test]
    fn a_star_does_not_go_over_a_slash() {
        assert!(
            kept("/proc/s*")
                .iter()
                .all(|path| !path.contains("/pressure/"))
        );
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_annotation() {
        for (key, value, word) in [
            ("eci-fs.enabled", "no", "neither true nor false"),
            ("eci-fs.freshness", "-1", "milliseconds"),
            ("eci-fs.freshness", "3600001", "milliseconds"),
            ("eci-fs.cpu-ids", "sparse", "physical"),
            ("eci-fs.cpu-quota", "half", "neither online nor ignore"),
            ("eci-fs.views", "/proc/nothing", "no view"),
            ("eci-fs.views", "meminfo", "whole paths"),
            ("eci-fs.views", "/proc/[", "no pattern"),
            ("eci-fs.views", " ", "eci-fs.enabled=false"),
            ("eci-fs.view", "x", "eci-fs.views"),
        ] {
            let error = wanted(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(key), "{error}");
        }
    }
}
