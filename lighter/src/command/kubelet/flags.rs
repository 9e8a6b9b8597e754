//! Arguments as the kubelet takes them. Pure.

use super::table::{Kind, TABLE, Use};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What was asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Given {
    /// Options of the agent, by the flag's name.
    pub agent: BTreeMap<&'static str, Vec<String>>,
    /// Fields of KubeletConfiguration.
    pub fields: Map<String, Value>,
    /// Flags that have no meaning here, and why.
    pub without: Vec<(&'static str, &'static str)>,
    /// `-v`, `--v`.
    pub verbosity: u8,
    /// `--help`.
    pub help: bool,
    /// `--version`.
    pub version: bool,
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// Every flag that is unknown or has a value that is none.
pub fn parse(args: &[String]) -> Result<Given, Vec<String>> {
    let (mut given, mut mistakes) = (Given::default(), Vec::new());
    let mut rest = args.iter().peekable();
    while let Some(arg) = rest.next() {
        let Some(bare) = arg.strip_prefix("--").or_else(|| short(arg)) else {
            mistakes.push(format!("{arg:?} is no flag, and nothing else is expected"));
            continue;
        };
        let (name, own) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        // pflag takes `_` for `-`, as the kubelet has it set up.
        let name = name.replace('_', "-");
        let Some(meaning) = Meaning::of(&name) else {
            mistakes.push(format!("unknown flag: --{name}"));
            // Its value is no mistake of its own.
            if own.is_none() && rest.peek().is_some_and(|next| !next.starts_with('-')) {
                rest.next();
            }
            continue;
        };
        let value = match (own, meaning.kind()) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => match rest.next() {
                Some(value) => value.clone(),
                None => {
                    mistakes.push(format!("flag needs an argument: --{name}"));
                    continue;
                }
            },
        };
        if let Err(why) = given.take(meaning, &value) {
            mistakes.push(format!("invalid argument {value:?} for --{name}: {why}"));
        }
    }
    match mistakes.is_empty() {
        true => Ok(given),
        false => Err(mistakes),
    }
}

/// `-v` and `-h` are all that has one dash.
fn short(arg: &str) -> Option<&str> {
    let bare = arg.strip_prefix('-')?;
    matches!(bare, "v" | "h")
        .then_some(bare)
        .or_else(|| bare.starts_with("v=").then_some(bare))
}

#[derive(Clone, Copy)]
enum Meaning {
    Verbosity,
    Help,
    Version,
    Flag(&'static str, Use),
}

impl Meaning {
    fn of(name: &str) -> Option<Meaning> {
        Some(match name {
            "v" => Meaning::Verbosity,
            "h" | "help" => Meaning::Help,
            "version" => Meaning::Version,
            name => {
                let (name, used) = TABLE.iter().find(|(known, _)| *known == name)?;
                Meaning::Flag(name, *used)
            }
        })
    }

