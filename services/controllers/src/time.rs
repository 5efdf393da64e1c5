//! Between the API's times and ours.

use jiff::Timestamp;
use proto::k8s::meta::v1::Time;

/// The API's time as an instant; one out of range counts as the oldest.
pub fn instant(time: &Time) -> Timestamp {
    Timestamp::new(time.seconds, time.nanos).unwrap_or(Timestamp::MIN)
}

/// An instant as the API writes it: whole seconds.
pub fn api_time(instant: Timestamp) -> Time {
    Time { seconds: instant.as_second(), nanos: 0 }
}
