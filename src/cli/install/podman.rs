//! Podman: hooks in the directory that it reads. CRI-O reads it too.

use eci_fs_protocol::error::{Error, Result};
use serde_json::{Value, json};

use super::{EngineConfig, HOOK_PROGRAM, Installation};

/// A hook for one stage, in a file of its own. Its arguments name the stage.
#[derive(Debug)]
pub(in crate::cli) struct Hook {
    path: &'static str,
    stage: &'static str,
}

/// The hook that attaches a container.
pub(in crate::cli) const CREATE: Hook = Hook {
    path: "/usr/share/containers/oci/hooks.d/eci-fs.json",
    stage: "createRuntime",
};

/// The hook that tells the daemon that a container has ended.
pub(in crate::cli) const STOP: Hook = Hook {
    path: "/usr/share/containers/oci/hooks.d/eci-fs-poststop.json",
    stage: "poststop",
};

impl EngineConfig for Hook {
    fn path(&self) -> &'static str {
        self.path
    }

    fn installed(&self, text: &str) -> Result<Option<Installation>> {
        let config: Value = serde_json::from_str(text).map_err(|error| {
            Error::refused(format!("this is no JSON: {error}")).remedy("remove the file")
        })?;
        let program = config["hook"]["path"].as_str();
        Ok(program.and_then(|path| Installation::of(path, HOOK_PROGRAM, false)))
    }

    fn install(&self, text: Option<&str>, installation: &Installation) -> Result<String> {
        if let Some(text) = text
            && self.installed(text)?.is_none()
        {
            return Err(
                Error::refused("this is the hook of another program").remedy("rename the file")
            );
        }
        let config = json!({
            "version": "1.0.0",
            "hook": { "path": installation.hook(), "args": [HOOK_PROGRAM, "hook", self.stage] },
            "when": { "always": true },
            "stages": [self.stage],
        });
        Ok(format!("{config:#}\n"))
    }

    fn uninstall(&self, _text: &str, _before: Option<&str>) -> Result<Option<String>> {
        Ok(None)
    }
}
