//! Gateway API durations (GEP-2257): `1h30m`, `10s`, `250ms`.
//!
//! One to four parts, each of at most five digits and a unit of `h`, `m`, `s` and `ms`. No fractions, no signs, nothing finer than
//! a millisecond.

use std::time::Duration;

const PARTS_MAX: usize = 4;
const DIGITS_MAX: usize = 5;

/// Reads a duration. Errors: a sentence that names the fault.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let fault =
        || "a duration is one to four parts of at most five digits and h, m, s or ms, as in \"1h30m\" or \"250ms\"".to_owned();
    let mut rest = text;
    let mut milliseconds = 0;
    for _ in 0..PARTS_MAX {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > DIGITS_MAX {
            return Err(fault());
        }
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = unit_of(tail).ok_or_else(fault)?;
        milliseconds += number.parse::<u64>().map_err(|_| fault())? * unit;
        if tail.is_empty() {
            return Ok(Duration::from_millis(milliseconds));
        }
        rest = tail;
    }
    Err(fault())
}

/// Milliseconds of the unit that `text` starts with, and what follows it.
fn unit_of(text: &str) -> Option<(u64, &str)> {
    [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .into_iter()
        .find_map(|(unit, milliseconds)| text.strip_prefix(unit).map(|tail| (milliseconds, tail)))
}

/// Writes a duration in the form of GEP-2257, largest unit first. What is finer than a millisecond is cut off, and hours stop at
/// 99,999.
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let parts = [
        ((milliseconds / 3_600_000).min(99_999), "h"),
        (milliseconds / 60_000 % 60, "m"),
        (milliseconds / 1_000 % 60, "s"),
        (milliseconds % 1_000, "ms"),
    ];
    let text: String = parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        let table = [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 359_996_400_000),
            ("1s1h", 3_601_000),
            ("00001s", 1_000),
        ];
        for (text, milliseconds) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "-1s", "+1s", "1us", "1d", "100000s", "1s ", " 1s", "1h1m1s1ms1ms", "1S", "١s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(format_duration(Duration::from_micros(999)), "0s");
    }

    proptest! {
        #[test]
        fn written_durations_are_read_back(milliseconds in 0u64..360_000_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
