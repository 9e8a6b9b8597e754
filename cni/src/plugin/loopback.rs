use super::failure::Failure;
use super::netns::OpenNetns;
use super::request::{Command, Request};
use crate::defaults::LOOPBACK_INDEX;
use serde_json::{Value, json};

/// Brings the loopback up. Taking it down again would help nobody.
pub async fn run(request: &Request) -> Result<Value, Failure> {
    match request.command {
        Command::Add => {
            let rtnl = OpenNetns::needed(request)?.rtnl().await?;
            rtnl.set_up(LOOPBACK_INDEX)?;
            let previous = &request.config["prevResult"];
            if !previous.is_null() {
                return Ok(previous.clone());
            }
            let sandbox = request.netns.as_ref().map(|p| p.display().to_string());
            Ok(json!({
                "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": sandbox}],
                "ips": [
                    {"address": "127.0.0.1/8", "interface": 0},
                    {"address": "::1/128", "interface": 0},
                ],
            }))
        }
        Command::Check => {
            let rtnl = OpenNetns::needed(request)?.rtnl().await?;
            match rtnl.link("lo")? {
                Some(link) if link.up => Ok(Value::Null),
                _ => Err(Failure::config("lo is not up")),
            }
        }
        _ => Ok(Value::Null),
    }
}
