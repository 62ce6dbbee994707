//! Files of the host that only root may read, on some kernel at least. A server is another user, so it asks the daemon for
//! them ([`crate::link::BrokerRequest::Host`]).

/// The tunables whose value on the host is a secret of root on some kernel.
pub const TUNABLES: [&str; 5] = [
    "/proc/sys/fs/protected_fifos",
    "/proc/sys/fs/protected_hardlinks",
    "/proc/sys/fs/protected_regular",
    "/proc/sys/fs/protected_symlinks",
    "/sys/module/nf_conntrack/parameters/hashsize",
];

/// Returns true if the path is that of one of [`TUNABLES`].
pub fn is_tunable(path: &str) -> bool {
    TUNABLES.contains(&path)
}
