//! CRI-O: a separate file beside its configuration.

use eci_fs_protocol::error::{Error, Result};
use toml_edit::{DocumentMut, Item, Table, value};

use super::containerd::parse;
use super::{EngineConfig, Installation, RUNTIME, RUNTIME_PROGRAM};

/// `/etc/crio/crio.conf.d/90-eci-fs.conf`.
#[derive(Debug)]
pub(in crate::cli) struct DropIn;

impl EngineConfig for DropIn {
    fn path(&self) -> &'static str {
        "/etc/crio/crio.conf.d/90-eci-fs.conf"
    }

    fn installed(&self, text: &str) -> Result<Option<Installation>> {
        let config = parse(text)?;
        let runtime = &config.get("crio").and_then(|crio| crio.get("runtime"));
        let at = |key: &str| runtime.and_then(|table| table.get(key));
        let default = at("default_runtime").and_then(Item::as_str) == Some(RUNTIME);
        let path = at("runtimes")
            .and_then(|all| all.get(RUNTIME))
            .and_then(|runtime| runtime.get("runtime_path"))
            .and_then(Item::as_str);
        Ok(path.and_then(|path| Installation::of(path, RUNTIME_PROGRAM, default)))
    }

    fn install(&self, text: Option<&str>, installation: &Installation) -> Result<String> {
        if let Some(text) = text
            && self.installed(text)?.is_none()
        {
            return Err(Error::refused("this file is not ours").remedy("rename it"));
        }
        let mut runtime = Table::new();
        runtime["runtime_path"] = value(installation.runtime());
        runtime["runtime_type"] = value("oci");
        runtime["runtime_root"] = value("/run/eci-runc");
        let mut all = implicit();
        all.insert(RUNTIME, Item::Table(runtime));
        let mut section = implicit();
        if installation.default {
            section["default_runtime"] = value(RUNTIME);
        }
        section.insert("runtimes", Item::Table(all));
        let mut crio = implicit();
        crio.insert("runtime", Item::Table(section));
        let mut config = DocumentMut::new();
        config.insert("crio", Item::Table(crio));
        Ok(config.to_string())
    }

    fn uninstall(&self, _text: &str, _before: Option<&str>) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Returns a table that has no header line while it holds tables only.
fn implicit() -> Table {
    let mut table = Table::new();
    table.set_implicit(true);
    table
}
