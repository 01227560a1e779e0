//! Malformed, ambiguous and unusual requests of HTTP/1.1, as readable cases: `framing.script`.
//!
//! ```text
//! # why
//! bytes that are sent           lines are joined without their ends: `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH` stand for themselves,
//!                               `{TEXT*COUNT}` for a repetition
//! ---
//! STATUS [STATUS ...] [WORD]    the answers. The word is what a refusal is counted under, `exchange` where a request was refused once
//!                               its framing was sound, or `close` where the connection ends after the answer
//! bytes that the backend got    all of them, but for the fields that the gateway adds to every request
//! ```
//!
//! Blocks are separated by empty lines. Each case runs alone, byte by byte, and between two sound requests in one write: the first of
//! those must be answered and reach the backend whatever follows, the second only where the connection goes on. What the backend got is the
//! verdict. With `RAFTGATE_REWRITE_SCRIPTS` set what is found is written into the script instead, for the difference to be read.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::gateway::{Backend, Gateway, field, status};
use super::secure::is_over_tls;
use crate::proxy::ListenerOptions;

const REWRITE_VARIABLE: &str = "RAFTGATE_REWRITE_SCRIPTS";
const SCRIPT: &str = include_str!("framing.script");
const BEFORE: &[u8] = b"GET /before HTTP/1.1\r\nHost: before\r\n\r\n";
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: after\r\n\r\n";
/// How long an answer may take that is expected.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer inputs may be read in several pieces, so that a body of theirs may have begun to pass.
const PIECE_BYTES_MAX: usize = 4096;
/// Longer inputs are not sent byte by byte.
const SINGLE_BYTES_MAX: usize = 700;

#[test]
pub(super) fn the_backend_gets_what_is_sound_and_nothing_else() {
    // Over TLS the scheme of a target is the other one.
    let mut script = SCRIPT.to_owned();
    if is_over_tls() {
        for (from, to) in
            [("GET https:", "GET other:"), ("GET http:", "GET https:"), ("GET other:", "GET http:"), ("GET HTTP:", "GET HTTPS:")]
        {
            script = script.replace(from, to);
        }
    }
    let blocks: Vec<Block> = script.trim_end().split("\n\n").map(Block::of).collect();
    let mut run = Run::start();
    let is_small = |block: &&Block| block.input.len() <= PIECE_BYTES_MAX;
    let mut results: Vec<(usize, Outcome)> =
        blocks.iter().enumerate().filter(|(_, block)| is_small(block)).map(|(index, block)| (index, run.case(block))).collect();
    assert_eq!(run.begun().len(), 0, "of what is there as a whole nothing may begin to pass");
    let large = blocks.iter().enumerate().filter(|(_, block)| !is_small(block));
    results.extend(large.map(|(index, block)| (index, run.case(block))).collect::<Vec<_>>());
    results.sort_by_key(|(index, _)| *index);
    if std::env::var_os(REWRITE_VARIABLE).is_some() && !is_over_tls() {
        let found: Vec<String> = blocks.iter().zip(&results).map(|(block, (_, outcome))| block.with(outcome)).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proxy/tests/framing.script");
        std::fs::write(path, found.join("\n\n") + "\n").unwrap();
    }
    blocks.iter().for_each(|block| run.single_bytes(block));
    assert!(run.begun().iter().all(|begun| begun.starts_with("POST / ")));
    assert!(run.failures.is_empty(), "{} failures:\n{}", run.failures.len(), run.failures.join("\n"));
    let refused = blocks.iter().filter(|block| block.expected.is_refusal()).count();
    assert!(refused >= 120 && blocks.len() >= refused + 30, "the script lost cases: {refused} refusals of {}", blocks.len());
    // The library itself found nothing to refuse.
    assert_eq!(run.refusals("library"), 0);
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    /// The answers.
    statuses: Vec<u16>,
    /// The word after them.
    word: String,
    /// What the backend got, message after message.
    bytes: Vec<u8>,
}

impl Outcome {
    fn is_refusal(&self) -> bool {
        !self.word.is_empty() && self.word != "close"
    }
}

struct Block {
    /// Comments and input as they stand.
    text: String,
    input: Vec<u8>,
    expected: Outcome,
}

