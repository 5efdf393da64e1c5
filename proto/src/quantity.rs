//! Kubernetes' quantities: `500m`, `1Gi`, `1e3`. Exact arithmetic in billionths, and the one canonical text.

use std::{
    cmp::Ordering,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use crate::k8s::resource::Quantity;

const NANO: i128 = 1_000_000_000;
/// The largest amount Kubernetes keeps, in billionths: 2^63-1 units.
const NANOS_MAX: i128 = i64::MAX as i128 * NANO;

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1Gi`
    Binary,
    /// `500m`, `2`, `10k`
    Decimal,
    /// `1e3`
    Exponent,
}

/// An exact amount and the way to write it. Compared by value: `1Ki` equals `1024`.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    nanos: i128,
    format: Format,
}

/// A text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a quantity: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct Error(pub String);

/// Reads a quantity.
///
/// Amounts below a billionth are rounded up, away from zero; amounts over 2^63-1 become 2^63-1, as in Kubernetes.
///
/// # Errors
/// Where the text is not a quantity.
pub fn parse(text: &str) -> Result<Amount, Error> {
    parse_amount(text).ok_or_else(|| Error(text.to_owned()))
}

/// The canonical text: `0.5` is `500m`, `1024Mi` is `1Gi`, `1.5Gi` is `1536Mi`.
///
/// # Errors
/// Where the text is not a quantity.
pub fn canonical(text: &str) -> Result<String, Error> {
    // Most quantities are small plain numbers, which are their own canonical text.
    let bytes = text.as_bytes();
    if (1..=3).contains(&bytes.len()) && bytes[0] != b'0' && bytes.iter().all(u8::is_ascii_digit) {
        return Ok(text.to_owned());
    }
    parse(text).map(|amount| amount.to_string())
}

fn parse_amount(text: &str) -> Option<Amount> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (format, shift, exponent) = suffix_meaning(suffix)?;
    let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').skip_while(|digit| *digit == 0);
    // The value is digits * 2^shift * 10^scale billionths.
    let scale = i64::from(exponent) - fraction.len() as i64 + 9;
    let magnitude = digits().count() as i64 + scale;
    let nanos = if digits().next().is_none() {
        0
    } else if magnitude > 40 {
        NANOS_MAX
    } else if magnitude < -20 {
        1
    } else {
        scaled(digits(), shift, scale)
    };
    let nanos = nanos.min(NANOS_MAX);
    Some(Amount { nanos: if negative { -nanos } else { nanos }, format })
}

/// digits * 2^shift * 10^scale, rounded up; saturates above every amount that is kept.
fn scaled(digits: impl Iterator<Item = u8>, shift: u32, scale: i64) -> i128 {
    let mut value = 0i128;
    let mut lost = false;
    let mut scale = scale;
    for digit in digits {
        // 28 digits leave room to shift by 60 bits; what stands further right only decides the rounding.
        if value < 10i128.pow(19) {
            value = value * 10 + i128::from(digit);
        } else {
            scale += 1;
            lost |= digit != 0;
        }
    }
    value <<= shift;
    while scale > 0 && value < NANOS_MAX {
        value *= 10;
        scale -= 1;
    }
    while scale < 0 && value > 0 {
        lost |= value % 10 != 0;
        value /= 10;
        scale += 1;
    }
    value + i128::from(lost)
}

/// Format, power of two, power of ten.
fn suffix_meaning(suffix: &str) -> Option<(Format, u32, i32)> {
    let decimal = |exponent| Some((Format::Decimal, 0, exponent));
    let binary = |shift| Some((Format::Binary, shift, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let digits = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
            digits.then_some(())?;
            Some((Format::Exponent, 0, exponent.parse::<i32>().ok()?.clamp(-1_000_000, 1_000_000)))
        }
    }
}

impl Amount {
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// Whole units: cores, bytes, pods.
    pub const fn units(units: i64, format: Format) -> Self {
        Self { nanos: units as i128 * NANO, format }
    }

    /// Thousandths: millicores.
    pub const fn millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::Decimal }
    }

    /// Whole units, rounded up (away from zero); saturates.
    pub fn value(&self) -> i64 {
        self.divided(NANO)
    }

    /// Thousandths, rounded up (away from zero); saturates.
    pub fn milli(&self) -> i64 {
        self.divided(NANO / 1000)
    }

    /// The same amount, written as a decimal.
    pub fn in_decimal(self) -> Self {
        Self { format: Format::Decimal, ..self }
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Units as a float, for ratios.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    fn divided(&self, by: i128) -> i64 {
        let rounded = (self.nanos.abs() + by - 1) / by * self.nanos.signum();
        rounded.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.abs();
        let reduce = |mut value: i128, by: i128, steps: usize| {
            let mut taken = 0;
            while taken < steps && value % by == 0 {
                value /= by;
                taken += 1;
            }
            (value, taken)
        };
        match self.format {
            // Below one Ki, a binary amount is written as a decimal one, so that nothing is rounded.
            Format::Binary if nanos >= 1024 * NANO => {
                let (value, step) = reduce((nanos + NANO - 1) / NANO, 1024, 6);
                write!(f, "{sign}{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step])
            }
            Format::Exponent => match reduce(nanos, 1000, 12) {
                (value, 3) => write!(f, "{sign}{value}"),
                (value, step) => write!(f, "{sign}{value}e{}", step as i32 * 3 - 9),
            },
            Format::Binary | Format::Decimal => {
                let (value, step) = reduce(nanos, 1000, 9);
                write!(f, "{sign}{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][step])
            }
        }
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text)
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Default for Amount {
    fn default() -> Self {
        Self::ZERO
    }
}

/// A sum takes the format of its first part that is not zero.
impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let nanos = (self.nanos + other.nanos).clamp(-NANOS_MAX, NANOS_MAX);
        Self { nanos, format: if self.nanos == 0 { other.format } else { self.format } }
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self { string: amount.to_string() }
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        canonical(text).map(|string| Self { string })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.string.is_empty() { "0" } else { &self.string })
    }
}

impl Quantity {
    /// The amount; an empty quantity is zero, and so is one that is none (stored quantities are checked on the way in).
    pub fn amount(&self) -> Amount {
        parse(&self.string).unwrap_or_default()
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        self.amount().value()
    }

    /// Thousandths, rounded up.
    pub fn milli(&self) -> i64 {
        self.amount().milli()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantity_has_one_text() {
        for (text, wanted) in [
            ("0", "0"),
            ("0.0", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            ("007", "7"),
            ("+5", "5"),
            ("1000", "1k"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1e4", "10e3"),
            ("1e-3", "1e-3"),
            ("1e0", "1"),
            ("12345", "12345"),
            ("-1.5", "-1500m"),
            ("0.0000000001", "1n"),
            ("1e-100", "1e-9"),
            ("100E", "9223372036854775807"),
            ("9E", "9E"),
            ("8Ei", "9223372036854775807"),
            ("7Ei", "7Ei"),
            ("123456789012345678901234567890", "9223372036854775807"),
            ("0.1234567891234", "123456790n"),
            ("100000000000000000000000n", "100T"),
            ("1.0000000001Ki", "1025"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", "-", "+", ".", "1.2.3", "1x", "1 Gi", "1gi", "1K", "1ki", "e3", "1e", "1e+", "1e1.5", "--1", "1Kii",
            "0x10", "\u{661}",
        ] {
            assert_eq!(canonical(text), Err(Error(text.to_owned())));
        }
    }

    #[test]
    fn amounts_round_up_as_requests_do() {
        let quantity = |text: &str| Quantity { string: text.into() };
        assert_eq!((quantity("100m").value(), quantity("100m").milli()), (1, 100));
        assert_eq!((quantity("1500u").milli(), quantity("-1500u").milli()), (2, -2));
        assert_eq!((quantity("1Gi").value(), quantity("").value(), quantity("9E").milli()), (1 << 30, 0, i64::MAX));
    }

    #[test]
    fn sums_keep_the_format_of_their_first_part() {
        let sum: Amount = ["0", "512Mi", "536870912"].iter().map(|text| parse(text).unwrap()).sum();
        assert_eq!(sum.to_string(), "1Gi");
        assert_eq!((parse("1").unwrap() - parse("1100m").unwrap()).to_string(), "-100m");
        assert!(parse("1Ki").unwrap() == parse("1024").unwrap() && parse("999m").unwrap() < parse("1").unwrap());
    }
}
