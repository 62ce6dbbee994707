//! The command line of the daemon, and the three ways in which it lives.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Config};
use crate::runtime_dir;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::{CpuIds, CpuQuota, Settings};

/// Options of `eci-mountd`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the socket, the lock and the list of containers are; ECI_FS_RUNTIME_DIR sets the default
    #[arg(long, value_name = "DIR", default_value_os_t = runtime_dir::default())]
    pub runtime_dir: PathBuf,

    /// How old a view may be, in milliseconds; 0 computes every view anew at each open [default: 10]
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = parse_milliseconds)]
    pub freshness: Option<u64>,

    /// Accepted without effect: units and daemons of version 0.1.0, which padded views, pass it
    #[arg(long, hide = true)]
    pub no_padding: bool,

    /// Let MemAvailable exceed what the host itself has left
    #[arg(long)]
    pub no_host_clamp: bool,

    /// Renumber each container's CPUs from 0
    #[arg(long)]
    pub dense_cpu_ids: bool,

    /// The CPUs that a container with a CPU quota sees online: as many as the quota amounts to (online), or all of its
    /// cpuset (ignore); by default online, but ignore for a container that can measure CPUs
    #[arg(long, value_name = "EFFECT")]
    pub cpu_quota: Option<CpuQuota>,

    /// The CPU time that the server spends for one container in the long run, in percent of one CPU; 0 for no limit
    /// [default: 25]
    #[arg(long, value_name = "PERCENT")]
    pub cpu_share: Option<u32>,

    /// The server's executable, if it is not the `eci-fs` beside this one
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,

    /// The configuration of the host, for everything that no option sets [default: /etc/eci-fs/config.toml, if it exists]
    #[arg(long, value_name = "FILE", env = config::VARIABLE)]
    pub config: Option<PathBuf>,

    /// Go to the background, and end with the last container
    #[arg(long, hide = true, conflicts_with = "private")]
    pub background: bool,

    /// Take the place of the daemon that runs, which is at the other end of standard input
    #[arg(long, hide = true, conflicts_with = "private")]
    pub successor: bool,

    /// Serve one command, whose connection is standard input, and end with it
    #[arg(long, hide = true)]
    pub private: bool,
}

/// Parses a number of milliseconds.
fn parse_milliseconds(text: &str) -> std::result::Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no age; write milliseconds, as 10, or 0"))
}

impl Options {
    /// Returns the location of the configuration.
    pub fn location(&self) -> config::Location {
        config::Location::of(self.config.as_deref())
    }

    /// Returns the settings of the server: those of the options that were given, and of the configuration.
    pub fn settings(&self, config: &Config) -> Settings {
        let configured = config.settings();
        Settings {
            freshness_ms: self.freshness.unwrap_or(configured.freshness_ms),
            host_clamp: configured.host_clamp && !self.no_host_clamp,
            cpu_ids: match self.dense_cpu_ids {
                true => CpuIds::Dense,
                false => configured.cpu_ids,
            },
            cpu_quota: self.cpu_quota.or(configured.cpu_quota),
            cpu_share: self.cpu_share.unwrap_or(configured.cpu_share),
        }
    }

    /// Returns the server's executable: the one that was named; this one, when it is `eci-fs`; otherwise the `eci-fs`
    /// beside it.
    ///
    /// # Errors
    /// When there is none.
    pub fn server(&self) -> Result<PathBuf> {
        if let Some(path) = &self.server {
            return Ok(path.clone());
        }
        let own = std::env::current_exe().map_err(|e| Error::io("find", "/proc/self/exe", e))?;
        if own.file_name().is_some_and(|name| name != "eci-mountd") {
            // The path may have been replaced by another version in an upgrade, so the link is used.
            return Ok(PathBuf::from("/proc/self/exe"));
        }
        let beside = own.with_file_name("eci-fs");
        if beside.exists() {
            return Ok(beside);
        }
        Err(
            Error::not_found(format!("there is no {}", beside.display()))
                .remedy("install eci-fs beside eci-mountd, or name it with --server"),
        )
    }
}
