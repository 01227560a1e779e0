//! HTTP/2 written and read frame by frame (RFC 9113 4.1), with literals of HPACK alone (RFC 7541 6.2.2): what no library would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS.
pub(super) const END: u8 = 1;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITISED: u8 = 32;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a frame may take to come.
const PATIENCE: Duration = Duration::from_secs(3);

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals without indexing.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(&mut bytes, name);
        string(&mut bytes, value);
    }
    bytes
}

/// A string literal without Huffman's code (RFC 7541 5.2).
pub(super) fn string(bytes: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend_from_slice(text.as_bytes());
}

/// HEADERS with all of the block in one frame.
pub(super) fn head(stream: u32, is_end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(is_end), stream, &block(fields))
}

/// A GET that is as it should be.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a.example"), ("x-request-id", "r")];
    head(stream, true, &fields)
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The number at `at`: an error's code, above all.
    pub(super) fn number(&self, at: usize) -> u32 {
        self.payload.get(at..at + 4).map_or(u32::MAX, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
    }

    /// The status of an answer's head, which h2 writes first: by its index in the static table, or as a literal of that index.
    pub(super) fn status(&self) -> u16 {
        // A change of the table's size may stand before it.
        let start = self.payload.iter().position(|byte| byte & 0xe0 != 0x20).unwrap_or(0);
        let block = &self.payload[start..];
        match block[0] {
            0x88 => 200,
            0x89 => 204,
            0x8b => 304,
            0x8c => 400,
            0x8d => 404,
            0x8e => 500,
            0x48 | 0x08 | 0x18 if block[1] & 0x80 != 0 => {
                // Digits in Huffman's code: 0-2 in five bits, 3-9 in six.
                let bits: String = block[2..2 + usize::from(block[1] & 0x7f)].iter().map(|byte| format!("{byte:08b}")).collect();
                huffman_digits(&bits)
            }
            0x48 | 0x08 | 0x18 => String::from_utf8_lossy(&block[2..5]).parse().unwrap_or(1),
            _ => 0,
        }
    }
}

fn huffman_digits(mut bits: &str) -> u16 {
    let mut number = 0;
    while bits.len() >= 5 {
        let short = u16::from_str_radix(&bits[..5], 2).unwrap();
        if short <= 2 {
            (number, bits) = (number * 10 + short, &bits[5..]);
            continue;
        }
        let Some(long) = bits.get(..6).map(|bits| u16::from_str_radix(bits, 2).unwrap()) else { break };
        if !(0x19..=0x1f).contains(&long) {
            break;
        }
        (number, bits) = (number * 10 + long - 0x19 + 3, &bits[6..]);
    }
    number
}

/// A connection to the gateway.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
}

impl Wire {
    /// After the preface and empty SETTINGS.
    pub(super) fn open(address: SocketAddr) -> Wire {
        let mut wire = Wire::bare(address);
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        wire
    }

    /// With nothing sent.
    pub(super) fn bare(address: SocketAddr) -> Wire {
        Wire::connect(address).unwrap()
    }

    /// The same, where there may be no connection to be had.
    pub(super) fn connect(address: SocketAddr) -> std::io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream })
    }

    /// Whether it could be sent: a gateway that has refused already may have closed.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the end, or where none comes in time.
    pub(super) fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// What becomes of `stream`.
    pub(super) fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = 0;
        while let Some(frame) = self.frame() {
            match frame.kind {
                // GOAWAY without an error is for what comes later.
                GOAWAY if frame.number(4) != 0 => return Outcome::GoAway(frame.number(4)),
                RST_STREAM if frame.stream == stream && status == 0 => return Outcome::Reset(frame.number(0)),
                RST_STREAM if frame.stream == stream => return Outcome::Status(status),
                HEADERS if frame.stream == stream && status == 0 => status = frame.status(),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.stream == stream && frame.flags & END != 0 {
                return Outcome::Status(status);
            }
        }
        Outcome::Nothing
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered.
    Status(u16),
    /// It was reset with this code.
    Reset(u32),
    /// The connection ended with this code.
    GoAway(u32),
    /// The connection ended without a word, or nothing came.
    Nothing,
}
