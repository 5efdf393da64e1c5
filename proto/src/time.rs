//! Kubernetes' `Time` (whole seconds) and `MicroTime` (microseconds) as RFC 3339 text, and from the system's clock.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::k8s::meta::v1::{MicroTime, Time};

/// Seconds of 0001-01-01T00:00:00Z, which Kubernetes' clients send for "no time".
pub const ZERO_SECONDS: i64 = -62_135_596_800;
/// Seconds of 9999-12-31T23:59:59Z, the last that RFC 3339 can write.
pub const LAST_SECONDS: i64 = 253_402_300_799;

/// A text that is not an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an RFC 3339 time like 2006-01-02T15:04:05Z")]
pub struct Error(pub String);

/// Reads RFC 3339 text as seconds since 1970 and nanoseconds.
///
/// # Errors
/// Where it is another format, or names a day or an hour that does not exist.
pub fn parse(text: &str) -> Result<(i64, i32), Error> {
    parse_rfc3339(text.as_bytes()).ok_or_else(|| Error(text.to_owned()))
}

/// `2006-01-02T15:04:05Z`
pub fn format(seconds: i64) -> String {
    let mut text = String::with_capacity(20);
    push(seconds, None, &mut text);
    text
}

/// `2006-01-02T15:04:05.000000Z`
pub fn format_micros(seconds: i64, nanos: i32) -> String {
    let mut text = String::with_capacity(27);
    push(seconds, Some(nanos), &mut text);
    text
}

/// Whether Kubernetes' clients read this as "no time".
pub fn is_zero(seconds: i64, nanos: i32) -> bool {
    seconds == ZERO_SECONDS && nanos == 0
}

fn parse_rfc3339(text: &[u8]) -> Option<(i64, i32)> {
    let fixed = text.get(..19)?;
    let punctuated = fixed[4] == b'-' && fixed[7] == b'-' && fixed[13] == b':' && fixed[16] == b':';
    if !punctuated || !matches!(fixed[10], b'T' | b't') {
        return None;
    }
    let (year, month, day) = (digits(&fixed[..4])?, digits(&fixed[5..7])?, digits(&fixed[8..10])?);
    let (hour, minute, second) = (digits(&fixed[11..13])?, digits(&fixed[14..16])?, digits(&fixed[17..19])?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0i32;
    if let Some(b'.' | b',') = rest.first() {
        let length = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return None;
        }
        for place in 0..9 {
            let digit = if place < length { rest[1 + place] - b'0' } else { 0 };
            nanos = nanos * 10 + i32::from(digit);
        }
        rest = &rest[1 + length..];
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), clock @ ..] if clock.len() == 5 && clock[2] == b':' => {
            let (hours, minutes) = (digits(&clock[..2])?, digits(&clock[3..])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    (ZERO_SECONDS..=LAST_SECONDS).contains(&seconds).then_some((seconds, nanos))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in 400-year eras that start in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month + 2) / 5 + day - 1;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Times outside the years 1 to 9999 are written as the nearest that RFC 3339 can say.
pub(crate) fn push(seconds: i64, nanos: Option<i32>, out: &mut String) {
    let seconds = seconds.clamp(ZERO_SECONDS, LAST_SECONDS);
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let mut number = |value: i64, width: u32, after: &str| {
        for place in (0..width).rev() {
            out.push((b'0' + (value / 10i64.pow(place) % 10) as u8) as char);
        }
        out.push_str(after);
    };
    number(year, 4, "-");
    number(month, 2, "-");
    number(day, 2, "T");
    number(clock / 3600, 2, ":");
    number(clock / 60 % 60, 2, ":");
    number(clock % 60, 2, if nanos.is_some() { "." } else { "Z" });
    if let Some(nanos) = nanos {
        number(i64::from(nanos.clamp(0, 999_999_999)) / 1000, 6, "Z");
    }
}

fn since_epoch(time: SystemTime) -> (i64, i32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos() as i32),
        Err(before) => {
            let before = before.duration();
            let borrow = i64::from(before.subsec_nanos() > 0);
            (-(before.as_secs() as i64) - borrow, (borrow as i32) * 1_000_000_000 - before.subsec_nanos() as i32)
        }
    }
}

fn system_time(seconds: i64, nanos: i32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(nanos.clamp(0, 999_999_999) as u64)
}

impl Time {
    /// Whole seconds since 1970.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

/// Cut to whole seconds, as Kubernetes stores it.
impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        Self::from_seconds(since_epoch(time).0)
    }
}

impl From<&Time> for SystemTime {
    fn from(time: &Time) -> Self {
        system_time(time.seconds, time.nanos)
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        Self::from(&time)
    }
}

/// Cut to microseconds, as Kubernetes stores it.
impl From<SystemTime> for MicroTime {
    fn from(time: SystemTime) -> Self {
        let (seconds, nanos) = since_epoch(time);
        Self { seconds, nanos: nanos / 1000 * 1000 }
    }
}

impl From<&MicroTime> for SystemTime {
    fn from(time: &MicroTime) -> Self {
        system_time(time.seconds, time.nanos)
    }
}

impl From<MicroTime> for SystemTime {
    fn from(time: MicroTime) -> Self {
        Self::from(&time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format(self.seconds))
    }
}

impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_micros(self.seconds, self.nanos))
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(Self::from_seconds(parse(text)?.0))
    }
}

impl FromStr for MicroTime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (seconds, nanos) = parse(text)?;
        Ok(Self { seconds, nanos: nanos / 1000 * 1000 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_seconds_agree_over_leap_days_and_eras() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("1969-12-31T23:59:59Z", -1),
            ("2026-11-23T05:52:26Z", 1_795_413_146),
            ("0001-01-01T00:00:00Z", ZERO_SECONDS),
            ("9999-12-31T23:59:59Z", LAST_SECONDS),
        ] {
            assert_eq!(parse(text), Ok((seconds, 0)), "{text}");
            assert_eq!(format(seconds), text);
        }
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        assert_eq!(parse("1970-01-01T02:00:00+02:00"), Ok((0, 0)));
        assert_eq!(parse("1969-12-31T23:30:00.5-00:30"), Ok((0, 500_000_000)));
        assert_eq!(parse("1970-01-01T00:00:00.1234567891Z"), Ok((0, 123_456_789)));
        assert_eq!(
            "1970-01-01T00:00:00.123456789Z".parse::<MicroTime>().map(|t| t.to_string()),
            Ok("1970-01-01T00:00:00.123456Z".into())
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+2:00",
            "2026-01-01T00:00:00ZZ",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:6\u{e9}Z",
            "0001-01-01T00:00:00+01:00",
        ] {
            assert_eq!(parse(text), Err(Error(text.to_owned())));
        }
    }

    #[test]
    fn the_systems_clock_comes_and_goes_unchanged() {
        for (seconds, nanos) in [(0, 0), (1_795_413_146, 999_999_000), (-2, 1000)] {
            let time = system_time(seconds, nanos);
            assert_eq!(MicroTime::from(time), MicroTime { seconds, nanos });
            assert_eq!(Time::from(time), Time { seconds, nanos: 0 });
        }
    }
}
