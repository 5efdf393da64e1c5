//! Spans of time as people read them: two units at most, coarser the longer they are.

use proto::k8s::meta::v1::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Time since an object was created; `<unknown>` where it does not say.
pub fn age(created: Option<&Time>, now: i64) -> String {
    since(created.map(|time| time.seconds), now)
}

/// Time since a moment in seconds since 1970; `<unknown>` where there is none.
pub fn since(moment: Option<i64>, now: i64) -> String {
    moment.map_or_else(|| "<unknown>".to_owned(), |moment| span(now.saturating_sub(moment)))
}

/// `59s`, `4m30s`, `45m`, `3h12m`, `30h`, `5d4h`, `90d`, `3y20d`, `9y`.
pub fn span(seconds: i64) -> String {
    match seconds {
        // Clocks of two machines may differ a little; more than that is an error worth seeing.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => pair(seconds / YEAR, 'y', seconds % YEAR / DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}

fn pair(large: i64, unit: char, small: i64, small_unit: char) -> String {
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn spans_get_coarser_the_longer_they_are() {
        let seconds = [
            -5,
            -1,
            0,
            119,
            120,
            125,
            599,
            600,
            10_799,
            10_800,
            11_000,
            28_799,
            28_800,
            172_799,
            172_800,
            180_000,
            691_199,
            691_200,
            63_071_999,
            63_072_000,
            65_000_000,
            300_000_000,
        ];
        let spans: Vec<String> = seconds.map(span).into();
        expect!["<invalid> 0s 0s 119s 2m 2m5s 9m59s 10m 179m 3h 3h3m 7h59m 8h 47h 2d 2d2h 7d23h 8d 729d 2y 2y22d 9y"]
            .assert_eq(&spans.join(" "));
    }

    #[test]
    fn an_object_without_a_creation_time_has_no_age() {
        assert_eq!(age(None, 100), "<unknown>");
        assert_eq!(age(Some(&Time { seconds: 40, nanos: 0 }), 100), "60s");
    }
}
