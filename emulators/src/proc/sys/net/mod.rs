//! Views below /proc/sys/net: tunables that the host's network namespace has and the container's lacks.
//!
//! The kernel lists in /proc/sys/net the files of the reader's network namespace. If a tunable is not listed for the
//! container, its directory is grafted. Everything else in it is the kernel's, of the container's namespace.

pub mod core;
pub mod ipv4;
pub mod netfilter;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::container::Network;
    use crate::directory::{Decision, Directory};
    use crate::{Cgroup, Container, Context, Host, Identity, Settings};

    const QDISC: u16 = 416;
    const THRESHOLD: u16 = 440;

    /// Calls `check` for a host with some of the tunables, and a container whose network namespace has those in
    /// `network`.
    fn with(network: Option<&[u16]>, check: impl FnOnce(&Context<'_>)) {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "core/default_qdisc",
            "core/rmem_max",
            "ipv4/neigh/default/gc_thresh1",
        ] {
            let path = root.path().join("proc/sys/net").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1\n").unwrap();
        }
        fs::create_dir(root.path().join("sys")).unwrap();
        let open = |name: &str| fs::File::open(root.path().join(name)).unwrap().into();
        let host = Host::from_dirs(open("proc"), open("sys"));
        let identity = Identity {
            network: network.map(|own| Network {
                own_tunables: own.to_vec(),
            }),
            ..Identity::default()
        };
        let container = Container {
            cgroup: Cgroup::new(Vec::new()),
            identity,
            history: Default::default(),
            tunables: Default::default(),
            can_measure_cpus: Default::default(),
        };
        let settings = Settings::default();
        check(&Context::new(
            &host,
            &container,
            &settings,
            std::time::Duration::ZERO,
        ));
    }

    #[test]
    fn in_the_machines_network_namespace_nothing_is_computed() {
        with(None, |cx| {
            assert!(!core::CORE.exists(cx));
            assert!(!ipv4::neigh::NEIGH.exists(cx));
        });
    }

    #[test]
    fn what_a_network_namespace_lacks_is_listed_and_the_rest_is_its_own() {
        with(Some(&[]), |cx| {
            assert!(core::CORE.exists(cx));
            assert_eq!(
                core::CORE.names(cx, "").unwrap(),
                ["default_qdisc", "rmem_max"]
            );
            let entry = |rel| core::CORE.entry(cx, rel).unwrap();
            assert_eq!(entry("default_qdisc"), Decision::Tunable(QDISC));
            let own = |path: &str| Decision::Namespaced(format!("/proc/sys/net/core{path}"));
            assert_eq!(entry(""), own(""));
            assert_eq!(entry("somaxconn"), own("/somaxconn"));
            // The host does not have it either.
            assert_eq!(entry("wmem_max"), own("/wmem_max"));
        });
    }

    #[test]
    fn a_directory_that_a_network_namespace_lacks_is_made() {
        with(Some(&[]), |cx| {
            let neigh = &ipv4::neigh::NEIGH;
            assert_eq!(neigh.names(cx, "").unwrap(), ["default"]);
            assert_eq!(neigh.names(cx, "default").unwrap(), ["gc_thresh1"]);
            let entry = |rel| neigh.entry(cx, rel).unwrap();
            assert_eq!(entry("default"), Decision::Made);
            assert_eq!(entry("default/gc_thresh1"), Decision::Tunable(THRESHOLD));
            assert!(matches!(entry("lo"), Decision::Namespaced(_)));
            assert!(matches!(entry("default_"), Decision::Namespaced(_)));
        });
    }

    #[test]
    fn what_the_kernel_keeps_for_the_namespace_is_left_to_it() {
        with(Some(&[THRESHOLD]), |cx| {
            assert!(core::CORE.exists(cx));
            assert!(!ipv4::neigh::NEIGH.exists(cx));
        });
    }
}
