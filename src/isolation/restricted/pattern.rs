//! Patterns of paths.

use std::path::{Component, Path, PathBuf};

/// A pattern of absolute paths: a path in whose names each `*` stands for any letters. It covers a path and everything
/// below that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(PathBuf);

impl Pattern {
    pub(super) fn new(text: &Path) -> Self {
        Self(text.to_owned())
    }

    /// Returns the number of names in the pattern.
    pub(super) fn len(&self) -> usize {
        self.0.components().count()
    }

    /// Returns whether `path`, without links and "..", is covered.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let mut names = path.components();
        self.0
            .components()
            .all(|pattern| match (pattern, names.next()) {
                (Component::Normal(pattern), Some(Component::Normal(name))) => {
                    is_like(name.as_encoded_bytes(), pattern.as_encoded_bytes())
                }
                (pattern, name) => Some(pattern) == name,
            })
    }
}

/// Returns whether a name has the form of `pattern`.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    let mut pieces = pattern.split(|byte| *byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&[u8]> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    // The first place where a piece is found is as good as any other.
    for piece in pieces {
        let found =
            (0..=rest.len()).find(|at| rest.get(*at..).is_some_and(|r| r.starts_with(piece)));
        let Some(at) = found else {
            return false;
        };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_paths_name_by_name_and_what_is_below() {
        for (pattern, path, covers) in [
            ("/", "/", true),
            ("/", "/a", true),
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/b/c", true),
            ("/a/b", "/a", false),
            ("/a/b", "/a/bc", false),
            ("/a/*/c", "/a/b/c/d", true),
            ("/a/*/c", "/a/b/d/c", false),
            ("/a/*/c", "/a/c", false),
            ("/a/*-x/c", "/a/b-x/c", true),
            ("/a/*-x/c", "/a/b-y/c", false),
            ("/a/x*y*z", "/a/x1y2z", true),
            ("/a/x*y*z", "/a/xyz", true),
            ("/a/x*y*z", "/a/xzy", false),
            ("/a/x*x", "/a/x", false),
            ("/a/*", "/a", false),
            ("/a/*", "/a/b", true),
        ] {
            let found = Pattern::new(Path::new(pattern)).covers(Path::new(path));
            assert_eq!(found, covers, "{pattern} {path}");
        }
    }
}
