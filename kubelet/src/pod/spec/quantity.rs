//! Resource quantities: `100m`, `1.5Gi`, `2e3`.
//! Grammar: kubernetes apimachinery v0.36 pkg/api/resource/quantity.go.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

const NANO: i128 = 1_000_000_000;

/// An amount in billionths, the finest that quantities go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i128);

impl Amount {
    /// Whole units.
    #[must_use]
    pub fn of(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    /// Reads a quantity; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let (numerator, denominator) = scale(suffix)?;
        let negative = whole.starts_with('-');
        let whole = whole.trim_start_matches(['+', '-']);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let divisor = places.checked_mul(denominator)?;
        let scaled = digits.checked_mul(NANO)?.checked_mul(numerator)?;
        // Rounded away from zero, as quantities are.
        let value = scaled.checked_add(divisor - 1)? / divisor;
        Some(Self(if negative { -value } else { value }))
    }

    /// Units, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        self.up(NANO)
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli(self) -> i64 {
        self.up(NANO / 1000)
    }

    /// How many `divisor` it takes to hold this, rounded up.
    #[must_use]
    pub fn divided_by(self, divisor: Self) -> i64 {
        self.up(divisor.0.max(1))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    fn up(self, unit: i128) -> i64 {
        let value = if self.0 > 0 {
            (self.0 + unit - 1) / unit
        } else {
            self.0 / unit
        };
        i64::try_from(value).unwrap_or(i64::MAX)
    }
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "" => decimal(0),
        "n" => Some((1, NANO)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, size) } else { (size, 1) })
}

/// One resource of a list, if it is there and readable.
#[must_use]
pub fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<Amount> {
    list.and_then(|l| l.get(resource))
        .and_then(|q| Amount::parse(&q.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantity_is_read_with_every_kind_of_suffix() {
        let value = |t| Amount::parse(t).map(Amount::value);
        assert_eq!(value("1.5Gi"), Some(1_610_612_736));
        assert_eq!(value("2e3"), Some(2000));
        assert_eq!(value("1E"), Some(1_000_000_000_000_000_000));
        assert_eq!(value("100M"), Some(100_000_000));
        assert_eq!(value("0"), Some(0));
        assert_eq!(Amount::parse("250m").map(Amount::milli), Some(250));
        assert_eq!(Amount::parse("1u").map(Amount::milli), Some(1));
        assert_eq!(value("-5"), Some(-5));
    }

    #[test]
    fn quantity_is_refused_when_it_is_no_number() {
        for text in ["", "Gi", "1Zi", "1.2.3", "one", "."] {
            assert_eq!(Amount::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn division_rounds_up() {
        let limit = Amount::parse("250m").unwrap_or_default();
        assert_eq!(limit.divided_by(Amount::of(1)), 1);
        let memory = Amount::parse("33Mi").unwrap_or_default();
        assert_eq!(
            memory.divided_by(Amount::parse("1Mi").unwrap_or_default()),
            33
        );
    }
}
