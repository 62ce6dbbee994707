//! Directories of /proc/sys/net with tunables that network namespaces lack.

use std::collections::BTreeSet;

use super::{Decision, Directory, DirectoryFacts, hidden, join};
use crate::tunable::Tunable;
use crate::{Context, Emulator, Error};

/// A directory that shows the files of the container's network namespace, and tunables which that lacks.
#[derive(Debug)]
pub struct Namespaced {
    facts: DirectoryFacts,
    /// The tunables in it and below.
    tunables: &'static [Tunable],
}

impl Namespaced {
    /// Returns the directory at `path`, in and below which the container's network namespace may lack `tunables`; `id` is
    /// a free one.
    pub const fn new(id: u16, path: &'static str, tunables: &'static [Tunable]) -> Namespaced {
        Namespaced {
            facts: DirectoryFacts {
                id,
                path,
                mode: 0o555,
                views: &[],
            },
            tunables,
        }
    }

    /// Returns the tunables in and below the directory with their relative paths, whether or not the container has
    /// them.
    fn tunables(&self) -> impl Iterator<Item = (&'static Tunable, &'static str)> {
        self.tunables.iter().filter_map(|tunable| {
            let rel = tunable.path().strip_prefix(self.facts.path)?;
            Some((tunable, rel.strip_prefix('/')?))
        })
    }
}

/// Returns the part of a relative path that follows `dir`.
fn below<'a>(rel: &'a str, dir: &str) -> Option<&'a str> {
    match dir {
        "" => Some(rel),
        _ => rel.strip_prefix(dir)?.strip_prefix('/'),
    }
}

impl Directory for Namespaced {
    fn facts(&self) -> &DirectoryFacts {
        &self.facts
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        if rel.is_empty() {
            return Ok(Decision::Namespaced(self.facts.path.to_owned()));
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
        Ok(Decision::Namespaced(join(self.facts.path, rel)))
    }

    /// Returns the names of tunables only. The container's network namespace lists the others.
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

    /// The container has the directory if its own network namespace lacks one of the tunables.
    fn exists(&self, cx: &Context<'_>) -> bool {
        self.tunables().any(|(tunable, _)| tunable.exists(cx))
    }
}
