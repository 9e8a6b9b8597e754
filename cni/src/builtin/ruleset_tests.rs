use super::*;

fn port(host_ip: Option<&str>) -> PortMapping {
    PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: Protocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
    }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn port_of_any_address_is_a_key_of_protocol_and_port() {
    let all = elements(&[port(None)], &ips(&["10.0.0.5"]));
    assert_eq!(all[0].set, MAP4);
    assert_eq!(all[0].key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    assert_eq!(all[0].data, Some(vec![10, 0, 0, 5, 0, 80, 0, 0]));
    assert_eq!(all[1].key, [10, 0, 0, 5, 10, 0, 0, 5]);
    assert_eq!(all.len(), 2);
}

#[test]
fn port_of_one_address_is_only_of_its_family() {
    let both = ips(&["10.0.0.5", "fd00::5"]);
    let all = elements(&[port(Some("192.0.2.1"))], &both);
    let maps: Vec<_> = all.iter().filter(|e| e.data.is_some()).collect();
    assert_eq!(maps.len(), 1);
    assert_eq!(maps[0].set, MAP4_IP);
    assert_eq!(maps[0].key[..4], [192, 0, 2, 1]);
    // 0.0.0.0 = every address of that family
    let all = elements(&[port(Some("0.0.0.0"))], &both);
    let maps: Vec<_> = all
        .iter()
        .filter_map(|e| e.data.as_ref().map(|_| e.set))
        .collect();
    assert_eq!(maps, [MAP4]);
    let maps = elements(&[port(None)], &both)
        .iter()
        .filter(|e| e.data.is_some())
        .count();
    assert_eq!(maps, 2);
}

#[test]
fn elements_have_the_lengths_that_their_sets_declare() {
    let both = ips(&["10.0.0.5", "fd00::5"]);
    let ports = [
        port(None),
        port(Some("192.0.2.1")),
        port(Some("2001:db8::1")),
    ];
    for element in elements(&ports, &both) {
        let set = SETS.iter().find(|s| s.name == element.set).unwrap();
        assert_eq!(element.key.len() as u32, set.key_len, "{}", set.name);
        assert_eq!(element.data.map(|d| d.len() as u32), set.data.map(|d| d.1));
    }
}

#[test]
fn pod_without_ports_has_no_elements() {
    assert!(elements(&[], &ips(&["10.0.0.5"])).is_empty());
}

#[test]
fn masquerade_comes_after_every_exception() {
    let pods = ["10.88.0.0/24".parse().unwrap()];
    let cluster = ["10.88.0.0/16".parse().unwrap()];
    let policy = Policy {
        way: Way::Bridge("br"),
        pods: &pods,
        no_masquerade: &cluster,
    };
    let chain: Vec<_> = source(&policy);
    let ends: Vec<_> = chain.iter().filter_map(|r| r.0.last()).collect();
    let returns = Expr::Verdict {
        code: NFT_RETURN,
        chain: None,
    };
    assert_eq!(ends.last(), Some(&&Expr::Masquerade));
    assert_eq!(
        ends[ends.len() - 4..ends.len() - 1],
        [&returns, &returns, &returns]
    );
}
