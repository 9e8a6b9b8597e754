//! CPU shares on the scale of cgroup v2.

/// v1's shares on v2's scale: 1024 becomes 100, the two defaults.
/// opencontainers/cgroups v0.0.5 utils.go `ConvertCPUSharesToCgroupV2Value`.
#[must_use]
pub fn weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_keeps_both_ends_and_the_default() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (1 << 20, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!(
            (2..262_144)
                .step_by(997)
                .all(|n| weight(n) <= weight(n + 997))
        );
    }
}
