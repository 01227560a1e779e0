//! Sizes: a number of bytes, or a number with `KiB`, `MiB` or `GiB`.

/// The bytes that `text` means; `None`: it is no size.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_or_none() {
        let sizes = [
            ("512", Some(512)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("1GiB", Some(1 << 30)),
            ("64kb", None),
            ("KiB", None),
            ("-1", None),
            ("99999999999GiB", None),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
