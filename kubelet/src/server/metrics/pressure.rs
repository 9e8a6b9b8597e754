//! Pressure stall information of containers, under cAdvisor's names. The runtime's own metrics
//! have these as well, but CRI's count whole seconds, and a container seldom waits so long.

use super::text::{Family, containers, ms};
use super::usage::{ContainerUsage, Usage};
use cri_proto::v1::PsiStats;

/// In each pair those first that all processes waited for.
const NAMES: [[&str; 2]; 3] = [
    [
        "container_pressure_cpu_stalled_seconds_total",
        "container_pressure_cpu_waiting_seconds_total",
    ],
    [
        "container_pressure_memory_stalled_seconds_total",
        "container_pressure_memory_waiting_seconds_total",
    ],
    [
        "container_pressure_io_stalled_seconds_total",
        "container_pressure_io_waiting_seconds_total",
    ],
];

const HELP: [&str; 2] = [
    "Total time in seconds in which all tasks of the container waited.",
    "Total time in seconds in which some task of the container waited.",
];

/// Nothing where the kernel knows of no pressure.
pub fn pressure(usage: &Usage) -> String {
    let mut all = NAMES.map(|names| {
        let [stalled, waiting] = names;
        [
            Family::new(stalled, "counter", HELP[0]),
            Family::new(waiting, "counter", HELP[1]),
        ]
    });
    let mut is_known = false;
    for (pod, container) in containers(usage) {
        let labels = [
            ("container", container.name.as_str()),
            ("id", &container.id),
            ("image", &container.image),
            ("name", &container.id),
            ("namespace", &pod.namespace),
            ("pod", &pod.name),
        ];
        for (families, seen) in all.iter_mut().zip(of_container(container)) {
            let Some((at_nanos, psi)) = seen else {
                continue;
            };
            for (family, line) in families.iter_mut().zip([psi.full, psi.some]) {
                let Some(line) = line else { continue };
                is_known = true;
                family.sample(&labels, line.total as f64 / 1e9, ms(at_nanos));
            }
        }
    }
    match is_known {
        true => all.into_iter().flatten().map(|f| f.text).collect(),
        false => String::new(),
    }
}

/// Of CPU, memory and I/O, each with its time.
fn of_container(container: &ContainerUsage) -> [Option<(i64, PsiStats)>; 3] {
    let stats = &container.stats;
    [
        stats.cpu.and_then(|u| Some((u.timestamp, u.psi?))),
        stats.memory.and_then(|u| Some((u.timestamp, u.psi?))),
        stats.io.and_then(|u| Some((u.timestamp, u.psi?))),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::usage::PodUsage;
    use super::*;
    use cri_proto::v1;

    fn told(psi: Option<PsiStats>) -> String {
        let cpu = v1::CpuUsage {
            timestamp: 5_000_000_000,
            psi,
            ..Default::default()
        };
        let container = ContainerUsage {
            name: "c".into(),
            id: "i".into(),
            image: "m".into(),
            stats: v1::ContainerStats {
                cpu: Some(cpu),
                ..Default::default()
            },
            ..Default::default()
        };
        let pod = PodUsage {
            namespace: "ns".into(),
            name: "p".into(),
            containers: vec![container],
            ..Default::default()
        };
        pressure(&Usage {
            pods: vec![pod],
            error: None,
        })
    }

    #[test]
    fn pressure_is_told_in_parts_of_a_second() {
        let line = |total| {
            Some(v1::PsiData {
                total,
                ..Default::default()
            })
        };
        let text = told(Some(PsiStats {
            full: line(250_000_000),
            some: line(1_500_000_000),
        }));
        let labels = "{container=\"c\",id=\"i\",image=\"m\",name=\"i\",namespace=\"ns\",pod=\"p\"}";
        for (name, seconds) in [("stalled", "0.25"), ("waiting", "1.5")] {
            let line =
                format!("container_pressure_cpu_{name}_seconds_total{labels} {seconds} 5000\n");
            assert!(text.contains(&line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn a_kernel_without_pressure_has_none_of_it_told() {
        assert_eq!(told(None), "");
    }
}
