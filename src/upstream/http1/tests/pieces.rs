//! The same bytes mean the same, however they are split.

use proptest::prelude::*;

use super::read;

/// Answers that are sound, and some that are not, from which random ones are put together.
static ANSWERS: [&str; 18] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n00a \r\n0123456789\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0;x\r\nX-Sum: 7\r\nX-Two: 8\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nbytes",
    "\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    "HTTP/1.1 200 OK\r\n folded\r\n\r\n",
    "nonsense\r\n\r\n",
];

proptest! {
    #[test]
    fn an_answer_in_pieces_is_the_answer(
        first in prop::sample::select(&ANSWERS[..]),
        second in prop::sample::select(&ANSWERS[..]),
        cut in 0..200_usize,
        lengths in prop::collection::vec(1..40_usize, 1..60),
        is_to_head in any::<bool>(),
    ) {
        let mut bytes = [first, second].concat().into_bytes();
        bytes.truncate(bytes.len().saturating_sub(cut % 60));
        let mut rest = &bytes[..];
        let mut pieces = Vec::new();
        for length in lengths {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let whole = read([&bytes[..]], is_to_head);
        prop_assert_eq!(&read(pieces, is_to_head), &whole);
        prop_assert_eq!(&read(bytes.chunks(1), is_to_head), &whole);
    }
}

#[test]
fn heads_have_bounds_however_they_come() {
    let fields = |count: usize| (0..count).map(|index| format!("X-{index}: a\r\n")).collect::<String>();
    let long = |length: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(length));
    let table = [
        (format!("HTTP/1.1 204 OK\r\n{}\r\n", fields(100)), None),
        (format!("HTTP/1.1 204 OK\r\n{}\r\n", fields(101)), Some("the answer's head is malformed")),
        (long(80 * 1024 - 30), None),
        (long(80 * 1024), Some("the answer's head is over 80 KiB")),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(90 * 1024)), Some("the answer's head is over 80 KiB")),
    ];
    for (bytes, expected) in table {
        for length in [usize::MAX, 4096, 1000, 1] {
            let found = read(bytes.as_bytes().chunks(length), false);
            assert_eq!(found.as_ref().err().map(String::as_str), expected, "{} bytes in pieces of {length}", bytes.len());
        }
    }
}

#[test]
fn one_length_is_passed_on_or_none() {
    let table = [
        ("Content-Length: 5\r\n", &["5"][..]),
        ("Content-Length: 5\r\nX: y\r\nContent-Length: 5\r\n", &["5"]),
        ("Content-Length: 5, 05\r\n", &["5"]),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &[]),
        ("", &[]),
    ];
    for (fields, expected) in table {
        for is_to_head in [false, true] {
            let read = read([format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()], is_to_head).unwrap();
            let lengths: Vec<&str> = read.headers.get_all("content-length").iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(lengths, expected, "{fields}");
        }
    }
}
