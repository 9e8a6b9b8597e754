//! `cpuManagerPolicyOptions`.

use crate::topology::{CpuTopology, Level};
use std::collections::BTreeMap;

/// Options of the static policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct StaticOptions {
    pub full_pcpus_only: bool,
    pub distribute_cpus_across_numa: bool,
    pub align_by_socket: bool,
    pub distribute_cpus_across_cores: bool,
    pub strict_cpu_reservation: bool,
    pub prefer_align_cpus_by_uncorecache: bool,
}

/// Which options may be used: those of the feature gates of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maturity {
    /// `CPUManagerPolicyAlphaOptions`.
    pub alpha: bool,
    /// `CPUManagerPolicyBetaOptions`.
    pub beta: bool,
}

impl Default for Maturity {
    /// kubernetes v1.37 pkg/features/kube_features.go.
    fn default() -> Self {
        Maturity {
            alpha: false,
            beta: true,
        }
    }
}

/// kubernetes v1.37 pkg/kubelet/cm/cpumanager/policy_options.go.
const ALPHA: &[&str] = &["align-by-socket", "distribute-cpus-across-cores"];
const BETA: &[&str] = &["distribute-cpus-across-numa"];

/// Pairs that contradict each other.
const APART: &[(&str, &str)] = &[
    ("full-pcpus-only", "distribute-cpus-across-cores"),
    (
        "distribute-cpus-across-numa",
        "distribute-cpus-across-cores",
    ),
    (
        "prefer-align-cpus-by-uncorecache",
        "distribute-cpus-across-cores",
    ),
    (
        "prefer-align-cpus-by-uncorecache",
        "distribute-cpus-across-numa",
    ),
];

impl StaticOptions {
    /// By name, as the configuration has them.
    ///
    /// # Errors
    /// With everything that is wrong about them.
    pub fn parse(
        given: &BTreeMap<String, String>,
        maturity: Maturity,
    ) -> Result<StaticOptions, Vec<String>> {
        let mut options = StaticOptions::default();
        let mut mistakes = Vec::new();
        for (name, value) in given {
            if let Err(why) = options.set(name, value, maturity) {
                mistakes.push(why);
            }
        }
        for (one, other) in APART {
            if options.has(one) && options.has(other) {
                mistakes.push(format!("{one} and {other} can not be used together"));
            }
        }
        match mistakes.is_empty() {
            true => Ok(options),
            false => Err(mistakes),
        }
    }

    fn set(&mut self, name: &str, value: &str, maturity: Maturity) -> Result<(), String> {
        let Some(slot) = self.slot(name) else {
            return Err(format!("unknown option {name:?}"));
        };
        *slot = boolean(value).ok_or_else(|| format!("{name}: {value:?} is not a boolean"))?;
        let gate = |name: &str| format!("needs the feature gate {name}");
        if ALPHA.contains(&name) && !maturity.alpha {
            return Err(format!("{name} {}", gate("CPUManagerPolicyAlphaOptions")));
        }
        if BETA.contains(&name) && !maturity.beta {
            return Err(format!("{name} {}", gate("CPUManagerPolicyBetaOptions")));
        }
        Ok(())
    }

    fn slot(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "full-pcpus-only" => &mut self.full_pcpus_only,
            "distribute-cpus-across-numa" => &mut self.distribute_cpus_across_numa,
            "align-by-socket" => &mut self.align_by_socket,
            "distribute-cpus-across-cores" => &mut self.distribute_cpus_across_cores,
            "strict-cpu-reservation" => &mut self.strict_cpu_reservation,
            "prefer-align-cpus-by-uncorecache" => &mut self.prefer_align_cpus_by_uncorecache,
            _ => return None,
        })
    }

    fn has(mut self, name: &str) -> bool {
        self.slot(name).is_some_and(|on| *on)
    }

    /// Whether they make sense on a machine, beside the topology manager's policy.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self, topology: &CpuTopology, single_numa_node: bool) -> Result<(), String> {
        if self.align_by_socket && single_numa_node {
            return Err(
                "align-by-socket contradicts topologyManagerPolicy single-numa-node".to_owned(),
            );
        }
        let count = |level| topology.ids(level).len();
        if self.align_by_socket && count(Level::Socket) > count(Level::Node) {
            return Err(
                "align-by-socket: this machine has more sockets than NUMA nodes".to_owned(),
            );
        }
        Ok(())
    }
}

/// As Go's strconv.ParseBool reads it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[(&str, &str)], maturity: Maturity) -> Result<StaticOptions, Vec<String>> {
        let given = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        StaticOptions::parse(&given.collect(), maturity)
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let wrong = parse(
            &[
                ("full-pcpus-only", "true"),
                ("distribute-cpus-across-cores", "true"),
                ("strict-cpu-reservation", "maybe"),
                ("nonsense", "true"),
            ],
            Maturity::default(),
        );
        assert_eq!(wrong.unwrap_err().len(), 4);
    }

    #[test]
    fn alpha_options_need_their_gate() {
        let given = [("align-by-socket", "true")];
        assert!(parse(&given, Maturity::default()).is_err());
        let all = Maturity {
            alpha: true,
            beta: true,
        };
        assert!(parse(&given, all).unwrap().align_by_socket);
        assert!(parse(&[("strict-cpu-reservation", "1")], Maturity::default()).is_ok());
    }
}
