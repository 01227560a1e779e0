//! Values that TOML has no type for: spans of time and sizes.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use crate::model::spec::parse_size;

/// A span of time, as `"250ms"`, `"10s"` or `"1h30m"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Span).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is not a duration: whole numbers with h, m, s or ms, such as \"1h30m\" or \"250ms\""
            ))
        })
    }
}

/// Parts in the order h, m, s, ms, each at most once, none with a fraction (the durations of Gateway API, GEP-2257).
fn parse_span(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = text;
    let mut milliseconds = 0_u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let position = UNITS.iter().position(|(name, _)| *name == unit).filter(|position| *position >= next_unit)?;
        milliseconds = milliseconds.checked_add(number.parse::<u64>().ok()?.checked_mul(UNITS[position].1)?)?;
        next_unit = position + 1;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(milliseconds))
}

/// A number of bytes: a bare number, or with `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Number(bytes)) => Ok(Size(bytes)),
            Ok(Form::Text(text)) => parse_size(&text).map(Size).ok_or_else(|| size_error(&text)),
            Err(_) => Err(size_error("this value")),
        }
    }
}

fn size_error<E: Error>(text: &str) -> E {
    E::custom(format!("`{text}` is not a size: a number of bytes, or one with KiB, MiB or GiB, such as \"64KiB\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let spans = [
            ("250ms", Some(250)),
            ("1h30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("1m1m", None),
            ("1s1m", None),
            ("1.5s", None),
            ("", None),
            ("5", None),
            ("s", None),
            ("99999999999999999999h", None),
        ];
        for (text, milliseconds) in spans {
            assert_eq!(parse_span(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }
}
