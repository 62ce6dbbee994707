//! containerd: a runtime of its CRI plugin, which Kubernetes names by a RuntimeClass. Direct clients, as `ctr`, name
//! the program at each call and need no configuration.

use eci_fs_protocol::error::{Error, Result};
use toml_edit::{Decor, DocumentMut, Item, Table, value};

use super::{EngineConfig, Installation, RUNTIME, RUNTIME_PROGRAM};

/// `/etc/containerd/config.toml`.
#[derive(Debug)]
pub(in crate::cli) struct ConfigToml;

const DEFAULT: &str = "default_runtime_name";
const RUNTIMES: &str = "runtimes";
const OPTIONS: &str = "options";
const BINARY: &str = "BinaryName";

/// The name of containerd's built-in runtime.
const STOCK: &str = "runc";

/// The type of a runtime that is called with the command line of runc.
const SHIM: &str = "io.containerd.runc.v2";

impl EngineConfig for ConfigToml {
    fn path(&self) -> &'static str {
        "/etc/containerd/config.toml"
    }

    fn installed(&self, text: &str) -> Result<Option<Installation>> {
        let config = parse(text)?;
        let mut section = Some(config.as_item());
        for key in section_of(&config)? {
            section = section.and_then(|table| table.get(key));
        }
        let at = |key: &str| section.and_then(|table| table.get(key));
        let path = at(RUNTIMES)
            .and_then(|all| all.get(RUNTIME)?.get(OPTIONS)?.get(BINARY))
            .and_then(Item::as_str);
        let default = at(DEFAULT).and_then(Item::as_str) == Some(RUNTIME);
        Ok(path.and_then(|path| Installation::of(path, RUNTIME_PROGRAM, default)))
    }

    fn install(&self, text: Option<&str>, installation: &Installation) -> Result<String> {
        let text = text.unwrap_or("version = 2\n");
        let installed = self.installed(text)?;
        if installed.as_ref() == Some(installation) {
            return Ok(text.to_owned());
        }
        let mut config = parse(text)?;
        let mut section = config.as_table_mut();
        for key in section_of(&parse(text)?)? {
            section = table(section, key)?;
        }
        if installation.default {
            match section.get(DEFAULT).map(Item::as_str) {
                None | Some(Some(STOCK | RUNTIME | "")) => set(section, DEFAULT, RUNTIME),
                Some(other) => {
                    return Err(Error::refused(format!(
                        "{DEFAULT} is {:?}, which would no longer be used",
                        other.unwrap_or_default()
                    ))
                    .remedy("remove it, or leave out --default-runtime"));
                }
            }
        }
        let names_stock = matches!(
            section.get(DEFAULT).map(Item::as_str),
            None | Some(Some(STOCK | RUNTIME))
        );
        let all = table(section, RUNTIMES)?;
        if all.contains_key(RUNTIME) && installed.is_none() {
            return Err(Error::refused(format!(
                "{RUNTIMES} has another {RUNTIME:?}, which is not ours"
            ))
            .remedy("rename it"));
        }
        if !all.contains_key(RUNTIME) {
            let stock = all.get(STOCK).and_then(Item::as_table).cloned();
            if stock.is_none() && names_stock {
                // A list of runtimes replaces containerd's built-in list, so the built-in runtime is added to it.
                all.insert(STOCK, Item::Table(shim_runtime()));
            }
            all.insert(RUNTIME, Item::Table(runtime_like(stock)?));
        }
        let options = table(table(all, RUNTIME)?, OPTIONS)?;
        set(options, BINARY, &installation.runtime());
        Ok(config.to_string())
    }

    fn uninstall(&self, text: &str, before: Option<&str>) -> Result<Option<String>> {
        let mut config = parse(text)?;
        let path = section_of(&config)?;
        let mut section = config.as_table_mut();
        for key in path {
            section = table(section, key)?;
        }
        if section.get(DEFAULT).and_then(Item::as_str) == Some(RUNTIME) {
            let before = before.and_then(|text| parse(text).ok());
            let mut was = before.as_ref().map(|config| config.as_item());
            for key in path.iter().chain(&[DEFAULT]) {
                was = was.and_then(|item| item.get(key));
            }
            match was.and_then(Item::as_str) {
                Some(was) => set(section, DEFAULT, was),
                None => {
                    section.remove(DEFAULT);
                }
            }
        }
        let all = table(section, RUNTIMES)?;
        all.remove(RUNTIME);
        let stock = all.get(STOCK).and_then(Item::as_table);
        if stock.is_some_and(|stock| stock.to_string() == shim_runtime().to_string()) {
            // The entry only repeats the default, so it is most likely the one that was added by `install`.
            all.remove(STOCK);
        }
        Ok(Some(config.to_string()))
    }
}

