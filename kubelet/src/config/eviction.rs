//! Eviction thresholds: `memory.available: 100Mi`, `nodefs.available: 10%`.

use super::duration;
use super::raw::KubeletConfiguration;
use super::used::Mistakes;
use crate::defaults;
use crate::quantity::Amount;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    ContainerfsAvailable,
    ContainerfsInodesFree,
    PidAvailable,
}

impl Signal {
    const ALL: [Signal; 8] = [
        Signal::MemoryAvailable,
        Signal::NodefsAvailable,
        Signal::NodefsInodesFree,
        Signal::ImagefsAvailable,
        Signal::ImagefsInodesFree,
        Signal::ContainerfsAvailable,
        Signal::ContainerfsInodesFree,
        Signal::PidAvailable,
    ];

    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Signal> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// As the configuration and the metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::NodefsAvailable => "nodefs.available",
            Signal::NodefsInodesFree => "nodefs.inodesFree",
            Signal::ImagefsAvailable => "imagefs.available",
            Signal::ImagefsInodesFree => "imagefs.inodesFree",
            Signal::ContainerfsAvailable => "containerfs.available",
            Signal::ContainerfsInodesFree => "containerfs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }
}

/// How little is too little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ThresholdValue {
    /// Bytes, inodes or pids.
    Quantity(u64),
    /// Of the capacity, 0.0 to 1.0.
    Fraction(f64),
}

impl ThresholdValue {
    /// The amount, for a capacity.
    pub fn amount(self, capacity: u64) -> u64 {
        match self {
            ThresholdValue::Quantity(amount) => amount,
            // Exact enough: thresholds are whole percents of at most 2^53 bytes.
            ThresholdValue::Fraction(fraction) => (capacity as f64 * fraction) as u64,
        }
    }

    /// Whether it switches its signal off. kubernetes v1.37 pkg/kubelet/eviction/helpers.go
    /// `parseThresholdStatement`.
    fn is_off(self) -> bool {
        let none = [ThresholdValue::Quantity(0), ThresholdValue::Fraction(0.0)];
        none.contains(&self) || self == ThresholdValue::Fraction(1.0)
    }

    /// A quantity or a percentage.
    pub(super) fn parse(text: &str) -> Result<ThresholdValue, String> {
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.trim().parse::<f64>() {
                Ok(p) if (0.0..=100.0).contains(&p) => Ok(ThresholdValue::Fraction(p / 100.0)),
                _ => Err(format!("{text:?} is not a percentage from 0% to 100%")),
            };
        }
        let amount = Amount::parse(text).ok_or_else(|| format!("{text:?} is not a quantity"))?;
        u64::try_from(amount.units())
            .map(ThresholdValue::Quantity)
            .map_err(|_| format!("{text:?} is negative"))
    }
}

/// One threshold, hard or soft.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Threshold {
    pub signal: Signal,
    pub value: ThresholdValue,
    /// `evictionSoftGracePeriod`: how long a soft one must hold first; `None` is a hard one.
    pub grace: Option<Duration>,
    /// `evictionMinimumReclaim`: once acted on, it holds until this much more is free.
    pub reclaim: Option<ThresholdValue>,
}

/// `evictionHard`, or what stands in for it.
pub(super) fn hard(m: &mut Mistakes, raw: &KubeletConfiguration) -> Vec<Threshold> {
    let ours = defaults::EVICTION_HARD
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let settings: BTreeMap<String, String> = match &raw.eviction_hard {
        None => ours.collect(),
        Some(set) if raw.merge_default_eviction_settings == Some(true) => {
            ours.chain(set.clone()).collect()
        }
        Some(set) => set.clone(),
    };
    thresholds(m, raw, "evictionHard", &settings)
}

/// `evictionSoft`, each with its grace period.
pub(super) fn soft(m: &mut Mistakes, raw: &KubeletConfiguration) -> Vec<Threshold> {
    let settings = raw.eviction_soft.clone().unwrap_or_default();
    let mut found = thresholds(m, raw, "evictionSoft", &settings);
    let periods = by_signal(
        m,
        "evictionSoftGracePeriod",
        &raw.eviction_soft_grace_period,
        |text| duration::parse(text).map_err(|e| e.to_string()),
    );
    for threshold in &mut found {
        threshold.grace = periods.get(&threshold.signal).copied();
        if threshold.grace.is_none() {
            m.0.push(format!(
                "evictionSoftGracePeriod: none for the soft threshold {}",
                threshold.signal.name()
            ));
        }
    }
    found
}

fn thresholds(
    m: &mut Mistakes,
    raw: &KubeletConfiguration,
    field: &str,
    settings: &BTreeMap<String, String>,
) -> Vec<Threshold> {
    let reclaims = by_signal(
        m,
        "evictionMinimumReclaim",
        &raw.eviction_minimum_reclaim,
        ThresholdValue::parse,
    );
    let values = by_signal(m, field, &Some(settings.clone()), ThresholdValue::parse);
    let on = values.into_iter().filter(|(_, value)| !value.is_off());
    on.map(|(signal, value)| Threshold {
        signal,
        value,
        grace: None,
        reclaim: reclaims.get(&signal).copied(),
    })
    .collect()
}

fn by_signal<T>(
    m: &mut Mistakes,
    field: &str,
    settings: &Option<BTreeMap<String, String>>,
    read: impl Fn(&str) -> Result<T, String>,
) -> BTreeMap<Signal, T> {
    let one = |(name, text): (&String, &String)| {
        let signal = Signal::named(name).ok_or_else(|| format!("unknown signal {name:?}"))?;
        Ok::<_, String>((signal, read(text)?))
    };
    let parsed: Vec<_> = settings.iter().flatten().map(one).collect();
    parsed
        .into_iter()
        .filter_map(|p| m.keep(field, p))
        .collect()
}