impl Block {
    fn of(text: &str) -> Block {
        let (text, expected) = text.split_once("\n---\n").unwrap_or_else(|| panic!("no --- in {text}"));
        let input: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let mut lines = expected.lines();
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let statuses = words.iter().filter_map(|word| word.parse().ok()).collect();
        let word = words.iter().find(|word| word.parse::<u16>().is_err()).map_or(String::new(), |word| (*word).to_owned());
        let expected = Outcome { statuses, word, bytes: bytes(&lines.collect::<String>()) };
        Block { text: text.to_owned(), input: bytes(&input), expected }
    }

    fn with(&self, found: &Outcome) -> String {
        let words = found.statuses.iter().map(u16::to_string).chain(Some(found.word.clone()).filter(|word| !word.is_empty()));
        let got = escaped(&found.bytes);
        let lines: Vec<&str> = got.split_inclusive("\\r\\n").collect();
        let runs = lines.chunk_by(|a, b| a == b).map(|run| match run.len() {
            count @ 9.. => format!("\n{{{}*{count}}}", run[0]),
            _ => run.iter().map(|line| format!("\n{line}")).collect(),
        });
        let lines: String = runs.collect();
        format!("{}\n---\n{}{lines}", self.text, words.collect::<Vec<_>>().join(" "))
    }
}

/// What [`bytes`] turns back.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        let one = match run[0] {
            byte @ (b'\'' | b'"') => char::from(byte).to_string(),
            b'{' => "\\x7b".to_owned(),
            0 => "\\0".to_owned(),
            _ => run[..1].escape_ascii().to_string(),
        };
        match run.len() {
            count @ 64.. => text.push_str(&format!("{{{one}*{count}}}")),
            count => text.push_str(&one.repeat(count)),
        }
    }
    text
}

/// The bytes that a text of the script stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (end, part) = match first {
            '\\' => escape(rest),
            '{' => {
                let (repeated, after) = rest[1..].split_once('}').unwrap_or_else(|| panic!("no }} in {rest}"));
                let (part, count) = repeated.rsplit_once('*').unwrap_or_else(|| panic!("no * in {repeated}"));
                (rest.len() - after.len(), self::bytes(part).repeat(count.parse().unwrap()))
            }
            _ => (first.len_utf8(), rest.as_bytes()[..first.len_utf8()].to_vec()),
        };
        bytes.extend(part);
        rest = &rest[end..];
    }
    bytes
}

fn escape(text: &str) -> (usize, Vec<u8>) {
    let simple = |byte| (2, vec![byte]);
    match text.as_bytes()[1] {
        b'r' => simple(b'\r'),
        b'n' => simple(b'\n'),
        b't' => simple(b'\t'),
        b'0' => simple(0),
        b'\\' => simple(b'\\'),
        b'x' => (4, vec![u8::from_str_radix(&text[2..4], 16).unwrap()]),
        _ => panic!("unknown escape in {text}"),
    }
}

struct Run {
    gateway: Gateway,
    got: Arc<Mutex<Got>>,
    failures: Vec<String>,
}

impl Run {
    fn start() -> Run {
        let got = Arc::new(Mutex::new(Got::default()));
        let sink = Arc::clone(&got);
        let backend = Backend::raw(move |stream| record(stream, &sink));
        Run { gateway: Gateway::with(ListenerOptions::default(), &backend), got, failures: Vec::new() }
    }

    /// Runs a case alone and between two; gives what came of it alone.
    fn case(&mut self, block: &Block) -> Outcome {
        let expected = &block.expected;
        let count = expected.statuses.len();
        let alone = self.run(&[&block.input], count);
        self.check(block, "alone", &alone, expected);
        let goes_on = expected.word.is_empty();
        let whole = [BEFORE, &block.input, AFTER].concat();
        let between = self.run(&[&whole], count + 1 + usize::from(goes_on));
        let before = b"GET /before HTTP/1.1\r\nhost: before\r\n\r\n".to_vec();
        let after = if goes_on { b"GET /after HTTP/1.1\r\nhost: after\r\n\r\n".to_vec() } else { Vec::new() };
        let statuses = [vec![200], expected.statuses.clone(), vec![200; usize::from(goes_on)]].concat();
        let bytes = [before, expected.bytes.clone(), after].concat();
        self.check(block, "between two", &between, &Outcome { statuses, word: expected.word.clone(), bytes });
        alone
    }

