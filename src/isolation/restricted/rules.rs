//! The rules about paths: which of them decides about one.

use std::path::{Path, PathBuf};

use super::names::{Location, Names};
use super::pattern::Pattern;

/// The access to a path that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// None at all.
    None,
    /// Reading alone.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// A directory or file of the host that containers may not have.
#[derive(Debug)]
pub(super) struct Restricted<'a> {
    /// The path as it is written.
    pub(super) written: PathBuf,
    /// The path without links.
    pub(super) path: PathBuf,
    /// The access that containers may have all the same.
    pub(super) access: Access,
    /// The place of it.
    location: Option<Location<'a>>,
}

impl<'a> Restricted<'a> {
    pub(super) fn new(path: &Path, access: Access, names: &Names<'a>) -> Self {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self {
            written: path.to_owned(),
            location: names.location(&real),
            path: real,
            access,
        }
    }

    fn forbids(&self, read_only: bool) -> bool {
        !(self.access == Access::ReadOnly && read_only)
    }
}

/// A path that containers may have.
#[derive(Debug)]
pub(super) struct Allowed {
    /// The pattern of it.
    pub(super) pattern: Pattern,
    /// The access that is allowed.
    pub(super) access: Access,
}

/// The rules of one author about one use of a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'r, 'a> {
    /// The restricted paths.
    pub(super) restricted: &'r [Restricted<'a>],
    /// The paths that are allowed all the same.
    pub(super) allowed: &'r [Allowed],
}

/// The verdict of the rules about a path.
#[derive(Debug)]
pub(super) enum Verdict<'r, 'a> {
    /// Nothing.
    Unknown,
    /// A container may have it.
    Allowed,
    /// A container may not have it.
    Refused(Refusal<'r, 'a>),
}

/// The reason why a container may not have a path.
#[derive(Debug)]
pub(super) struct Refusal<'r, 'a> {
    /// The rule.
    pub(super) rule: &'r Restricted<'a>,
    /// True if the restricted one is below the path, false if the path is the restricted one or below it.
    pub(super) contains: bool,
}

impl<'r, 'a> Rules<'r, 'a> {
    /// Judges a path by which a container gets what is at `location`. Of rules about the path and those above it, the one
    /// with the longest path decides.
    pub(super) fn judge(
        &self,
        name: &Path,
        location: &Location<'_>,
        read_only: bool,
    ) -> Verdict<'r, 'a> {
        let forbids = || {
            self.restricted
                .iter()
                .filter(|rule| rule.forbids(read_only))
        };
        let length = |path: &Path| path.components().count();
        let restricted = forbids()
            .filter(|rule| name.starts_with(&rule.path))
            .max_by_key(|rule| length(&rule.path));
        let allowed = self
            .allowed
            .iter()
            .filter(|rule| read_only || rule.access == Access::ReadWrite)
            .filter(|rule| rule.pattern.covers(name))
            .map(|rule| rule.pattern.len())
            .max();
        if let Some(rule) = restricted
            && allowed.is_none_or(|allowed| allowed <= length(&rule.path))
        {
            let contains = false;
            return Verdict::Refused(Refusal { rule, contains });
        }
        let is_inside = |rule: &&Restricted<'_>| {
            let by_place = rule
                .location
                .as_ref()
                .is_some_and(|inner| location.contains(inner));
            by_place || (rule.path != name && rule.path.starts_with(name))
        };
        if let Some(rule) = forbids().find(is_inside) {
            let contains = true;
            return Verdict::Refused(Refusal { rule, contains });
        }
        match allowed {
            Some(_) => Verdict::Allowed,
            None => Verdict::Unknown,
        }
    }
}
