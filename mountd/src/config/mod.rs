//! The configuration of the host: `/etc/eci-fs/config.toml`. All programs read it by this one schema, so a file that one
//! of them refuses is refused by all, with the same words.
//!
//! Every key, every value and every path is checked while the file is read, so that each error has a line.

mod ceilings;
mod hook;
mod isolation;
mod location;
mod runtime;
mod server;
mod views;

use serde::Deserialize;

pub use ceilings::Ceilings;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Settings;
pub use hook::{Hook, MAX_TIMEOUT, OnError};
pub use isolation::{HostNamespaces, Isolation, UnmappedVolumes};
pub use location::{DEFAULT, Location, VARIABLE};
pub use runtime::Runtime;
pub use server::Server;
pub use views::Views;

use crate::regular_file;

/// The whole configuration. A file with any other key is refused, so that a misspelled key is not ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The settings of all views, which the daemon gives to its server.
    pub views: Views,
    /// What the server may spend for a container.
    pub server: Server,
    /// The settings of `eci-fs hook`.
    pub hook: Hook,
    /// The settings of `eci-fs runtime`.
    pub runtime: Runtime,
    /// The settings of isolation, for `eci-fs runtime` and the daemon.
    pub isolation: Isolation,
    /// The limits up to which the daemon raises sysctls of the host.
    pub raise: Ceilings,
}

