use serde_json::{Value, json};
use std::error::Error;

/// Why a plugin did not do as asked, with the specification's code
/// (SPEC.md 1.1.0, section "Error").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u32,
    msg: String,
    details: String,
}

impl Failure {
    /// Environment variables are missing or malformed.
    pub fn environment(msg: impl Into<String>) -> Self {
        Self::new(4, msg)
    }

    /// The configuration is wrong.
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(7, msg)
    }

    /// Stdin is no JSON.
    pub fn decode(error: &serde_json::Error) -> Self {
        Self::new(6, format!("decode the configuration: {error}"))
    }

    /// Reading or writing failed.
    pub fn io(what: &str, error: &dyn Error) -> Self {
        Self::new(5, format!("{what}: {error}"))
    }

    /// The version is not ours.
    pub fn version(version: &str) -> Self {
        Self::new(1, format!("cniVersion \"{version}\" is not supported"))
    }

    fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// As it is printed.
    pub fn json(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code,
            "msg": self.msg,
            "details": self.details,
        })
    }
}

/// Codes above 99 are the plugin's own; the reference plugins use this one.
const OWN: u32 = 999;

/// Everything that the network's own parts report, with its causes.
pub fn own(error: &dyn Error) -> Failure {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    Failure {
        code: OWN,
        msg: error.to_string(),
        details: causes.join(": "),
    }
}

macro_rules! own_errors {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Failure {
            fn from(error: $kind) -> Self {
                own(&error)
            }
        }
    )*};
}

own_errors!(
    crate::builtin::BuiltinError,
    crate::builtin::SysctlError,
    crate::ipam::StoreError,
    crate::netlink::NetlinkError,
    crate::foreign::PluginError
);