    fn kind(self) -> Kind {
        match self {
            Meaning::Verbosity => Kind::Number,
            Meaning::Help | Meaning::Version => Kind::Bool,
            Meaning::Flag(_, Use::Agent(k) | Use::Field(_, k) | Use::Without(k, _)) => k,
        }
    }
}

impl Given {
    fn take(&mut self, meaning: Meaning, value: &str) -> Result<(), String> {
        let read = read(meaning.kind(), value)?;
        match meaning {
            Meaning::Verbosity => {
                self.verbosity = read
                    .as_u64()
                    .and_then(|n| u8::try_from(n).ok())
                    .unwrap_or(0);
            }
            Meaning::Help => self.help = read == json!(true),
            // `--version=raw` exists; it means the same here.
            Meaning::Version => self.version = true,
            Meaning::Flag(name, Use::Without(_, why)) => self.without.push((name, why)),
            Meaning::Flag(name, Use::Agent(Kind::List)) => {
                let all = value.split(',').filter(|v| !v.is_empty());
                self.agent
                    .entry(name)
                    .or_default()
                    .extend(all.map(str::to_owned));
            }
            Meaning::Flag(name, Use::Agent(_)) => {
                self.agent.insert(name, vec![value.to_owned()]);
            }
            Meaning::Flag(_, Use::Field(path, _)) => put(&mut self.fields, path, read),
        }
        Ok(())
    }
}

fn read(kind: Kind, text: &str) -> Result<Value, String> {
    let items = || text.split(',').map(str::trim).filter(|i| !i.is_empty());
    match kind {
        Kind::Text => Ok(json!(text)),
        Kind::Bool => match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(json!(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(json!(false)),
            _ if text == "raw" => Ok(json!(true)),
            _ => Err("neither true nor false".to_owned()),
        },
        Kind::Number => text
            .parse::<i64>()
            .map(|n| json!(n))
            .map_err(|_| "not a whole number".to_owned()),
        Kind::List => Ok(items().map(|i| json!(i)).collect()),
        Kind::Map => pairs(items(), '='),
        Kind::Thresholds => pairs(items(), '<'),
        Kind::Taints => items().map(taint).collect(),
    }
}

fn pairs<'a>(items: impl Iterator<Item = &'a str>, between: char) -> Result<Value, String> {
    let pair = |item: &str| match item.split_once(between) {
        Some((key, value)) => Ok((key.trim().to_owned(), json!(value.trim()))),
        None => Err(format!("{item:?} has no {between:?}")),
    };
    items
        .map(pair)
        .collect::<Result<Map<_, _>, _>>()
        .map(Value::Object)
}

/// `key=value:effect`, or `key:effect`.
fn taint(item: &str) -> Result<Value, String> {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let Some((name, effect)) = item.rsplit_once(':') else {
        return Err(format!("{item:?} is not key=value:effect"));
    };
    if !effects.contains(&effect) {
        return Err(format!("{effect:?} is none of {}", effects.join(", ")));
    }
    let (key, value) = name.split_once('=').unwrap_or((name, ""));
    Ok(json!({ "key": key, "value": value, "effect": effect }))
}

/// Lists and maps that are given again add to what is there.
fn put(fields: &mut Map<String, Value>, path: &str, value: Value) {
    if let Some((head, tail)) = path.split_once('.') {
        let inner = fields.entry(head).or_insert_with(|| json!({}));
        if let Value::Object(inner) = inner {
            put(inner, tail, value);
        }
        return;
    }
    match (fields.get_mut(path), value) {
        (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
        (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
        (_, value) => drop(fields.insert(path.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(line: &str) -> Result<Given, Vec<String>> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args)
    }

    #[test]
    fn flags_become_options_and_fields_however_they_are_written() {
        let given = given(
            "--config /a --node_labels=x=1,y=2 --node-labels z=3 --fail-swap-on=false --v=4 \
             --cluster-dns 10.0.0.1 --cluster-dns=10.0.0.2 --anonymous-auth \
             --eviction-hard=memory.available<5%,nodefs.available<1Gi \
             --register-with-taints=a=b:NoSchedule,c:NoExecute --pod-infra-container-image=x",
        )
        .unwrap();
        assert_eq!(given.agent["config"], ["/a"]);
        assert_eq!(given.agent["node-labels"], ["x=1", "y=2", "z=3"]);
        assert_eq!(given.verbosity, 4);
        assert_eq!(given.without[0].0, "pod-infra-container-image");
        let fields = json!({
            "failSwapOn": false,
            "clusterDNS": ["10.0.0.1", "10.0.0.2"],
            "authentication": {"anonymous": {"enabled": true}},
            "evictionHard": {"memory.available": "5%", "nodefs.available": "1Gi"},
            "registerWithTaints": [
                {"key": "a", "value": "b", "effect": "NoSchedule"},
                {"key": "c", "value": "", "effect": "NoExecute"},
            ],
        });
        assert_eq!(Value::Object(given.fields), fields);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let mistakes = given(
            "--nonsense 7 --max-pods=many run --fail-swap-on=maybe --register-with-taints=a:b \
             --kube-reserved=cpu --config",
        )
        .unwrap_err();
        let about = [
            "--nonsense",
            "--max-pods",
            "run",
            "--fail-swap-on",
            "--register-with-taints",
            "--kube-reserved",
            "--config",
        ];
        assert_eq!(mistakes.len(), about.len(), "{mistakes:#?}");
        for (mistake, about) in mistakes.iter().zip(about) {
            assert!(mistake.contains(about), "{mistake:?} {about}");
        }
    }

    #[test]
    fn table_names_nothing_twice() {
        let names: std::collections::BTreeSet<&str> = TABLE.iter().map(|(n, _)| *n).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn every_field_is_one_that_the_configuration_knows() {
        let sample = |kind| match kind {
            Kind::Text => None,
            Kind::Bool => Some(json!(true)),
            Kind::Number => Some(json!(7)),
            Kind::List => Some(json!(["x"])),
            Kind::Map | Kind::Thresholds => Some(json!({"x": "y"})),
            Kind::Taints => Some(json!([{"key": "x", "effect": "NoExecute"}])),
        };
        for (name, used) in TABLE {
            let Use::Field(path, kind) = used else {
                continue;
            };
            let mut fields = Map::new();
            put(
                &mut fields,
                path,
                sample(*kind).unwrap_or_else(|| json!("x")),
            );
            let text = Value::Object(fields).to_string();
            let told = match kubelet::config::parse(&[("flags", text.as_str())]) {
                Ok(_) => continue,
                Err(e) => e.to_string(),
            };
            // "x" may be no address or duration; that the field exists is all that is asked.
            assert!(!told.contains("unknown field"), "--{name}: {told}");
        }
    }
}