    /// Runs a case byte by byte.
    fn single_bytes(&mut self, block: &Block) {
        if block.input.len() <= SINGLE_BYTES_MAX {
            let singles: Vec<&[u8]> = block.input.chunks(1).collect();
            let mut single = self.run(&singles, block.expected.statuses.len());
            // What comes in pieces may pass in pieces.
            single.bytes = joined(&single.bytes);
            let expected = Outcome { bytes: joined(&block.expected.bytes), ..block.expected.clone() };
            self.check(block, "byte by byte", &single, &expected);
        }
    }

    fn check(&mut self, block: &Block, form: &str, found: &Outcome, expected: &Outcome) {
        if found != expected {
            let (found, wanted) = (block.with(found), block.with(expected));
            let end = |text: &str| text.rsplit("\n---\n").next().unwrap_or_default().to_owned();
            self.failures.push(format!("\n{}\n{form}: expected\n{}\nfound\n{}", block.text, end(&wanted), end(&found)));
        }
    }

    /// Sends `pieces`, each in a write of its own, and sees what comes of it; `count` answers are waited for.
    fn run(&self, pieces: &[&[u8]], count: usize) -> Outcome {
        let refusals = Reasons::of(self);
        let mut client = self.gateway.connect();
        for piece in pieces {
            // A gateway that has refused already may have closed.
            let _ = client.stream.write_all(piece);
        }
        let answers = read_answers(&mut client.stream, count);
        let word = self.word(&answers, refusals);
        // What the backend was sent before this one it has been sent by now.
        self.gateway.get("/last");
        let mut messages = std::mem::take(&mut self.got.lock().unwrap().messages);
        let last = messages.pop().unwrap_or_default();
        assert!(last.starts_with(b"GET /last "), "{}", last.escape_ascii());
        Outcome { statuses: answers.iter().map(|answer| answer.0).collect(), word, bytes: messages.concat() }
    }

    /// The beginnings of messages that broke off.
    fn begun(&self) -> Vec<String> {
        self.got.lock().unwrap().begun.iter().map(|begun| begun.escape_ascii().to_string()).collect()
    }

    fn refusals(&self, reason: &str) -> u64 {
        self.gateway.metrics.requests_refused.with_label_values(&[reason]).get()
    }

    /// Why the connection ended, if the gateway ended it. Every refusal explains itself.
    fn word(&self, answers: &[(u16, String)], before: Reasons) -> String {
        let Some((status, last)) = answers.last() else { return "silence".into() };
        let counted = Reasons::of(self).since(&before);
        if *status < 400 {
            assert_eq!(counted, Vec::<&str>::new());
            let is_last = field(last, "connection") == Some("close") || last.starts_with("HTTP/1.0");
            return if is_last { "close".into() } else { String::new() };
        }
        assert_eq!(field(last, "connection"), Some("close"), "{last}");
        assert!(field(last, "x-request-id").is_some_and(|id| id.len() == 32), "{last}");
        assert!(field(last, "date").is_some(), "{last}");
        assert!(field(last, "proxy-status").is_some_and(|text| text.contains("http_request_error")), "{last}");
        assert_eq!(field(last, "content-type"), Some("application/problem+json"), "{last}");
        match counted.as_slice() {
            [] => "exchange".into(),
            [reason] => (*reason).to_owned(),
            many => panic!("{many:?}"),
        }
    }
}

/// The counters of refusals.
struct Reasons([u64; 13]);

impl Reasons {
    const NAMES: [&str; 13] = [
        "line_end",
        "request_line",
        "version",
        "target_size",
        "head_size",
        "field",
        "host",
        "length",
        "length_and_coding",
        "coding",
        "chunk",
        "trailers",
        "library",
    ];

    fn of(run: &Run) -> Reasons {
        Reasons(Reasons::NAMES.map(|name| run.refusals(name)))
    }

    fn since(&self, before: &Reasons) -> Vec<&'static str> {
        let pairs = self.0.iter().zip(&before.0).zip(Reasons::NAMES);
        pairs.filter(|((now, before), _)| now > before).map(|(_, name)| name).collect()
    }
}

