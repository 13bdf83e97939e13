//! Points in time as `--since` and `--until` write them.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use super::command::{Flag, Matches};
use super::container::values;
use super::error::Error;

/// `seconds[.nanoseconds]` since the epoch, from an RFC 3339 time, a date, a Unix time, or a span such as
/// `10m` that counts back from `now`. Times without a zone are UTC.
pub fn point(text: &str, now: Timestamp) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(text) {
        return Ok(text.to_owned());
    }
    if let Some((seconds, fraction)) = text.split_once('.')
        && is_number(seconds)
        && is_number(fraction)
        && fraction.len() <= 9
    {
        return Ok(format!("{seconds}.{fraction:0<9}"));
    }
    let moment = if let Ok(moment) = text.parse::<Timestamp>() {
        moment
    } else if let Ok(moment) = text.parse::<DateTime>() {
        format!("{moment}Z").parse().map_err(|cause: jiff::Error| cause.to_string())?
    } else if let Ok(date) = text.parse::<Date>() {
        format!("{date}T00:00:00Z").parse().map_err(|cause: jiff::Error| cause.to_string())?
    } else {
        let span = values::duration_ns(text).map_err(|_| {
            "expected a time such as 2026-01-02T15:04:05Z, seconds since 1970, or 10m".to_owned()
        })?;
        let nanos = now.as_nanosecond() - i128::from(span);
        Timestamp::from_nanosecond(nanos).map_err(|cause| cause.to_string())?
    };
    let nanos = moment.as_nanosecond().max(0);
    Ok(format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000))
}

/// The [`point`] a flag names, counted from the moment of asking; empty when it names none.
pub fn given(matches: &Matches, flag: &'static Flag) -> Result<String, Error> {
    let text = matches.text(flag);
    point(&text, Timestamp::now())
        .map_err(|_| Error::Local(format!("failed to parse value as time or duration: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read_in_every_spelling() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let cases = [
            ("", ""),
            ("123", "123"),
            ("123.5", "123.500000000"),
            ("10m", "999400.000000000"),
            ("1h30m", "994600.000000000"),
            ("1970-01-02T00:00:00Z", "86400.000000000"),
            ("1970-01-01T01:00:00.25+01:00", "0.250000000"),
            ("1970-01-02T00:00:01", "86401.000000000"),
            ("1970-01-02", "86400.000000000"),
        ];
        for (text, expected) in cases {
            assert_eq!(point(text, now).as_deref(), Ok(expected), "{text}");
        }
        assert!(point("yesterday", now).is_err());
        assert!(point("-5", now).is_err());
    }
}
