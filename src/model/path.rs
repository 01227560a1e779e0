//! The one normaliser of paths.
//!
//! Requests, route values and rewrites all pass through [`normalize`], so that no spelling of a path gets around a route, and what a
//! backend gets is the path that was matched. The steps are those of RFC 3986 6.2.2: escapes of unreserved characters are decoded,
//! the hexadecimal digits of other escapes are upper-cased, characters that a path must not hold in the clear (`{`, `|`, `[` ...) are
//! escaped, and dot segments are resolved after that, so that `%2e%2e` counts as `..`. Empty elements (`//`) stay: they are
//! significant to some backends, and merging them would change what was signed.

use std::borrow::Cow;

use http::Method;
use thiserror::Error;

/// What to do with an escaped `/` or `\`, about which backends disagree whether it separates elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// Refuse the path.
    #[default]
    Refuse,
    /// Keep the escape; it does not separate elements.
    Keep,
}

/// Why a text is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("a path starts with `/`")]
    NotAbsolute,
    /// A byte that no path holds: a control character, a space, `?`, `#`, or one outside ASCII.
    #[error("byte 0x{0:02x} must be percent-encoded in a path")]
    Byte(u8),
    /// A `%` without two hexadecimal digits behind it.
    #[error("`%` must be followed by two hexadecimal digits")]
    Escape,
    /// `%00`.
    #[error("`%00` is refused in a path")]
    Nul,
    /// `%2f`, `%5c` or `\`.
    #[error("an escaped slash or a backslash is refused in a path")]
    EscapedSlash,
}

/// Whether a request is about the server as a whole, and not about a path: `*` with OPTIONS (RFC 9110 9.3.7).
pub fn is_whole_server(method: &Method, path: &str) -> bool {
    path == "*" && *method == Method::OPTIONS
}

/// The normal form of `path` (without its query). Borrows where `path` is normal already. Normalising twice changes nothing.
pub fn normalize(path: &str, slashes: EscapedSlashes) -> Result<Cow<'_, str>, PathError> {
    let Some(rest) = path.strip_prefix('/') else { return Err(PathError::NotAbsolute) };
    if path.bytes().all(|byte| byte == b'/' || is_plain(byte)) && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    let mut normal = String::with_capacity(path.len());
    let mut elements = rest.split('/').peekable();
    while let Some(element) = elements.next() {
        let start = normal.len();
        normal.push('/');
        push_element(&mut normal, element, slashes)?;
        let dots = match &normal[start..] {
            "/." => 0,
            "/.." => 1,
            _ => continue,
        };
        normal.truncate(start);
        if dots == 1 {
            normal.truncate(normal.rfind('/').unwrap_or(0));
        }
        if elements.peek().is_none() {
            normal.push('/');
        }
    }
    Ok(Cow::Owned(normal))
}

fn push_element(normal: &mut String, element: &str, slashes: EscapedSlashes) -> Result<(), PathError> {
    let mut bytes = element.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => push_decoded(normal, hex_digit(bytes.next())? * 16 + hex_digit(bytes.next())?, slashes)?,
            b'\\' => push_decoded(normal, byte, slashes)?,
            byte if is_plain(byte) => normal.push(char::from(byte)),
            b'?' | b'#' | 0..=b' ' | 0x7f.. => return Err(PathError::Byte(byte)),
            byte => push_escape(normal, byte),
        }
    }
    Ok(())
}

fn push_decoded(normal: &mut String, byte: u8, slashes: EscapedSlashes) -> Result<(), PathError> {
    match byte {
        0 => return Err(PathError::Nul),
        b'/' | b'\\' if slashes == EscapedSlashes::Refuse => return Err(PathError::EscapedSlash),
        byte if is_unreserved(byte) => normal.push(char::from(byte)),
        byte => push_escape(normal, byte),
    }
    Ok(())
}

fn push_escape(normal: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    normal.extend(['%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

fn hex_digit(byte: Option<u8>) -> Result<u8, PathError> {
    match byte {
        Some(byte @ b'0'..=b'9') => Ok(byte - b'0'),
        Some(byte @ b'a'..=b'f') => Ok(byte - b'a' + 10),
        Some(byte @ b'A'..=b'F') => Ok(byte - b'A' + 10),
        _ => Err(PathError::Escape),
    }
}

/// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What an element holds in the clear: `pchar` of RFC 3986 3.3 without the escapes.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        let table = [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a//b", "/a//b"),
            ("/%61%2D%7e", "/a-~"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%2521", "/a%2521"),
            ("/a%252e%252e", "/a%252e%252e"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/../", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e", "/"),
            ("/a//../b", "/a/b"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/{a}[1]|", "/%7Ba%7D%5B1%5D%7C"),
            ("/a;v=1,2@:", "/a;v=1,2@:"),
        ];
        for (path, normal) in table {
            assert_eq!(normalize(path, EscapedSlashes::Refuse).as_deref(), Ok(normal), "{path}");
        }
        assert!(matches!(normalize("/a//b.c", EscapedSlashes::Refuse), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn what_backends_read_in_two_ways_is_refused() {
        let table = [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/%2f", PathError::EscapedSlash),
            ("/%5C", PathError::EscapedSlash),
            ("/a\\b", PathError::EscapedSlash),
            ("/%00", PathError::Nul),
            ("/%", PathError::Escape),
            ("/%4", PathError::Escape),
            ("/%4/", PathError::Escape),
            ("/%+1", PathError::Escape),
            ("/a b", PathError::Byte(b' ')),
            ("/a?b", PathError::Byte(b'?')),
            ("/a#b", PathError::Byte(b'#')),
            ("/é", PathError::Byte(0xc3)),
            ("/\u{7f}", PathError::Byte(0x7f)),
        ];
        for (path, error) in table {
            assert_eq!(normalize(path, EscapedSlashes::Refuse), Err(error), "{path}");
        }
    }

    #[test]
    fn kept_escaped_slashes_do_not_separate() {
        assert_eq!(normalize("/a/..%2f..\\b", EscapedSlashes::Keep).as_deref(), Ok("/a/..%2F..%5Cb"));
        assert_eq!(normalize("/%00", EscapedSlashes::Keep), Err(PathError::Nul));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[a.%2efF5c/{\\\\;~0-9]{0,24}", keep: bool) {
            let slashes = if keep { EscapedSlashes::Keep } else { EscapedSlashes::Refuse };
            if let Ok(once) = normalize(&path, slashes) {
                prop_assert_eq!(normalize(&once, slashes), Ok(once.clone()));
                prop_assert!(once.split('/').all(|element| element != "." && element != ".."));
            }
        }

        #[test]
        fn no_text_panics(path in "\\PC*") {
            let _ = normalize(&path, EscapedSlashes::Keep);
            let _ = normalize(&format!("/{path}"), EscapedSlashes::Refuse);
        }
    }
}
