//! The command line of an OCI runtime, parsed as far as needed to find the bundle.
//!
//! runc, crun and youki take much the same options, each in its library's syntax: runc (urfave/cli) `--log X`, `-log
//! X` and `--log=X`; crun (argp) `--log X`, `--log=X`, `-b X` and `-bX`, and the beginning of a long name (`--bun X`);
//! youki (clap) all of these but the single dash before a long name, and the beginning of one. An unknown option is taken
//! for one without a value. Only the options of eci-fs are removed; everything else is passed on, and the runtime reports
//! errors in its command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::bundle::CONFIG;

/// The options with a value before the subcommand, and their short forms.
const GLOBAL_OPTIONS: &[(&str, Option<u8>)] = &[
    ("log", Some(b'l')),
    ("log-format", None),
    ("log-level", None),
    ("root", Some(b'r')),
    ("rootless", None),
    ("criu", None),
    ("cgroup-manager", None),
    (RUNTIME_PATH, None),
    (CONFIG_PATH, None),
];

/// The options with a value of the subcommands that create a container, and their short forms.
const CREATE_OPTIONS: &[(&str, Option<u8>)] = &[
    ("bundle", Some(b'b')),
    ("config", Some(b'f')),
    ("console-socket", None),
    ("pidfd-socket", None),
    ("pid-file", None),
    ("preserve-fds", None),
];

/// The options with a value of `exec`, and their short forms.
const EXEC_OPTIONS: &[(&str, Option<u8>)] = &[
    ("console-socket", None),
    ("cwd", None),
    ("env", Some(b'e')),
    ("user", Some(b'u')),
    ("additional-gids", Some(b'g')),
    ("process", Some(b'p')),
    ("pid-file", None),
    ("process-label", None),
    ("apparmor", None),
    ("cap", Some(b'c')),
    ("preserve-fds", None),
    ("cgroup", None),
    ("seccomp", None),
    ("tenant-pid-file", None),
];

/// Long options without a value. The beginning of one is not taken for that of an option with a value.
const WITHOUT_VALUE: &[&str] = &[
    "debug",
    "detach",
    "help",
    "keep",
    "no-new-keyring",
    "no-new-privs",
    NO_PIVOT,
    "no-subreaper",
    "systemd-cgroup",
    "tty",
    "usage",
    "version",
];

/// The option with which a container sees the mounts of its runtime.
const NO_PIVOT: &str = "no-pivot";

/// The option of eci-fs that names the runtime to execute.
const RUNTIME_PATH: &str = "eci-runtime-path";

/// The option of eci-fs that names the configuration of the host.
const CONFIG_PATH: &str = "eci-config";

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// The subcommand, if there is one.
    pub subcommand: Option<String>,
    /// The id of the container: the first argument of the subcommand that belongs to no option.
    pub id: Option<String>,
    /// The directory of the runtime's states, if it is given.
    pub root: Option<PathBuf>,
    /// The directory of the bundle, if [`Self::creates_container`].
    pub bundle: PathBuf,
    /// The name of the configuration in the bundle.
    pub config: PathBuf,
    /// The file that the runtime logs to.
    pub log: Option<PathBuf>,
    /// True if the runtime logs JSON.
    pub log_json: bool,
    /// The runtime to execute, if it is given.
    pub runtime: Option<PathBuf>,
    /// The configuration of the host, if it is given.
    pub host_config: Option<PathBuf>,
    /// The arguments for the runtime.
    pub rest: Vec<OsString>,
}

