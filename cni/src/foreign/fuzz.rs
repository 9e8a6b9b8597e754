//! What plugins and their configuration say, damaged. None of it may panic, and
//! what is accepted must keep its promises.

use super::conf::ConfList;
use super::exec::fuzzed_answer;
use super::reply::addresses;
use fuzz::Fuzz;
use serde_json::Value;

const RESULT: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br0"},
    {"name":"eth0","sandbox":"/run/netns/x"}],"ips":[{"address":"10.0.0.5/24",
    "gateway":"10.0.0.1","interface":1},{"address":"fd00::5/64"}],"dns":{}}"#;
const OLD_RESULT: &str = r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"1.2.3.4/8"}]}"#;
const ERROR: &str = r#"{"cniVersion":"1.0.0","code":11,"msg":"again","details":"busy"}"#;
const WORDS: [&str; 12] = [
    "null",
    "\"ips\":",
    "\"interface\":",
    "-1",
    "18446744073709551615",
    "1e99",
    "[[[[",
    "{}",
    "\"address\":\"",
    "/129",
    "\\u0000",
    "\"",
];

#[test]
fn result_of_a_plugin_does_no_harm() {
    Fuzz::new("CNI result", [RESULT, OLD_RESULT, ERROR, ""])
        .words(&WORDS)
        .bytes(|bytes| {
            for success in [true, false] {
                if let Ok(result) = fuzzed_answer(success, bytes) {
                    let found = addresses(&result, "eth0");
                    let listed = result["ips"].as_array().map_or(0, Vec::len);
                    assert!(found.len() <= listed);
                }
            }
        });
}

#[test]
fn configuration_that_is_accepted_names_plugins_not_paths() {
    let list = r#"{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0"],"name":"n",
        "disableCheck":"true","plugins":[{"type":"bridge","ipam":{"type":"host-local"}},
        {"type":"portmap","capabilities":{"portMappings":true}}]}"#;
    let single = r#"{"cniVersion":"0.3.1","name":"n","type":"ptp","mtu":1400}"#;
    Fuzz::new("CNI configuration", [list, single])
        .words(&[
            "../",
            "/",
            "\"type\":\"",
            "\"plugins\":[",
            "null",
            "0.3.0",
            "9.",
        ])
        .bytes(|bytes| {
            let Ok(list) = ConfList::parse(bytes) else {
                return;
            };
            let kinds = list.plugins.iter().map(|plugin| &plugin["type"]);
            for name in kinds.chain([&Value::from(list.name.as_str())]) {
                let name = name.as_str().expect("text");
                assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != "..");
            }
            assert!(!list.plugins.is_empty() && list.at_least("0.3.0"));
        });
}
