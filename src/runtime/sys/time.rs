//! The host's local time.
#![allow(unsafe_code, reason = "localtime_r fills a C struct")]

/// Seconds by which local time is ahead of UTC at a moment, as /etc/localtime or `TZ` has it; 0 when it cannot be
/// told.
pub fn utc_offset_secs(seconds_since_epoch: i64) -> i32 {
    let seconds: libc::time_t = seconds_since_epoch;
    // SAFETY: tm is integers and a pointer that may be null; all zeroes is a value of it.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type; localtime_r(3) keeps neither.
    if unsafe { libc::localtime_r(&raw const seconds, &raw mut local) }.is_null() {
        return 0;
    }
    i32::try_from(local.tm_gmtoff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_a_place_on_earth() {
        assert!(utc_offset_secs(0).abs() <= 14 * 3600 && utc_offset_secs(i64::MAX) == 0);
    }
}
