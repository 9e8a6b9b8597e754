//! Kubernetes quantities as numbers.
//! Grammar: kubernetes apimachinery pkg/api/resource/quantity.go.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// A quantity in thousand-millionths; every value the API accepts is exact or
/// rounded up to that, as there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i128);

impl Amount {
    /// Reads `100m`, `1.5Gi`, `2e3`, `-1`; `None` for what is no quantity.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits_end = text
            .char_indices()
            .find(|(i, c)| {
                !(c.is_ascii_digit() || *c == '.' || (*i == 0 && matches!(c, '+' | '-')))
            })
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(digits_end);
        let (numerator, denominator) = scale(suffix)?;
        let (negative, whole) = match number.as_bytes().first()? {
            b'-' => (true, &number[1..]),
            b'+' => (false, &number[1..]),
            _ => (false, number),
        };
        let (mantissa, decimals) = mantissa(whole)?;
        let divisor = denominator.checked_mul(10_i128.checked_pow(decimals)?)?;
        let scaled = mantissa.checked_mul(numerator)?.checked_mul(NANO)?;
        let value = ceil_div(scaled, divisor);
        Some(Self(if negative { -value } else { value }))
    }

    /// A whole number.
    #[must_use]
    pub fn from_units(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    /// Units, rounded up.
    #[must_use]
    pub fn units(self) -> i64 {
        self.rounded_up_to(NANO)
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.rounded_up_to(NANO / 1000)
    }

    /// As upstream's messages about a resource count it: cpu in thousandths, all
    /// else in whole units.
    #[must_use]
    pub fn counted(self, kind: &str) -> i64 {
        if kind == "cpu" {
            self.millis()
        } else {
            self.units()
        }
    }

    /// How many of `divisor` make this, rounded up; a divisor of zero counts as one.
    #[must_use]
    pub fn divided_by(self, divisor: Self) -> i64 {
        self.rounded_up_to(if divisor.0 <= 0 { NANO } else { divisor.0 })
    }

    fn rounded_up_to(self, step: i128) -> i64 {
        i64::try_from(ceil_div(self.0, step)).unwrap_or(if self.0 < 0 {
            i64::MIN
        } else {
            i64::MAX
        })
    }
}

impl From<&Quantity> for Amount {
    /// What is no quantity counts as zero: the API server lets none through.
    fn from(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }
}

impl std::ops::Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |a, b| a + b)
    }
}

/// An amount of `kind`, written in the manner of `sample`; below zero is zero.
#[must_use]
pub fn written(amount: Amount, kind: &str, sample: &Quantity) -> Quantity {
    if Amount::from(sample) == amount {
        return sample.clone();
    }
    let millis = u64::try_from(amount.millis()).unwrap_or_default();
    if kind == "cpu" && !millis.is_multiple_of(1000) {
        return Quantity(format!("{millis}m"));
    }
    let units = u64::try_from(amount.units()).unwrap_or_default();
    match sample.0.ends_with('i') {
        true => binary(units),
        false => decimal(units),
    }
}

/// The largest binary suffix that loses nothing, as Kubernetes writes it.
#[must_use]
pub fn binary(n: u64) -> Quantity {
    Quantity(with_suffix(n, 1024, &["Ki", "Mi", "Gi", "Ti", "Pi"]))
}

/// The same with decimal suffixes.
#[must_use]
pub fn decimal(n: u64) -> Quantity {
    Quantity(with_suffix(n, 1000, &["k", "M", "G", "T", "P"]))
}

fn with_suffix(mut n: u64, step: u64, suffixes: &[&str]) -> String {
    let mut suffix = "";
    for next in suffixes {
        if n == 0 || !n.is_multiple_of(step) {
            break;
        }
        (n, suffix) = (n / step, next);
    }
    format!("{n}{suffix}")
}

/// Digits without the point, and how many stood behind it.
fn mantissa(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // What is below a thousand-millionth of the smallest suffix can't matter.
    let digits: String = [whole, &fraction[..fraction.len().min(18)]].concat();
    let decimals = u32::try_from(fraction.len().min(18)).ok()?;
    Some((digits.parse().ok()?, decimals))
}

/// What a suffix multiplies by: numerator, denominator.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "n" => Some((1, NANO)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => Some((1, 1)),
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
    let factor = 10_i128
        .checked_pow(power.unsigned_abs())
        .filter(|_| power.abs() <= 18)?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

fn ceil_div(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by > 0 {
        quotient + 1
    } else {
        quotient
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Option<i64> {
        Amount::parse(text).map(Amount::units)
    }

    #[test]
    fn every_suffix_means_its_power() {
        let cases = [
            ("0", 0),
            ("12", 12),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("2e3", 2000),
            ("2E3", 2000),
            ("1E", 1_000_000_000_000_000_000),
            ("-3", -3),
            ("+4", 4),
            (".5k", 500),
            ("5.", 5),
        ];
        for (text, wanted) in cases {
            assert_eq!(units(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn fractions_round_up() {
        assert_eq!(units("100m"), Some(1));
        assert_eq!(Amount::parse("0.1").map(Amount::millis), Some(100));
        assert_eq!(Amount::parse("1u").map(Amount::millis), Some(1));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "x", "1.2.3", "1KiB", "--1", "1 ", "e3", "1e99"] {
            assert_eq!(Amount::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn division_rounds_up_and_a_zero_divisor_is_one() {
        let amount = |text| Amount::parse(text).unwrap_or_default();
        assert_eq!(amount("250m").divided_by(amount("1m")), 250);
        assert_eq!(amount("250m").divided_by(amount("1")), 1);
        assert_eq!(amount("64Mi").divided_by(amount("1Ki")), 65536);
        assert_eq!(amount("3").divided_by(amount("0")), 3);
    }

    #[test]
    fn quantity_is_read_with_every_kind_of_suffix() {
        let value = |t| Amount::parse(t).map(Amount::units);
        assert_eq!(value("1.5Gi"), Some(1_610_612_736));
        assert_eq!(value("2e3"), Some(2000));
        assert_eq!(value("1E"), Some(1_000_000_000_000_000_000));
        assert_eq!(value("100M"), Some(100_000_000));
        assert_eq!(value("0"), Some(0));
        assert_eq!(Amount::parse("250m").map(Amount::millis), Some(250));
        assert_eq!(Amount::parse("1u").map(Amount::millis), Some(1));
        assert_eq!(value("-5"), Some(-5));
    }

    #[test]
    fn quantity_is_refused_when_it_is_no_number() {
        for text in ["", "Gi", "1Zi", "1.2.3", "one", "."] {
            assert_eq!(Amount::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn division_of_limits_rounds_up() {
        let limit = Amount::parse("250m").unwrap_or_default();
        assert_eq!(limit.divided_by(Amount::from_units(1)), 1);
        let memory = Amount::parse("33Mi").unwrap_or_default();
        assert_eq!(
            memory.divided_by(Amount::parse("1Mi").unwrap_or_default()),
            33
        );
    }
}
