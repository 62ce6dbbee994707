//! The paths of the work tree, and of the target directory, which holds everything that is made.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the top of the work tree.
pub fn workspace_root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    // tests/xtask is two levels down; were it moved, the manifest's own folder is still inside.
    manifest.ancestors().nth(2).unwrap_or(manifest)
}

/// Cargo's target directory: `CARGO_TARGET_DIR` if set, else `target` at the top of the work tree.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => {
            std::path::absolute(&dir).unwrap_or_else(|_| PathBuf::from(dir))
        }
        _ => workspace_root().join("target"),
    }
}
