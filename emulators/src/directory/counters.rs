//! A directory of the kernel in which counters of the host are zero, and the rest is the kernel's.

use super::{Decision, Directory, DirectoryFacts, hidden, join, static_view};
use crate::{Context, Error, Pace};

/// A directory of settings and counters. Containers see the settings, and zeros in place of the counters.
///
/// A container that can measure CPUs has the kernel's own directory: it can learn what the counters tell in other ways
/// too, and its programs may write to the settings.
#[derive(Debug)]
pub struct Counters {
    facts: DirectoryFacts,
    kind: fn(&str) -> Kind,
}

/// The kind of what lies at a path below the directory.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// The kernel's own.
    Kernel,
    /// The file does not exist for the container.
    Hidden,
    /// The number 0.
    Zero,
    /// A computed number, in a file with these permission bits.
    Number(u16, Number),
}

/// Computes the number in the file at a path of the host.
pub type Number = fn(&Context<'_>, &str) -> Result<u64, Error>;

impl Counters {
    /// Returns the directory at `path`; `id` is a free one. `kind` decides about a relative path below it, and `views` are
    /// the names of the computed files, for documents.
    pub const fn new(
        id: u16,
        path: &'static str,
        views: &'static [&'static str],
        kind: fn(&str) -> Kind,
    ) -> Counters {
        Counters {
            facts: DirectoryFacts {
                id,
                path,
                mode: 0o755,
                views,
            },
            kind,
        }
    }
}

impl Directory for Counters {
    fn facts(&self) -> &DirectoryFacts {
        &self.facts
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        let path = join(self.facts.path, rel);
        Ok(match (self.kind)(rel) {
            _ if rel.is_empty() => Decision::Passthrough(path),
            Kind::Kernel => Decision::Passthrough(path),
            Kind::Hidden => Decision::Hidden,
            Kind::Zero => static_view(cx, &path),
            Kind::Number(mode, _) if cx.host.exists(&path) => Decision::View {
                mode,
                pace: Pace::Ticking,
            },
            Kind::Number(..) => Decision::Hidden,
        })
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        let Decision::Passthrough(path) = self.entry(cx, rel)? else {
            return Err(hidden(rel));
        };
        let mut names = cx.host.names(&path)?;
        names.retain(|name| !matches!((self.kind)(&join(rel, name)), Kind::Hidden));
        Ok(names)
    }

    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let number = match (self.kind)(rel) {
            Kind::Zero => 0,
            Kind::Number(_, number) => number(cx, &join(self.facts.path, rel))?,
            Kind::Kernel | Kind::Hidden => return Err(hidden(rel)),
        };
        crate::text::put(out, format_args!("{number}\n"));
        Ok(())
    }

    fn exists(&self, cx: &Context<'_>) -> bool {
        !cx.can_measure_cpus() && cx.host.exists(self.facts.path)
    }

    fn is_for_all(&self) -> bool {
        false
    }
}
