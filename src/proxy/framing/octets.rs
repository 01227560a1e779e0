//! Which bytes may stand where, and scans over them.

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
const HOST: u8 = 8;

/// A bit for each class that a byte belongs to.
const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let mut class = 0;
        // RFC 9110 5.6.2.
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        // More than RFC 3986 3.3 and 3.4 allow, for browsers send it: less than that of HTML's URLs, and never a byte outside of ASCII, `#`,
        // `<` or `>`.
        if matches!(byte, 0x21 | 0x24..=0x3b | b'=' | 0x40..=0x5f | 0x61..=0x7e) {
            class |= PATH | QUERY;
        }
        if byte == b'"' {
            class |= PATH;
        }
        if matches!(byte, b'?' | b'`') {
            class |= QUERY;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            class |= HOST;
        }
        table[index] = class;
        index += 1;
    }
    table
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

fn span(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| !is(*byte, class)).unwrap_or(bytes.len())
}

/// How many bytes of a token (RFC 9110 5.6.2) `bytes` begins with.
pub(super) fn token(bytes: &[u8]) -> usize {
    span(bytes, TOKEN)
}

/// How many bytes of a target's path `bytes` begins with.
pub(super) fn path(bytes: &[u8]) -> usize {
    span(bytes, PATH)
}

/// How many bytes of a target's query `bytes` begins with.
pub(super) fn query(bytes: &[u8]) -> usize {
    span(bytes, QUERY)
}

/// How many bytes of a registered name without escapes (RFC 3986 3.2.2) `bytes` begins with.
pub(super) fn registered_name(bytes: &[u8]) -> usize {
    span(bytes, HOST)
}

const LANES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = LANES << 7;

/// How many bytes of a field's value (RFC 9110 5.5) `bytes` begins with: all but control characters; tab is none of these.
pub(super) fn value(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += plain(&bytes[at..]);
        match bytes.get(at) {
            Some(b'\t') => at += 1,
            _ => return at,
        }
    }
}

/// How many bytes before the first control character. Eight at a time: the most of a head's bytes are looked at here.
fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        // A lane's high bit: below 0x20, or equal to 0x7f. A borrow can only mark lanes above a true one, and the lowest counts.
        let low = word.wrapping_sub(LANES * 0x20) & !word;
        let delete = (word ^ (LANES * 0x7f)).wrapping_sub(LANES) & !(word ^ (LANES * 0x7f));
        let found = (low | delete) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(u8::is_ascii_control).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_at_the_first_control_character() {
        for place in 0..40 {
            for byte in 0..=255 {
                let mut bytes = [0xe9; 40];
                bytes[place] = byte;
                let ends = byte != b'\t' && (byte < 0x20 || byte == 0x7f);
                assert_eq!(value(&bytes), if ends { place } else { 40 }, "{byte:#04x} at {place}");
                bytes[39] = b'\r';
                bytes[0] = b'\t';
                let end = if ends && place > 0 { place } else { 39 };
                assert_eq!(value(&bytes), end, "{byte:#04x} at {place}");
            }
        }
    }

    #[test]
    fn what_a_target_may_hold_is_known_to_the_library() {
        for byte in 0..=255_u8 {
            for (text, class) in [([b'/', byte].as_slice(), PATH), ([b'/', b'?', byte].as_slice(), QUERY)] {
                let parsed = http::Uri::try_from(text);
                assert!(!is(byte, class) || parsed.is_ok(), "{byte:#04x}");
                let is_refused_here = byte == b'#' || (class == PATH && byte == b'?') || !byte.is_ascii();
                assert!(is(byte, class) || is_refused_here || parsed.is_err(), "{byte:#04x} {class}");
            }
        }
    }
}
