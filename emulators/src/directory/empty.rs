//! A directory of the kernel of which containers see nothing, or few names.

use super::{Decision, Directory, DirectoryFacts, hidden, join, split_first};
use crate::{Context, Error};

/// A directory that is empty for containers, except for a few names.
#[derive(Debug)]
pub struct Empty {
    facts: DirectoryFacts,
    kept: &'static [&'static str],
    for_all: bool,
}

impl Empty {
    /// Returns the directory at `path`, which is empty for every container; `id` is a free one.
    pub const fn new(id: u16, path: &'static str, mode: u16) -> Empty {
        Empty {
            facts: DirectoryFacts {
                id,
                path,
                mode,
                views: &[],
            },
            kept: &[],
            for_all: true,
        }
    }

    /// Leaves these names in the directory, and what lies below them.
    #[must_use]
    pub const fn but_for(mut self, kept: &'static [&'static str]) -> Empty {
        self.kept = kept;
        self
    }

    /// Leaves the directory to the kernel in a container that can measure CPUs. That one can learn what the directory
    /// tells in other ways too, and its programs may write to the files.
    #[must_use]
    pub const fn unless_measuring(mut self) -> Empty {
        self.for_all = false;
        self
    }
}

impl Directory for Empty {
    fn facts(&self) -> &DirectoryFacts {
        &self.facts
    }

    fn entry(&self, _cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        Ok(
            if rel.is_empty() || self.kept.contains(&split_first(rel).0) {
                Decision::Passthrough(join(self.facts.path, rel))
            } else {
                Decision::Hidden
            },
        )
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        if self.entry(cx, rel)? == Decision::Hidden {
            return Err(hidden(rel));
        }
        if self.kept.is_empty() {
            return Ok(Vec::new());
        }
        let mut names = cx.host.names(&join(self.facts.path, rel))?;
        names.retain(|name| !rel.is_empty() || self.kept.contains(&name.as_str()));
        Ok(names)
    }

    fn render(&self, _cx: &Context<'_>, rel: &str, _out: &mut Vec<u8>) -> Result<(), Error> {
        Err(hidden(rel))
    }

    fn exists(&self, cx: &Context<'_>) -> bool {
        (self.for_all || !cx.can_measure_cpus()) && cx.host.exists(self.facts.path)
    }

    fn is_for_all(&self) -> bool {
        self.for_all
    }

    fn kept(&self) -> &'static [&'static str] {
        self.kept
    }
}
