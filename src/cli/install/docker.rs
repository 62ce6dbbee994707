//! Docker: a runtime in `daemon.json`.

use eci_fs_protocol::error::{Error, Result};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Value, json};

use super::{EngineConfig, Installation, RUNTIME, RUNTIME_PROGRAM};

/// `/etc/docker/daemon.json`.
#[derive(Debug)]
pub(in crate::cli) struct DaemonJson;

const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";

/// The default runtime of dockerd. A configuration that names it changes nothing.
const STOCK: &str = "runc";

impl EngineConfig for DaemonJson {
    fn path(&self) -> &'static str {
        "/etc/docker/daemon.json"
    }

    fn installed(&self, text: &str) -> Result<Option<Installation>> {
        let config = parse(text)?;
        let Some(runtime) = runtimes(&config)?.and_then(|all| all.get(RUNTIME)) else {
            return Ok(None);
        };
        let default = config.get(DEFAULT).and_then(Value::as_str) == Some(RUNTIME);
        let path = runtime.get("path").and_then(Value::as_str);
        Ok(path.and_then(|path| Installation::of(path, RUNTIME_PROGRAM, default)))
    }

    fn install(&self, text: Option<&str>, installation: &Installation) -> Result<String> {
        let text = text.unwrap_or_default();
        let mut config = parse(text)?;
        let taken = runtimes(&config)?.is_some_and(|all| all.contains_key(RUNTIME));
        if taken && self.installed(text)?.is_none() {
            return Err(Error::refused(format!(
                "{RUNTIMES} has another {RUNTIME:?}, which is not ours"
            ))
            .remedy("rename it"));
        }
        if installation.default {
            match config.get(DEFAULT).map(|value| value.as_str()) {
                None | Some(Some(STOCK | RUNTIME)) => {}
                Some(other) => {
                    return Err(Error::refused(format!(
                        "{DEFAULT} is {:?}, which would no longer be used",
                        other.unwrap_or_default()
                    ))
                    .remedy("remove it, or leave out --default-runtime"));
                }
            }
            config.insert(DEFAULT.to_owned(), json!(RUNTIME));
        }
        let all = config.entry(RUNTIMES).or_insert_with(|| json!({}));
        // An existing entry keeps its other settings, as runtimeArgs.
        all[RUNTIME]["path"] = json!(installation.runtime());
        if parse(text)? == config {
            return Ok(text.to_owned());
        }
        print(&config, text)
    }

    fn uninstall(&self, text: &str, before: Option<&str>) -> Result<Option<String>> {
        let mut config = parse(text)?;
        if config.get(DEFAULT).and_then(Value::as_str) == Some(RUNTIME) {
            let was = match before.map(parse) {
                Some(Ok(before)) => before.get(DEFAULT).cloned(),
                _ => None,
            };
            match was {
                Some(was) => config.insert(DEFAULT.to_owned(), was),
                None => config.shift_remove(DEFAULT),
            };
        }
        if let Some(all) = config.get_mut(RUNTIMES).and_then(Value::as_object_mut) {
            all.shift_remove(RUNTIME);
            if all.is_empty() {
                config.shift_remove(RUNTIMES);
            }
        }
        print(&config, text).map(Some)
    }
}

fn parse(text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(Error::refused("this is no JSON object").remedy("dockerd refuses it too")),
        Err(error) => {
            Err(Error::refused(format!("this is no JSON: {error}")).remedy("correct it first"))
        }
    }
}

fn runtimes(config: &Map<String, Value>) -> Result<Option<&Map<String, Value>>> {
    match config.get(RUNTIMES) {
        None => Ok(None),
        Some(Value::Object(all)) if all.values().all(Value::is_object) => Ok(Some(all)),
        Some(_) => Err(
            Error::refused(format!("{RUNTIMES} is no table of runtimes"))
                .remedy("dockerd refuses it too"),
        ),
    }
}

/// Prints the configuration with the indentation of `like`.
fn print(config: &Map<String, Value>, like: &str) -> Result<String> {
    let indent = like.lines().find_map(|line| {
        let inner = line.trim_start();
        let blanks = &line[..line.len() - inner.len()];
        (!blanks.is_empty() && inner.starts_with('"')).then_some(blanks)
    });
    let formatter = PrettyFormatter::with_indent(indent.unwrap_or("  ").as_bytes());
    let mut bytes = Vec::new();
    let trouble = |e: std::io::Error| Error::io("encode", "the configuration", e);
    config
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, formatter,
        ))
        .map_err(|e| trouble(e.into()))?;
    if like.is_empty() || like.ends_with('\n') {
        bytes.push(b'\n');
    }
    String::from_utf8(bytes).map_err(|e| trouble(std::io::Error::other(e)))
}
