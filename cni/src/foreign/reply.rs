use serde_json::Value;
use std::net::IpAddr;

/// The pod's addresses in a result of 0.3.0 or later: those of the pod's own
/// interface if the result says which that is, IPv4 and IPv6 in its order.
pub fn addresses(result: &Value, interface: &str) -> Vec<IpAddr> {
    let interfaces = result["interfaces"].as_array();
    let of_pod = |entry: &Value| -> bool {
        let Some(index) = entry["interface"].as_u64() else {
            return true;
        };
        let named = interfaces.and_then(|all| all.get(usize::try_from(index).ok()?));
        named.is_none_or(|i| {
            i["name"] == interface && i["sandbox"].as_str().is_some_and(|s| !s.is_empty())
        })
    };
    let ips = result["ips"].as_array().into_iter().flatten();
    let texts = ips
        .filter(|e| of_pod(e))
        .filter_map(|e| e["address"].as_str());
    texts
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_those_of_the_pods_interface() {
        let result = json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "10.0.0.5/24", "interface": 1},
                {"address": "fd00::5/64"},
            ],
        });
        let found = addresses(&result, "eth0");
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.5", "fd00::5"]);
    }

    #[test]
    fn addresses_of_a_strange_result_are_none() {
        for result in [
            json!(null),
            json!([1]),
            json!({"ips": [{"address": 7}, {"address": "x/y"}]}),
        ] {
            assert!(addresses(&result, "eth0").is_empty(), "{result}");
        }
    }
}