/// Reads answers until the gateway closes or `count` came, then ends the connection and reads what else there is. Interim ones are not
/// given.
fn read_answers(stream: &mut TcpStream, count: usize) -> Vec<(u16, String)> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = Vec::new();
    let mut answers = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(answer) = take_answer(&mut buffer) {
            answers.extend(Some(answer).filter(|(status, _)| *status >= 200));
        }
        if answers.len() >= count {
            let _ = stream.shutdown(Shutdown::Write);
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
            _ => return answers,
        }
    }
}

/// The first answer of `buffer`, if it is there as a whole: its status and all of it.
fn take_answer(buffer: &mut Vec<u8>) -> Option<(u16, String)> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let length: usize = field(&text, "content-length").map_or(0, |length| length.parse().unwrap());
    if buffer.len() < head + length {
        return None;
    }
    let body: Vec<u8> = buffer.drain(..head + length).skip(head).collect();
    Some((status(&text), text + &String::from_utf8_lossy(&body)))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// What the backend got.
#[derive(Debug, Default)]
struct Got {
    /// Whole messages, without the fields that the gateway adds.
    messages: Vec<Vec<u8>>,
    /// Those that broke off.
    begun: Vec<Vec<u8>>,
}

/// A connection of the backend: records what comes, by the plainest reading of HTTP, and answers each message.
fn record(mut stream: TcpStream, got: &Mutex<Got>) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if find(&buffer, b"\r\n\r\n").is_some()
            && message_end(&buffer).is_none()
            && find(&buffer, b"expect: 100-continue").is_some()
        {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        while let Some(end) = message_end(&buffer) {
            let message: Vec<u8> = buffer.drain(..end).collect();
            got.lock().unwrap().messages.push(without_added(&message));
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => buffer.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    if !buffer.is_empty() {
        got.lock().unwrap().begun.push(buffer);
    }
}

fn message_end(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    if field(&text, "transfer-encoding").is_none() {
        let length: usize = field(&text, "content-length").map_or(0, |length| length.parse().unwrap());
        return Some(head + length).filter(|end| *end <= buffer.len());
    }
    let mut at = head;
    loop {
        let line = find(&buffer[at..], b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&buffer[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2;
        if size == 0 {
            return find(buffer.get(at - 2..)?, b"\r\n\r\n").map(|end| at - 2 + end + 4);
        }
        at += size + 2;
        buffer.get(..at)?;
    }
}

/// Messages with all chunks of a body made one.
fn joined(bytes: &[u8]) -> Vec<u8> {
    let mut left = bytes;
    let mut all = Vec::new();
    while let Some(end) = message_end(left) {
        let (message, rest) = left.split_at(end);
        left = rest;
        let mut at = find(message, b"\r\n\r\n").unwrap() + 4;
        all.extend_from_slice(&message[..at]);
        if field(&String::from_utf8_lossy(&message[..at]), "transfer-encoding").is_some() {
            let mut data = Vec::new();
            while !message[at..].starts_with(b"0\r\n") {
                let line = at + find(&message[at..], b"\r\n").unwrap();
                let size = usize::from_str_radix(std::str::from_utf8(&message[at..line]).unwrap(), 16).unwrap();
                data.extend_from_slice(&message[line + 2..line + 2 + size]);
                at = line + 2 + size + 2;
            }
            all.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            all.extend(data);
        }
        all.extend_from_slice(&message[at..]);
    }
    all.extend_from_slice(left);
    all
}

/// A message without the lines that the gateway adds, each of which must be as it should.
fn without_added(message: &[u8]) -> Vec<u8> {
    let head = find(message, b"\r\n\r\n").unwrap();
    let host = field(&String::from_utf8_lossy(message), "host").map(str::to_owned).unwrap_or_default();
    let mut left = Vec::new();
    for line in message[..head + 2].split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        match text.trim_end().split_once(": ") {
            Some(("x-request-id", id)) => assert_eq!(id.len(), 32, "{id}"),
            Some(("x-forwarded-for", address)) => assert_eq!(address, "127.0.0.1"),
            Some(("x-forwarded-proto", protocol)) => assert!(["http", "https"].contains(&protocol), "{protocol}"),
            Some(("x-forwarded-host", told)) => assert_eq!(told, host),
            Some(("via", via)) => assert!(["1.0 raftgate", "1.1 raftgate"].contains(&via), "{via}"),
            _ => left.extend_from_slice(line),
        }
    }
    left.extend_from_slice(&message[head + 2..]);
    left
}