impl CommandLine {
    /// Parses the arguments of a runtime.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut this = Self {
            bundle: ".".into(),
            config: CONFIG.into(),
            ..Self::default()
        };
        let mut arguments = arguments.into_iter();
        let mut options = true;
        while let Some(argument) = arguments.next() {
            let table = match this.subcommand.as_deref() {
                None => GLOBAL_OPTIONS,
                Some(_) if this.creates_container() => CREATE_OPTIONS,
                Some("exec") => EXEC_OPTIONS,
                Some(_) => &[],
            };
            if !options || !argument.as_bytes().starts_with(b"-") || argument == "-" {
                if this.subcommand.is_none() {
                    this.subcommand = Some(argument.to_string_lossy().into_owned());
                } else if this.id.is_none() {
                    this.id = Some(argument.to_string_lossy().into_owned());
                    // What comes now belongs to the program that is executed.
                    options &= this.subcommand.as_deref() != Some("exec");
                }
                this.rest.push(argument);
                continue;
            }
            options = argument != "--";
            let Some((name, inline)) = split_option(&argument, table) else {
                this.rest.push(argument);
                continue;
            };
            let ours = [RUNTIME_PATH, CONFIG_PATH].contains(&name);
            let separate = inline.is_none().then(|| arguments.next()).flatten();
            if let Some(value) = inline.as_ref().or(separate.as_ref()) {
                this.set_option(name, value);
            }
            if !ours {
                this.rest.push(argument);
                this.rest.extend(separate);
            }
        }
        this
    }

    /// Returns whether the command creates a container from a bundle. (`restore` does too, but its mounts come from
    /// the checkpoint.)
    pub fn creates_container(&self) -> bool {
        matches!(self.subcommand.as_deref(), Some("create" | "run"))
    }

    /// Returns whether the container shall see the mounts of the runtime: the root directory is not changed by pivot_root(2).
    pub fn has_no_pivot(&self) -> bool {
        let is_it = |argument: &OsString| {
            let word = argument.as_bytes();
            let dashes = word.iter().take_while(|byte| **byte == b'-').count();
            let option = &word[dashes..];
            let beginning = option.starts_with(b"no-p") && NO_PIVOT.as_bytes().starts_with(option);
            (1..=2).contains(&dashes)
                && (beginning || option.starts_with(NO_PIVOT.as_bytes()))
                && option != b"no-pivot=false"
                && option != b"no-pivot=0"
        };
        self.rest.iter().any(is_it)
    }

    fn set_option(&mut self, name: &str, value: &OsStr) {
        match name {
            "root" => self.root = Some(value.into()),
            "bundle" => self.bundle = value.into(),
            "config" => self.config = value.into(),
            "log" => self.log = Some(value.into()),
            "log-format" => self.log_json = value == "json",
            RUNTIME_PATH => self.runtime = Some(value.into()),
            CONFIG_PATH => self.host_config = Some(value.into()),
            _ => {}
        }
    }
}

/// Returns the name of an option in `table`, and its value if that is in the same argument.
fn split_option(
    argument: &OsStr,
    table: &'static [(&'static str, Option<u8>)],
) -> Option<(&'static str, Option<OsString>)> {
    let bytes = argument.as_bytes();
    let dashes = bytes
        .iter()
        .take(2)
        .take_while(|byte| **byte == b'-')
        .count();
    let body = &bytes[dashes..];
    let (word, value) = match body.iter().position(|byte| *byte == b'=') {
        Some(at) => (&body[..at], Some(body[at + 1..].to_vec())),
        None => (body, None),
    };
    let value = value.map(OsString::from_vec);
    if let Some((name, _)) = table.iter().find(|(name, _)| name.as_bytes() == word) {
        return Some((*name, value));
    }
    if dashes == 2 {
        return abbreviated(word, table).map(|name| (name, value));
    }
    let (first, more) = word.split_first().filter(|_| dashes == 1)?;
    let (name, _) = table.iter().find(|(_, short)| *short == Some(*first))?;
    if more.is_empty() {
        return Some((*name, value));
    }
    // The value is everything after the letter.
    Some((*name, Some(OsString::from_vec(body[1..].to_vec()))))
}

