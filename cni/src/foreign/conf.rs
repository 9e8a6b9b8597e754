//! Which network is configured: the first valid file of the folder.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Versions of the specification that we speak, oldest first.
const VERSIONS: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.3.0"];

/// One plugin's part of the configuration.
pub type Plugin = Map<String, Value>;

/// A list of plugins to be executed in order.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfList {
    /// The network's name.
    pub name: String,
    /// Version that every plugin is spoken to in.
    pub cni_version: String,
    /// CHECK is not wanted.
    pub disable_check: bool,
    /// GC is not wanted.
    pub disable_gc: bool,
    /// Plugins in order; each has a `type`.
    pub plugins: Vec<Plugin>,
    /// The whole list as it was read.
    pub whole: Value,
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It can't be read.
    #[error("read it")]
    Read(#[source] io::Error),
    /// It is no JSON.
    #[error("parse it")]
    Json(#[source] serde_json::Error),
    /// Something that must be there is missing or wrong.
    #[error("{0}")]
    Shape(&'static str),
    /// It is of another version.
    #[error("cniVersion {0} is not supported (0.3.1 to 1.1.0 are)")]
    Version(String),
}

impl ConfList {
    /// Reads a list, or a single plugin's configuration as a list of one.
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        let whole: Value = serde_json::from_slice(text).map_err(ConfError::Json)?;
        Self::from_value(whole)
    }

    /// The same of what has been read.
    pub fn from_value(whole: Value) -> Result<Self, ConfError> {
        let list = whole
            .as_object()
            .ok_or(ConfError::Shape("it is no object"))?;
        let name = list.get("name").and_then(Value::as_str).unwrap_or_default();
        if !is_name(name) {
            return Err(ConfError::Shape("\"name\" is missing or malformed"));
        }
        let plugins = match list.get("plugins") {
            Some(plugins) => plugins.as_array().cloned().unwrap_or_default(),
            None => vec![whole.clone()],
        };
        let plugins: Option<Vec<Plugin>> = plugins.into_iter().map(plugin).collect();
        let plugins = plugins.ok_or(ConfError::Shape("a plugin has no valid \"type\""))?;
        if plugins.is_empty() {
            return Err(ConfError::Shape("\"plugins\" is empty"));
        }
        let flag = |key: &str| {
            let value = list.get(key);
            value.is_some_and(|v| v == &Value::Bool(true) || v.as_str() == Some("true"))
        };
        Ok(Self {
            name: name.to_owned(),
            cni_version: version(list)?,
            disable_check: flag("disableCheck"),
            disable_gc: flag("disableGC"),
            plugins,
            whole: whole.clone(),
        })
    }

    /// Whether the list is of this version or a later one.
    pub fn at_least(&self, version: &str) -> bool {
        number(&self.cni_version) >= number(version)
    }
}

/// The first valid file of the folder in lexical order; invalid ones are told
/// of and passed over. None when there is none.
pub fn find(dir: &Path) -> Option<(PathBuf, ConfList)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_conf(path))
        .collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let text = fs::read(&path).map_err(ConfError::Read);
        match text.and_then(|text| ConfList::parse(&text)) {
            Ok(list) => Some((path, list)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(path = %path.display(), %error, cause, "CNI configuration passed over");
                None
            }
        }
    })
}

fn is_conf(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("conflist" | "conf" | "json"))
}

fn plugin(value: Value) -> Option<Plugin> {
    let Value::Object(plugin) = value else {
        return None;
    };
    let kind = plugin.get("type")?.as_str()?;
    // It becomes a file name.
    (is_name(kind)).then_some(plugin)
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

/// The highest version of those offered that we speak.
fn version(list: &Map<String, Value>) -> Result<String, ConfError> {
    let one = list.get("cniVersion").and_then(Value::as_str);
    let several = list.get("cniVersions").and_then(Value::as_array);
    let several = several.into_iter().flatten().filter_map(Value::as_str);
    let offered: Vec<&str> = one.into_iter().chain(several).collect();
    let known = offered.iter().filter(|v| VERSIONS.contains(v));
    match known.max_by_key(|v| number(v)) {
        Some(version) => Ok((*version).to_owned()),
        None => Err(ConfError::Version(
            offered.first().copied().unwrap_or("(none)").to_owned(),
        )),
    }
}

fn number(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn parse(text: &str) -> Result<ConfList, ConfError> {
        ConfList::parse(text.as_bytes())
    }

    #[test]
    fn single_plugin_is_a_list_of_one() {
        let list = parse(r#"{"cniVersion":"0.4.0","name":"n","type":"bridge","mtu":9}"#).unwrap();
        assert_eq!(list.plugins.len(), 1);
        assert_eq!(list.plugins[0]["mtu"], 9);
        assert!(list.at_least("0.4.0") && !list.at_least("1.0.0"));
    }

    #[test]
    fn version_is_the_highest_that_both_speak() {
        let text = r#"{"cniVersion":"0.4.0","cniVersions":["1.1.0","9.0.0"],"name":"n","plugins":[{"type":"x"}]}"#;
        assert_eq!(parse(text).unwrap().cni_version, "1.1.0");
        let text = r#"{"cniVersion":"9.0.0","name":"n","plugins":[{"type":"x"}]}"#;
        assert!(matches!(parse(text), Err(ConfError::Version(v)) if v == "9.0.0"));
    }

    #[test]
    fn plugin_whose_type_is_a_path_is_refused() {
        for kind in ["../evil", "a/b", "", "-x"] {
            let text =
                format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"{kind}"}}]}}"#);
            assert!(parse(&text).is_err(), "{kind}");
        }
        assert!(parse(r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#).is_err());
        assert!(parse(r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#).is_err());
    }

    #[test]
    fn first_valid_file_wins() {
        let dir = TempDir::new();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(find(dir.path()).is_none());
        write("05-torn.conflist", "{");
        write(
            "20-b.conflist",
            r#"{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"x"}]}"#,
        );
        write(
            "10-a.conf",
            r#"{"cniVersion":"1.0.0","name":"a","type":"x"}"#,
        );
        write("00-readme.txt", "no");
        let (path, list) = find(dir.path()).unwrap();
        assert!(path.ends_with("10-a.conf"));
        assert_eq!(list.name, "a");
        assert!(find(&dir.path().join("missing")).is_none());
    }
}