/// Parses a document. An error names the line.
pub(super) fn parse(text: &str) -> Result<DocumentMut> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let line = error
            .span()
            .map(|span| text[..span.start].matches('\n').count() + 1);
        let at = line.map_or_else(String::new, |line| format!(" at line {line}"));
        let message = error.message().replace('\n', ", ");
        Error::refused(format!("this is no TOML{at}: {message}")).remedy("correct it first")
    })
}

/// Returns the section of the CRI runtimes, which depends on the version of the file.
fn section_of(config: &DocumentMut) -> Result<&'static [&'static str; 3]> {
    match config.get("version").map(Item::as_integer) {
        Some(Some(2)) => Ok(&["plugins", "io.containerd.grpc.v1.cri", "containerd"]),
        Some(Some(3)) => Ok(&["plugins", "io.containerd.cri.v1.runtime", "containerd"]),
        other => {
            let version = match other {
                None => "1".to_owned(),
                Some(number) => number.map_or_else(String::new, |number| number.to_string()),
            };
            Err(Error::refused(format!(
                "the configuration has version {version}, and 2 and 3 are known"
            ))
            .remedy("bring it to version 2 first (containerd 1.7 has `containerd config migrate`)"))
        }
    }
}

/// Returns the table of this name, and creates it if it is missing.
fn table<'a>(parent: &'a mut Table, key: &str) -> Result<&'a mut Table> {
    let mut new = Table::new();
    // The table has no header line unless something other than tables is put into it.
    new.set_implicit(true);
    let item = parent.entry(key).or_insert(Item::Table(new));
    item.as_table_mut().ok_or_else(|| {
        Error::refused(format!("{key} is written in one line")).remedy(format!(
            "write it as a table, with a line for itself as in [{key}]"
        ))
    })
}

/// Sets a key to a text, and keeps the rest of its line.
fn set(table: &mut Table, key: &str, text: &str) {
    match table.get_mut(key) {
        Some(Item::Value(old)) => {
            let decor = old.decor().clone();
            *old = text.into();
            *old.decor_mut() = decor;
        }
        _ => {
            let beside = table.iter().next().and_then(|(name, _)| table.key(name));
            let blanks = beside.map_or_else(String::new, |name| indentation(name.leaf_decor()));
            table.insert(key, value(text));
            if let Some(mut key) = table.key_mut(key) {
                key.leaf_decor_mut().set_prefix(blanks);
            }
        }
    }
}

/// Returns a runtime with a type and no other setting.
fn shim_runtime() -> Table {
    let mut table = Table::new();
    table["runtime_type"] = value(SHIM);
    table
}

/// Returns a runtime with all the settings of the stock one, as the cgroup driver, but without its comments.
fn runtime_like(stock: Option<Table>) -> Result<Table> {
    let mut runtime = stock.unwrap_or_else(shim_runtime);
    match runtime.get("runtime_type").and_then(Item::as_str) {
        Some(SHIM) => {}
        other => {
            return Err(Error::refused(format!(
                "the runtime {STOCK} is of type {:?}, and we know {SHIM:?}",
                other.unwrap_or_default()
            ))
            .remedy(format!(
                "add a runtime {RUNTIME:?} by hand: docs/engines.md says what it needs"
            )));
        }
    }
    strip_comments(&mut runtime);
    table(&mut runtime, OPTIONS)?;
    Ok(runtime)
}

/// Removes comments and the position in the document from a table, and keeps the indentation.
fn strip_comments(table: &mut Table) {
    table.set_position(None);
    let header = format!("\n{}", indentation(table.decor()));
    table.decor_mut().set_prefix(header);
    for (mut key, item) in table.iter_mut() {
        if let Some(table) = item.as_table_mut() {
            strip_comments(table);
            continue;
        }
        let blanks = indentation(key.leaf_decor());
        key.leaf_decor_mut().set_prefix(blanks);
    }
}

/// Returns the indentation of a line.
fn indentation(decor: &Decor) -> String {
    let prefix = decor.prefix().and_then(|prefix| prefix.as_str());
    let last = prefix.unwrap_or_default().rsplit('\n').next();
    last.unwrap_or_default().to_owned()
}
