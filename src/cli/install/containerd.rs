//! containerd: a runtime of its CRI plugin, which Kubernetes names by a RuntimeClass. What speaks to containerd
//! directly, as `ctr`, names the program at each call and needs no configuration.

use eci_fs_protocol::error::{Error, Result};
use toml_edit::{Decor, DocumentMut, Item, Table, value};

use super::{Edit, RUNTIME, RUNTIME_PROGRAM, Wish};

/// `/etc/containerd/config.toml`.
#[derive(Debug)]
pub(in crate::cli) struct ConfigToml;

const DEFAULT: &str = "default_runtime_name";
const RUNTIMES: &str = "runtimes";
const OPTIONS: &str = "options";
const BINARY: &str = "BinaryName";

/// The runtime that containerd has of its own.
const STOCK: &str = "runc";

/// The kind of runtime that calls a program with the command line of runc.
const SHIM: &str = "io.containerd.runc.v2";

impl Edit for ConfigToml {
    fn path(&self) -> &'static str {
        "/etc/containerd/config.toml"
    }

    fn installed(&self, text: &str) -> Result<Option<Wish>> {
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
        Ok(path.and_then(|path| Wish::of(path, RUNTIME_PROGRAM, default)))
    }

    fn install(&self, text: Option<&str>, wish: &Wish) -> Result<String> {
        let text = text.unwrap_or("version = 2\n");
        let installed = self.installed(text)?;
        if installed.as_ref() == Some(wish) {
            return Ok(text.to_owned());
        }
        let mut config = parse(text)?;
        let mut section = config.as_table_mut();
        for key in section_of(&parse(text)?)? {
            section = table(section, key)?;
        }
        if wish.default {
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
                // A list of runtimes takes the place of the one that containerd has of its own, which has the stock one.
                all.insert(STOCK, Item::Table(of_shim()));
            }
            all.insert(RUNTIME, Item::Table(like(stock)?));
        }
        let options = table(table(all, RUNTIME)?, OPTIONS)?;
        set(options, BINARY, &wish.runtime());
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
        if stock.is_some_and(|stock| stock.to_string() == of_shim().to_string()) {
            // It says nothing; most likely it is ours.
            all.remove(STOCK);
        }
        Ok(Some(config.to_string()))
    }
}

/// A document, or the line on which it is none.
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

/// Where the runtimes of CRI are, which depends on the version of the file.
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

/// The table of this name, made if missing.
fn table<'a>(parent: &'a mut Table, key: &str) -> Result<&'a mut Table> {
    let mut new = Table::new();
    // Without a line of its own, unless something other than tables is put into it.
    new.set_implicit(true);
    let item = parent.entry(key).or_insert(Item::Table(new));
    item.as_table_mut().ok_or_else(|| {
        Error::refused(format!("{key} is written in one line")).remedy(format!(
            "write it as a table, with a line for itself as in [{key}]"
        ))
    })
}

/// Set a key to a text, and leave the rest of its line as it is.
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

/// A runtime of which nothing is said but its type.
fn of_shim() -> Table {
    let mut table = Table::new();
    table["runtime_type"] = value(SHIM);
    table
}

/// A runtime with all the settings of the stock one, as the driver of cgroups; its comments are its own.
fn like(stock: Option<Table>) -> Result<Table> {
    let mut runtime = stock.unwrap_or_else(of_shim);
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
    plain(&mut runtime);
    table(&mut runtime, OPTIONS)?;
    Ok(runtime)
}

/// Take comments and the place in the document from a table, and leave the indentation.
fn plain(table: &mut Table) {
    table.set_position(None);
    let header = format!("\n{}", indentation(table.decor()));
    table.decor_mut().set_prefix(header);
    for (mut key, item) in table.iter_mut() {
        if let Some(table) = item.as_table_mut() {
            plain(table);
            continue;
        }
        let blanks = indentation(key.leaf_decor());
        key.leaf_decor_mut().set_prefix(blanks);
    }
}

/// The blanks before a line.
fn indentation(decor: &Decor) -> String {
    let prefix = decor.prefix().and_then(|prefix| prefix.as_str());
    let last = prefix.unwrap_or_default().rsplit('\n').next();
    last.unwrap_or_default().to_owned()
}