impl Config {
    /// Reads the file. Returns the defaults when nobody named it and it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read, or has an unknown key or an invalid value. The error names the file and the line.
    pub fn read(location: &Location) -> Result<Self> {
        let path = &location.path;
        match regular_file::read_to_string(path, regular_file::MAX_CONFIG) {
            Ok(text) => Self::parse(&text).map_err(|error| error.context(path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !location.is_named => {
                Ok(Self::default())
            }
            Err(e) => Err(Error::io("read the configuration", path, e)
                .remedy("--config or ECI_FS_CONFIG must name a file that can be read")),
        }
    }

    /// Returns the settings of the server.
    pub fn settings(&self) -> Settings {
        Settings {
            freshness_ms: self.views.freshness,
            host_clamp: self.views.host_clamp,
            cpu_ids: self.views.cpu_ids,
            cpu_quota: self.views.cpu_quota,
            cpu_share: self.server.cpu_share,
        }
    }

    /// Parses the text of such a file.
    ///
    /// # Errors
    /// When it has an unknown key or an invalid value. The error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map(|span| text[..span.start].matches('\n').count() + 1);
            let at = line.map_or(String::new(), |line| format!("line {line}: "));
            Error::refused(format!("{at}{}", error.message().replace('\n', ", ")))
                .remedy("docs/operating.md lists what can be configured")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use eci_fs_protocol::choices::{Choice, CpuIds, CpuQuota};
    use eci_fs_protocol::host_sysctl::HostSysctl;

    use super::*;

    fn read_text(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(&Location::named(file.path()))
    }

    #[test]
    fn without_a_file_everything_is_as_documented() {
        let config = Config::default();
        assert_eq!(config.settings(), Settings::default());
        assert_eq!(config.hook.on_error, OnError::Fail);
        assert_eq!(config.hook.limit(), Duration::from_secs(10));
        assert_eq!(config.hook.allow, Choice::ALL);
        assert_eq!(config.raise.tunables(), []);
        assert!(!config.isolation.enabled && !config.isolation.opt_out);
        assert!(!config.isolation.delegate_cgroup_v1 && !config.isolation.locked_mounts);
        assert!(!config.isolation.system_calls);
        assert_eq!(config.isolation.user, "eci-fs");
        assert_eq!(config.isolation.host_namespaces, HostNamespaces::Refuse);
        assert_eq!(config.isolation.unmapped_volumes, UnmappedVolumes::Pass);
        let document = include_str!("../../../docs/operating.md");
        let mut blocks = document.split("```toml\n").skip(1);
        let block = blocks.find(|block| block.contains("[views]")).unwrap();
        let documented = Config::parse(block.split("```").next().unwrap()).unwrap();
        let path = Some("runc".into());
        let runtime = Runtime { path };
        assert_eq!(documented, Config { runtime, ..config });
    }

    #[test]
    fn only_a_file_that_nobody_named_may_be_absent() {
        let absent = Path::new("/nonexistent/config.toml");
        let is_named = false;
        let path = absent.to_owned();
        let unnamed = Location { path, is_named };
        assert_eq!(Config::read(&unnamed).unwrap(), Config::default());
        let error = Config::read(&Location::named(absent)).unwrap_err();
        let words = "cannot read the configuration /nonexistent/config.toml: No such file";
        assert!(error.to_string().starts_with(words), "{error}");
    }

    #[test]
    fn everything_can_be_set() {
        let config = read_text(
            "[views]\nfreshness = 100\nhost-clamp = false\ncpu-ids = 'dense'\ncpu-quota = 'ignore'\n\
             [server]\ncpu-share = 150\n[hook]\non-error = 'ignore'\ntimeout = 3\nallow = ['views', 'cpu-ids']\n\
             runtime-dir = '/run/x'\nstart = true\n[runtime]\npath = '/usr/bin/crun'\n\
             [isolation]\nenabled = true\nuser = 'dockremap'\nhost-namespaces = 'leave-alone'\n\
             unmapped-volumes = 'refuse'\nopt-out = true\ndelegate-cgroup-v1 = true\nmax-descendants = 4096\nmax-depth = 14\n\
             system-calls = true\n\
             restricted-mounts = ['/srv/keys']\nallowed-mounts = ['/etc/app', '/data/*/x']\nallowed-devices = ['/dev/sdb']\n\
             image-annotation = 'io.kubernetes.cri.image-name'\n\
             allowed-images = { 'sha256:0000000000000000000000000000000000000000000000000000000000000000' = ['/a'] }\n\
             locked-mounts = true\n[raise]\n\"/proc/sys/fs/file-max\" = 10_000_000\n",
        );
        let config = config.unwrap();
        assert_eq!(config.views.freshness, 100);
        assert!(!config.views.host_clamp);
        assert_eq!(config.views.cpu_ids, CpuIds::Dense);
        assert_eq!(config.views.cpu_quota, Some(CpuQuota::Ignore));
        assert_eq!(config.settings().cpu_share, 150);
        assert_eq!(config.hook.on_error, OnError::Ignore);
        assert_eq!(config.hook.allow, [Choice::Views, Choice::CpuIds]);
        assert!(config.hook.start);
        assert_eq!(config.runtime.path, Some("/usr/bin/crun".into()));
        let isolation = Isolation {
            enabled: true,
            user: "dockremap".to_owned(),
            host_namespaces: HostNamespaces::LeaveAlone,
            unmapped_volumes: UnmappedVolumes::Refuse,
            opt_out: true,
            restricted_mounts: vec!["/srv/keys".into()],
            allowed_mounts: vec!["/etc/app".into(), "/data/*/x".into()],
            allowed_devices: vec!["/dev/sdb".into()],
            image_annotation: "io.kubernetes.cri.image-name".to_owned(),
            allowed_images: [(format!("sha256:{:064}", 0), vec!["/a".into()])].into(),
            delegate_cgroup_v1: true,
            system_calls: true,
            locked_mounts: true,
            max_descendants: 4096,
            max_depth: 14,
        };
        assert_eq!(config.isolation, isolation);
        let error = read_text("[isolation]\nmax-depth = 15\n").unwrap_err();
        assert!(error.to_string().contains("at most 14"), "{error}");
        assert_eq!(config.raise.of(HostSysctl::FileMax), Some(10_000_000));
        assert_eq!(config.raise.of(HostSysctl::NrOpen), None);
    }

    #[test]
    fn a_file_of_the_first_release_is_valid() {
        let text = "[hook]\non-error = \"fail\"\ntimeout = 10\n\
                    allow = [\"enabled\", \"views\", \"freshness\", \"cpu-ids\"]\n\
                    runtime-dir = \"/run/eci-fs\"\nstart = false\n[runtime]\npath = \"runc\"\n[raise]\n\
                    \"/proc/sys/fs/file-max\" = 10_000_000\n\"/proc/sys/fs/nr_open\" = 4_194_304\n\
                    \"/proc/sys/net/netfilter/nf_conntrack_max\" = 1_048_576\n\
                    \"/sys/module/nf_conntrack/parameters/hashsize\" = 262_144\n";
        assert_eq!(Config::parse(text).unwrap().raise.tunables().len(), 4);
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_refused_with_file_line_and_reason() {
        for (text, line, word) in [
            ("foo = 1\n", 1, "foo"),
            ("\n[hook]\nonerror = 'fail'\n", 3, "onerror"),
            ("[hooks]\n", 1, "hooks"),
            ("[hook]\non-error = 'maybe'\n", 2, "maybe"),
            ("[hook]\nallow = ['everything']\n", 2, "everything"),
            ("[hook]\nstart = true\ntimeout = 0\n", 3, "1 to 600 seconds"),
            ("[hook]\ntimeout = 601\n", 2, "1 to 600 seconds"),
            ("[hook]\ntimeout = '3'\n", 2, "string"),
            ("[hook]\nruntime-dir = 'run'\n", 2, "absolute"),
            ("[hook\n", 1, "table"),
            ("[daemon]\nfreshness = 10\n", 1, "daemon"),
            ("[views]\nfresh = 10\n", 2, "fresh"),
            ("[views]\nfreshness = -1\n", 2, "-1"),
            ("[views]\n\nfreshness = 3600001\n", 3, "0 to 3600000"),
            ("[views]\nhost-clamp = 'no'\n", 2, "boolean"),
            ("[views]\ncpu-ids = 'sparse'\n", 2, "sparse"),
            ("[views]\ncpu-quota = 'offline'\n", 2, "offline"),
            ("[server]\ncpu-share = 10001\n", 2, "0 to 10000"),
            ("[server]\ncpu-share = -1\n", 2, "-1"),
            ("[server]\nshare = 1\n", 2, "share"),
            ("[runtime]\npath = ''\n", 2, "empty"),
            ("[runtime]\nargs = []\n", 2, "args"),
            ("[isolation]\nenabled = 'yes'\n", 2, "boolean"),
            ("[isolation]\nenabled = true\nuser = ''\n", 3, "user"),
            ("[isolation]\nuser = 'a:b'\n", 2, "a:b"),
            ("[isolation]\nuser = '0'\n", 2, "'0'"),
            ("[isolation]\nuser = 'root'\n", 2, "root"),
            ("[isolation]\nhost-namespaces = 'allow'\n", 2, "allow"),
            ("[isolation]\nunmapped-volumes = 'chown'\n", 2, "chown"),
            ("[isolation]\nranges = []\n", 2, "ranges"),
            ("[isolation]\nallowed-mounts = ['etc']\n", 2, "absolute"),
            (
                "[isolation]\nallowed-images = { 'sha256:12' = [] }\n",
                2,
                "sha256:12",
            ),
            (
                "[isolation]\nrestricted-mounts = ['/a/../b']\n",
                2,
                "absolute",
            ),
            ("[raise]\n\n'/proc/sys/kernel/panic' = 1\n", 3, "panic"),
            ("[raise]\n'/proc/sys/fs/nr_open' = 'many'\n", 2, "many"),
            ("[raise]\n'/proc/sys/fs/nr_open' = -1\n", 2, "-1"),
            (
                "[raise]\n'/proc/sys/fs/nr_open' = 2147483648\n",
                2,
                "1 to 2147483584",
            ),
            ("[raise]\n'/proc/sys/fs/nr_open' = 0\n", 2, "nr_open"),
            ("raise = 3\n", 1, "table"),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            for word in ["/tmp", &format!(": line {line}: "), word, "operating.md"] {
                assert!(error.contains(word), "{text:?}: {word}: {error}");
            }
        }
    }
}
