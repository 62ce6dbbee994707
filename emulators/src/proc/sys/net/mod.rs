//! Views below /proc/sys/net: tunables that the machine's network namespace has and the container's has not.
//!
//! The kernel lists in /proc/sys/net what the network namespace of the reader has. Where a tunable's name is not listed
//! for the container, its directory is grafted; everything else in it is the kernel's own of the container's namespace.

pub mod core;
pub mod ipv4;
pub mod netfilter;

use std::collections::BTreeSet;

use crate::directory::{Decision, Directory, DirectoryFacts, hidden, join};
use crate::registry::TUNABLES;
use crate::tunable::Tunable;
use crate::{Context, Emulator, Error};

/// A directory that has tunables beside what the container's network namespace has in it.
#[derive(Debug)]
pub struct Namespaced(pub &'static DirectoryFacts);

impl Namespaced {
    /// The tunables in it and below, and their relative paths. Whether a container has one is asked of the machine, so
    /// that is done for the few that matter.
    fn tunables(&self) -> impl Iterator<Item = (&'static Tunable, &'static str)> {
        let all = TUNABLES.iter().copied().flatten();
        all.filter_map(|tunable| {
            let rel = tunable.path().strip_prefix(self.0.path)?;
            Some((tunable, rel.strip_prefix('/')?))
        })
    }
}

/// What follows `dir` in a relative path below it.
fn below<'a>(rel: &'a str, dir: &str) -> Option<&'a str> {
    match dir {
        "" => Some(rel),
        _ => rel.strip_prefix(dir)?.strip_prefix('/'),
    }
}

impl Directory for Namespaced {
    fn facts(&self) -> &'static DirectoryFacts {
        self.0
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        if rel.is_empty() {
            return Ok(Decision::Namespaced(self.0.path.to_owned()));
        }
        for (tunable, path) in self.tunables() {
            let decision = match path == rel {
                true => Decision::Tunable(tunable.id()),
                false if below(path, rel).is_some() => Decision::Made,
                false => continue,
            };
            if tunable.exists(cx) {
                return Ok(decision);
            }
        }
        Ok(Decision::Namespaced(join(self.0.path, rel)))
    }

    /// The tunables alone: what else there is, the container's network namespace says.
    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        let names: BTreeSet<String> = self
            .tunables()
            .filter_map(|(tunable, path)| Some((tunable, below(path, rel)?)))
            .filter(|(tunable, _)| tunable.exists(cx))
            .map(|(_, rest)| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    fn render(&self, _cx: &Context<'_>, rel: &str, _out: &mut Vec<u8>) -> Result<(), Error> {
        Err(hidden(rel))
    }

    fn is_namespaced(&self) -> bool {
        true
    }

    /// The container has a network namespace of its own, which lacks one of the tunables.
    fn exists(&self, cx: &Context<'_>) -> bool {
        self.tunables().any(|(tunable, _)| tunable.exists(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::container::Network;
    use crate::{Cgroup, Container, Host, Identity, Load, Settings};

    const QDISC: u16 = 416;
    const THRESHOLD: u16 = 440;

    /// A machine with some of the tunables, and a container of which the kernel keeps `kept` itself.
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
            network: network.map(|kept| Network {
                kept: kept.to_vec(),
            }),
            ..Identity::default()
        };
        check(&Context {
            host: &host,
            container: &Container {
                cgroup: Cgroup::new(Vec::new()),
                identity,
                history: Default::default(),
                tunables: Default::default(),
            },
            settings: &Settings::default(),
            boottime: std::time::Duration::ZERO,
            load: Load::default(),
        });
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
            // The machine does not have it either.
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
