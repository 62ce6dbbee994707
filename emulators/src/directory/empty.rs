//! A directory of the kernel that containers see empty.

use super::{Decision, Directory, DirectoryFacts, hidden};
use crate::{Context, Error};

/// A directory that is empty for every container.
#[derive(Debug)]
pub struct Empty(DirectoryFacts);

impl Empty {
    /// Returns the directory at `path`; `id` is a free one.
    pub const fn new(id: u16, path: &'static str, mode: u16) -> Empty {
        Empty(DirectoryFacts {
            id,
            path,
            mode,
            views: &[],
        })
    }
}

impl Directory for Empty {
    fn facts(&self) -> &DirectoryFacts {
        &self.0
    }

    fn entry(&self, _cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        Ok(if rel.is_empty() {
            Decision::Passthrough(self.0.path.to_owned())
        } else {
            Decision::Hidden
        })
    }

    fn names(&self, _cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        if rel.is_empty() {
            Ok(Vec::new())
        } else {
            Err(hidden(rel))
        }
    }

    fn render(&self, _cx: &Context<'_>, rel: &str, _out: &mut Vec<u8>) -> Result<(), Error> {
        Err(hidden(rel))
    }
}
