//! A primary file and its drop-ins become one configuration.

use super::raw::{KubeletConfiguration, NOT_ACTED_ON, POINTERS};
use super::used::Config;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Why a configuration is of no use. `mistakes` has all of them.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("read the kubelet configuration {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the kubelet configuration {origin} is not YAML: {reason}")]
    Syntax { origin: String, reason: String },
    #[error("the kubelet configuration {origin} has mistakes: {}", mistakes.join("; "))]
    Mistakes {
        origin: String,
        mistakes: Vec<String>,
    },
}

/// A configuration and what should be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As the node uses it.
    pub config: Config,
    /// Fields that were set and have no effect here.
    pub not_acted_on: Vec<String>,
    /// Settings that could not be followed to the letter.
    pub warnings: Vec<String>,
}

/// Reads `primary`, then every `*.conf` of `drop_ins` in the order of their
/// names; a later file wins, maps are merged, lists replaced.
///
/// # Errors
/// With every mistake of the first file that has any.
pub fn load(primary: Option<&Path>, drop_ins: Option<&Path>) -> Result<Loaded, ConfigError> {
    load_under(primary, drop_ins, None)
}

/// [`load`] with the fields that flags have set over all files, as JSON.
///
/// # Errors
/// As there.
pub fn load_under(
    primary: Option<&Path>,
    drop_ins: Option<&Path>,
    flags: Option<&str>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Vec::new();
    for path in primary
        .map(Path::to_owned)
        .into_iter()
        .chain(confs(drop_ins)?)
    {
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        layers.push((path.display().to_string(), text));
    }
    layers.extend(flags.map(|text| ("of the flags".to_owned(), text.to_owned())));
    let layers: Vec<_> = layers
        .iter()
        .map(|(o, t)| (o.as_str(), t.as_str()))
        .collect();
    parse(&layers)
}

fn confs(dir: Option<&Path>) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(dir) = dir else {
        return Ok(Vec::new());
    };
    let read = |source| ConfigError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|e| e == "conf") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// [`load`] from texts, each with the name it is spoken of.
///
/// # Errors
/// As there.
pub fn parse(layers: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let mut merged = Map::new();
    let mut origin = "(defaults)".to_owned();
    for (name, text) in layers {
        origin = (*name).to_owned();
        let layer = read_layer(name, text)?;
        let mistakes = check_fields(&layer, text);
        if !mistakes.is_empty() {
            return Err(ConfigError::Mistakes { origin, mistakes });
        }
        merge(&mut merged, layer);
    }
    let not_acted_on: Vec<String> = merged
        .keys()
        .filter(|k| NOT_ACTED_ON.contains(&k.as_str()))
        .cloned()
        .collect();
    let raw: KubeletConfiguration =
        serde_json::from_value(Value::Object(merged)).map_err(|e| ConfigError::Mistakes {
            origin: origin.clone(),
            mistakes: vec![e.to_string()],
        })?;
    let (config, warnings) =
        Config::validate(raw).map_err(|mistakes| ConfigError::Mistakes { origin, mistakes })?;
    Ok(Loaded {
        config,
        not_acted_on,
        warnings,
    })
}

fn read_layer(origin: &str, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let syntax = |reason: String| ConfigError::Syntax {
        origin: origin.to_owned(),
        reason,
    };
    let value: Value = serde_saphyr::from_str(text).map_err(|e| syntax(e.to_string()))?;
    let mut map = match value {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        _ => return Err(syntax("it is no map of fields".to_owned())),
    };
    map.retain(|key, value| {
        if POINTERS.contains(&key.as_str()) {
            return !value.is_null();
        }
        prune(value);
        !is_unset(value)
    });
    Ok(map)
}

/// kubeadm serves every field of the Go struct, most with its zero value.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty() || s == "0s" || s == "0",
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.values().all(is_unset),
    }
}

fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(prune);
        map.retain(|_, value| !is_unset(value));
    }
}

fn check_fields(layer: &Map<String, Value>, text: &str) -> Vec<String> {
    let known = known_fields();
    let mut mistakes = Vec::new();
    for (key, value) in layer {
        let is_known = known.iter().any(|k| k == key);
        if !is_known && !NOT_ACTED_ON.contains(&key.as_str()) {
            mistakes.push(format!("{}unknown field {key:?}", at_line(text, key)));
        } else if is_known {
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            let read = serde_json::from_value::<KubeletConfiguration>(Value::Object(alone));
            if let Err(e) = read {
                mistakes.push(format!("{}{key}: {e}", at_line(text, key)));
            }
        }
    }
    mistakes
}

/// The struct's own names: a field is declared once.
fn known_fields() -> Vec<String> {
    match serde_json::to_value(KubeletConfiguration::default()) {
        Ok(Value::Object(map)) => map.into_iter().map(|(key, _)| key).collect(),
        _ => Vec::new(),
    }
}

fn at_line(text: &str, key: &str) -> String {
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'', '{', ' ']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    match text.lines().position(is_key) {
        Some(index) => format!("line {}: ", index + 1),
        None => String::new(),
    }
}

fn merge(into: &mut Map<String, Value>, layer: Map<String, Value>) {
    for (key, value) in layer {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