/// Returns an option in `table` whose name begins with `word`, as crun takes it. Of several, any one: crun refuses those, but
/// for options that it does not have.
fn abbreviated(word: &[u8], table: &'static [(&'static str, Option<u8>)]) -> Option<&'static str> {
    let begins = |name: &str| name.as_bytes().starts_with(word);
    let is_free = !word.is_empty() && !WITHOUT_VALUE.iter().any(|name| begins(name));
    let own = |name: &str| [RUNTIME_PATH, CONFIG_PATH].contains(&name);
    let mut names = table.iter().map(|(name, _)| *name);
    names.find(|name| is_free && begins(name) && !own(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(
            line.split(' ')
                .filter(|w| !w.is_empty())
                .map(OsString::from),
        )
    }

    #[test]
    fn the_bundle_is_found_however_it_is_written() {
        for line in [
            // containerd, docker
            "--root /run/r --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid web",
            "--root /run/r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --no-pivot web",
            // podman's conmon
            "--log=/x --log-format=json create --bundle /b --pid-file /p --console-socket /c web",
            // by hand
            "run -b /b web",
            "run --bundle=/b web",
            "run -b=/b web",
            "run -bundle /b web",
            "-root /run/r run -bundle=/b web",
            "run -d --bundle /b web",
            "run --preserve-fds 3 --bundle /b web",
            "create --pid-file --bundle --bundle /b web",
            "run web --bundle /b",
            // crun
            "--cgroup-manager=cgroupfs --root=/run/r --debug run -b/b web",
            "--cgroup-manager disabled run --bundle /b web",
            "--cgroup-m disabled run --bun /b web",
            "--rootl false --no-p --deb run --bu=/b --pid /p --cons /s --no-new-k web",
            // youki
            "-r /run/r -l /x --log-format json --systemd-cgroup create --bundle /b --preserve-fds 2 web",
            "--log-level debug run --bundle=/b web",
        ] {
            let parsed = parse(line);
            assert!(parsed.creates_container(), "{line}");
            assert_eq!(parsed.bundle, Path::new("/b"), "{line}");
            assert_eq!(parsed.config, Path::new("config.json"), "{line}");
            assert_eq!(parsed.rest.join(OsStr::new(" ")), line);
        }
    }

    #[test]
    fn the_container_and_the_states_are_found() {
        for (line, root, id) in [
            (
                "--root /r create --bundle /b --pid-file /p web",
                Some("/r"),
                Some("web"),
            ),
            ("--root=/r start web", Some("/r"), Some("web")),
            ("-r/r exec --use 0 --det web", Some("/r"), Some("web")),
            ("--root /r exec --t web sh", Some("/r"), Some("web")),
            (
                "-r /r exec --process /p --detach web",
                Some("/r"),
                Some("web"),
            ),
            (
                "exec -u 0 -e A=b --cwd /x -t web sh -c --root",
                None,
                Some("web"),
            ),
            ("exec --user=0 web --root /r", None, Some("web")),
            ("exec -- web", None, Some("web")),
            ("run", None, None),
            ("list", None, None),
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.root, root.map(PathBuf::from), "{line}");
            assert_eq!(parsed.id.as_deref(), id, "{line}");
            assert_eq!(parsed.rest.join(OsStr::new(" ")), line);
        }
    }

    #[test]
    fn a_runtime_that_shall_not_pivot_is_noticed_however_that_is_written() {
        for (line, is_it) in [
            ("run --no-pivot web", true),
            ("run -no-pivot web", true),
            ("run --no-pivot=true web", true),
            ("run --no-p web", true),
            ("run --no-pivo web", true),
            ("run --no-pivot=false web", false),
            ("run --no-new-keyring web", false),
            ("run --no- web", false),
            ("run web no-pivot", false),
        ] {
            assert_eq!(parse(line).has_no_pivot(), is_it, "{line}");
        }
    }

    #[test]
    fn without_an_option_the_bundle_is_here() {
        assert_eq!(parse("run web").bundle, Path::new("."));
        assert_eq!(parse("run -- web --bundle /x").bundle, Path::new("."));
        let crun = parse("run --config other.json web");
        assert_eq!(crun.config, Path::new("other.json"));
    }

    #[test]
    fn a_value_is_no_subcommand() {
        for (line, subcommand) in [
            ("--root create state web", Some("state")),
            ("--log run delete --force run", Some("delete")),
            ("--root=create kill web KILL", Some("kill")),
            ("exec web run", Some("exec")),
            ("--version", None),
            ("--root run", None),
            ("", None),
            ("features", Some("features")),
            ("restore --bundle /b web", Some("restore")),
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.subcommand.as_deref(), subcommand, "{line}");
            assert!(!parsed.creates_container(), "{line}");
            assert_eq!(parsed.rest.join(OsStr::new(" ")), line);
        }
    }

    #[test]
    fn our_own_options_are_taken_out_wherever_they_stand_before_the_subcommand() {
        for line in [
            "--eci-runtime-path /r --eci-config=/c --debug run web",
            "--debug --eci-config /c --eci-runtime-path=/r run web",
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.runtime, Some("/r".into()), "{line}");
            assert_eq!(parsed.host_config, Some("/c".into()), "{line}");
            assert_eq!(parsed.rest.join(OsStr::new(" ")), "--debug run web");
        }
        let behind = parse("exec web prog --eci-config /c");
        assert_eq!(behind.host_config, None);
        assert_eq!(behind.rest.len(), 5);
    }

    #[test]
    fn the_log_and_its_format_are_found() {
        for line in [
            "--log /l --log-format json run web",
            "--log=/l --log-format=json state web",
            "-log /l -log-format=json run web",
            "-l /l --log-format json run web",
        ] {
            let parsed = parse(line);
            assert_eq!(
                (parsed.log, parsed.log_json),
                (Some("/l".into()), true),
                "{line}"
            );
        }
        assert!(!parse("--log /l --log-format text run web").log_json);
    }

    #[test]
    fn arguments_that_are_no_text_are_passed_on() {
        let odd = OsString::from_vec(vec![b'-', b'-', 0xff, b'=', 0xfe]);
        let parsed = CommandLine::parse([odd.clone(), "run".into(), "web".into()]);
        assert_eq!(parsed.rest[0], odd);
        assert!(parsed.creates_container());
    }
}
