//! Our executable as a CNI plugin, by the name it is called by: `bridge`,
//! `ptp`, `host-local`, `portmap` and `loopback`, with the configuration of
//! the reference plugins (containernetworking/plugins v1.9.1), for lists that
//! name them and plugins that delegate to them.

mod bridge;
mod failure;
mod ipam;
mod loopback;
mod masquerade;
mod netns;
mod portmap;
mod ptp;
mod request;

use failure::Failure;
use request::{Command, Request};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Names that [`dispatch`] answers to.
pub const NAMES: [&str; 5] = ["bridge", "ptp", "host-local", "portmap", "loopback"];

/// Version that an answer without a better one is in.
const VERSION: &str = "1.1.0";
/// What VERSION answers.
const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Does what `CNI_COMMAND` says if the program was called by one of the names;
/// none if it wasn't, and the program is to go on as itself.
pub fn dispatch(argv0: &OsStr) -> Option<ExitCode> {
    let name = Path::new(argv0).file_name()?.to_str()?;
    let name = NAMES.into_iter().find(|n| *n == name)?;
    std::env::var_os("CNI_COMMAND")?;
    let (text, code) = match run(name) {
        Ok(Value::Null) => return Some(ExitCode::SUCCESS),
        Ok(result) => (result.to_string(), ExitCode::SUCCESS),
        Err(failure) => (failure.json(VERSION).to_string(), ExitCode::FAILURE),
    };
    println!("{text}");
    Some(code)
}

fn run(name: &'static str) -> Result<Value, Failure> {
    if Command::from_env()? == Command::Version {
        return Ok(json!({"cniVersion": VERSION, "supportedVersions": SUPPORTED}));
    }
    let request = Request::read()?;
    let version = request.version().to_owned();
    if !SUPPORTED.contains(&version.as_str()) {
        return Err(Failure::version(&version));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("start", &e))?;
    runtime.block_on(async {
        let result = match name {
            "bridge" => bridge::run(&request).await,
            "ptp" => ptp::run(&request).await,
            "host-local" => ipam::run(&request),
            "portmap" => portmap::run(&request).await,
            _ => loopback::run(&request).await,
        };
        result.map(|result| dress(result, &version))
    })
}

/// Gives a result its version, and its addresses what old versions had.
fn dress(mut result: Value, version: &str) -> Value {
    if result.is_null() {
        return result;
    }
    result["cniVersion"] = version.into();
    if version.starts_with("0.") {
        for ip in result["ips"].as_array_mut().into_iter().flatten() {
            let six = ip["address"].as_str().is_some_and(|a| a.contains(':'));
            ip["version"] = if six { "6" } else { "4" }.into();
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_told_the_family() {
        let result = json!({"ips": [{"address": "10.0.0.1/8"}, {"address": "fd00::1/64"}]});
        let old = dress(result.clone(), "0.4.0");
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(dress(result, "1.0.0")["ips"][0]["version"], Value::Null);
    }

    #[test]
    fn dispatch_leaves_other_names_alone() {
        assert!(dispatch(OsStr::new("/usr/bin/lighter")).is_none());
        assert!(dispatch(OsStr::new("")).is_none());
    }
}
