//! What backends say over HTTP/2 while a request is still under way, frame by frame.

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::frames::{ACK, DATA, END, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, frame, get, head};
use super::gateway::{Backend, Gateway, status};
use super::http2::{EXPECTANT, h2c, next_head};
use super::http2_backends::{begin, gateway_to};

const PATIENCE: Duration = Duration::from_secs(10);

const POST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// A gateway before a backend that serves each connection like this.
fn gateway(serve: impl Fn(Wire) + Send + Sync + 'static) -> Gateway {
    let serve = Arc::new(serve);
    let backend = Backend::raw(move |stream: TcpStream| {
        if let Some(wire) = begin(stream) {
            serve(wire);
        }
    });
    gateway_to(h2c(&[backend.address]))
}

/// The next frame of a stream that is of one of these kinds.
fn next(wire: &mut Wire, kinds: &[u8]) -> Option<super::frames::Frame> {
    loop {
        let frame = wire.frame()?;
        if kinds.contains(&frame.kind) {
            return Some(frame);
        }
    }
}

/// Asks for the body once it made sure that none comes unasked, and answers once it has it. Tells what it has, in order.
fn asking(told: Sender<&'static str>) -> Gateway {
    gateway(move |mut wire| {
        let asked = next(&mut wire, &[HEADERS]).unwrap();
        told.send("backend has the head").unwrap();
        wire.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(next(&mut wire, &[DATA]).is_none(), "a byte of the body came unasked");
        wire.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        told.send("backend asks").unwrap();
        wire.send(&head(asked.stream, false, &[(":status", "100")]));
        let mut body = Vec::new();
        while let Some(data) = next(&mut wire, &[DATA]) {
            body.extend_from_slice(&data.payload);
            if data.flags & END != 0 {
                break;
            }
        }
        assert_eq!(body, b"abc");
        told.send("backend has the body").unwrap();
        wire.send(&head(asked.stream, true, &[(":status", "200")]));
    })
}

/// How long the gateway waits for a backend that does not ask. Who is asked before that is asked by the backend.
const OWN_WAIT: Duration = Duration::from_secs(1);
/// Tries, of which one at least is not held up by the machine.
const TRIES: usize = 5;
const IN_ORDER: [&str; 4] = ["backend has the head", "backend asks", "client is asked", "backend has the body"];

#[test]
fn a_backend_asks_over_http2_for_the_body_of_a_client() {
    let is_asked_in_time = |_| {
        let (told, events) = channel();
        let gateway = asking(told.clone());
        let mut client = gateway.connect();
        let begun = Instant::now();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 100"));
        let is_in_time = begun.elapsed() < OWN_WAIT;
        told.send("client is asked").unwrap();
        client.send("abc");
        assert_eq!(status(&client.answer()), 200);
        assert_eq!(events.try_iter().collect::<Vec<_>>(), IN_ORDER);
        is_in_time
    };
    assert!((0..TRIES).any(is_asked_in_time));
}

#[test]
fn a_backend_asks_over_http2_for_the_body_of_a_client_that_speaks_it_too() {
    let is_asked_in_time = |_| {
        let (told, events) = channel();
        let gateway = asking(told.clone());
        let mut wire = Wire::open(gateway.address);
        let begun = Instant::now();
        wire.send(&head(1, false, &EXPECTANT));
        assert_eq!(next_head(&mut wire), (100, false));
        let is_in_time = begun.elapsed() < OWN_WAIT;
        told.send("client is asked").unwrap();
        wire.send(&frame(DATA, END, 1, b"abc"));
        assert_eq!(next_head(&mut wire), (200, true));
        assert_eq!(events.try_iter().collect::<Vec<_>>(), IN_ORDER);
        is_in_time
    };
    assert!((0..TRIES).any(is_asked_in_time));
}

#[test]
fn a_backend_refuses_over_http2_before_the_body_and_goes_on() {
    let (told, events) = channel();
    let gateway = gateway(move |mut wire| {
        while let Some(asked) = next(&mut wire, &[HEADERS, DATA, RST_STREAM]) {
            let code = match asked.kind {
                HEADERS if asked.flags & END != 0 => "200",
                HEADERS => "401",
                _ => {
                    told.send((asked.kind, asked.payload)).unwrap();
                    continue;
                }
            };
            wire.send(&head(asked.stream, true, &[(":status", code)]));
        }
    });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    // Never asked: the answer is the first that comes.
    assert_eq!(status(&client.answer()), 401);
    let mut wire = Wire::open(gateway.address);
    wire.send(&head(1, false, &EXPECTANT));
    assert_eq!(next_head(&mut wire), (401, true));
    // Nothing of the bodies went out, and both streams are over.
    let cancelled = (RST_STREAM, vec![0, 0, 0, 8]);
    for _ in 0..2 {
        assert_eq!(events.recv_timeout(PATIENCE).unwrap(), cancelled);
    }
    wire.send(&get(3, "/"));
    assert_eq!(next_head(&mut wire), (200, true));
    assert_eq!(gateway.metrics.upstream_connects.with_label_values(&["s", "opened"]).get(), 1);
}

#[test]
fn a_whole_answer_ends_what_is_still_sent() {
    let (told, events) = channel();
    let gateway = gateway(move |mut wire| {
        while let Some(came) = next(&mut wire, &[HEADERS, DATA, RST_STREAM]) {
            if came.kind == DATA {
                wire.send(&head(came.stream, true, &[(":status", "200")]));
            }
            told.send((came.kind, came.payload)).unwrap();
        }
    });
    let mut wire = Wire::open(gateway.address);
    wire.send(&[head(1, false, &POST), frame(DATA, 0, 1, b"part")].concat());
    assert_eq!(next_head(&mut wire), (200, true));
    assert_eq!(events.recv_timeout(PATIENCE).unwrap().0, HEADERS);
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), (DATA, b"part".to_vec()));
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), (RST_STREAM, vec![0, 0, 0, 8]));
}

#[test]
fn a_client_that_reads_nothing_yet_can_send_on() {
    let (told, events) = channel();
    let gateway = gateway(move |mut wire| {
        while let Some(came) = next(&mut wire, &[HEADERS, DATA]) {
            if came.kind == HEADERS {
                wire.send(&[head(came.stream, false, &[(":status", "200")]), frame(DATA, 0, came.stream, &[7; 9000])].concat());
                continue;
            }
            let is_last = came.flags & END != 0;
            told.send(came.payload).unwrap();
            if is_last {
                wire.send(&frame(DATA, END, came.stream, b"!"));
            }
        }
    });
    let mut wire = Wire::bare(gateway.address);
    // A window of nothing for each answer.
    wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
    wire.send(&head(1, false, &POST));
    assert_eq!(next_head(&mut wire), (200, false));
    wire.send(&frame(SETTINGS, ACK, 0, &[]));
    for part in [&b"one"[..], b"two"] {
        wire.send(&frame(DATA, 0, 1, part));
        assert_eq!(events.recv_timeout(PATIENCE).unwrap(), part);
    }
    wire.send(&[frame(DATA, END, 1, b"end"), frame(WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0])].concat());
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), b"end");
    let mut answer = 0;
    while let Some(data) = next(&mut wire, &[DATA]) {
        answer += data.payload.len();
        if data.flags & END != 0 {
            break;
        }
    }
    assert_eq!(answer, 9001);
}

#[test]
fn a_client_that_gives_up_resets_the_backends_stream() {
    let (told, events) = channel();
    let gateway = gateway(move |mut wire| {
        while let Some(came) = next(&mut wire, &[DATA, RST_STREAM]) {
            told.send((came.kind, came.payload)).unwrap();
        }
    });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart");
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), (DATA, b"part".to_vec()));
    drop(client);
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), (RST_STREAM, vec![0, 0, 0, 8]));
}

#[test]
fn answers_that_nobody_reads_leave_room_for_others() {
    const STALLED: u32 = 100;
    // Each answer is as long as the windows allow, and has no end.
    let gateway = gateway(|mut wire| {
        let mut room = 65_535;
        while let Some(came) = next(&mut wire, &[HEADERS, WINDOW_UPDATE]) {
            match came.kind {
                HEADERS => wire.send(&head(came.stream, false, &[(":status", "200")])),
                _ if came.stream == 0 => {
                    room += came.number(0);
                    continue;
                }
                _ => continue,
            };
            // The first piece is taken and waits for the client, the others are not taken.
            for piece in [1, 16_384, 16_384, 16_384, 16_383] {
                if room >= piece {
                    room -= piece;
                    wire.send(&frame(DATA, 0, came.stream, &vec![7; piece as usize]));
                }
            }
        }
    });
    let mut wire = Wire::bare(gateway.address);
    wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
    for number in 0..STALLED {
        wire.send(&get(2 * number + 1, "/"));
        assert_eq!(next_head(&mut wire), (200, false), "{number}");
    }
    let last = 2 * STALLED + 1;
    wire.send(&[get(last, "/"), frame(WINDOW_UPDATE, 0, last, &[0, 0, 3, 232])].concat());
    let mut count = 0;
    while count < 1000 {
        let data = next(&mut wire, &[DATA]).expect("no room is left for it");
        assert_eq!(data.stream, last);
        count += data.payload.len();
    }
}

#[test]
fn what_comes_for_clients_that_left_ends_no_connection() {
    // The head, and the rest once the stream is given up.
    let gateway = gateway(|mut wire| {
        let mut given_up = HashSet::new();
        while let Some(came) = next(&mut wire, &[HEADERS, RST_STREAM]) {
            if came.kind == HEADERS {
                wire.send(&head(came.stream, false, &[(":status", "200")]));
            } else if given_up.insert(came.stream) {
                wire.send(&frame(DATA, 0, came.stream, b"late").repeat(10));
            }
        }
    });
    let mut wire = Wire::open(gateway.address);
    for number in 0..1500 {
        let stream = 2 * number + 1;
        wire.send(&get(stream, "/"));
        assert_eq!(next_head(&mut wire), (200, false), "{number}");
        wire.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    assert_eq!(gateway.metrics.upstream_connects.with_label_values(&["s", "opened"]).get(), 1);
}

#[test]
fn small_frames_that_wait_for_a_backend_end_no_connection() {
    const FRAMES: usize = 6_000;
    let (told, events) = channel();
    let gateway = gateway(move |mut wire| {
        // A window of nothing for each request, until the other one is answered.
        wire.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        let (mut count, mut answered) = (0, 0);
        while let Some(came) = next(&mut wire, &[HEADERS, DATA]) {
            count += if came.kind == DATA { came.payload.len() } else { 0 };
            if came.flags & END != 0 {
                answered += 1;
                wire.send(&head(came.stream, true, &[(":status", "200")]));
                told.send(count).unwrap();
                if answered == 2 {
                    wire.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
                }
            }
        }
    });
    // The backend's settings are there before the request.
    assert_eq!(status(&gateway.get("/")), 200);
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), 0);
    let mut wire = Wire::open(gateway.address);
    wire.send(&[head(1, false, &POST), frame(DATA, 0, 1, b"small").repeat(FRAMES)].concat());
    wire.send(&get(3, "/"));
    assert_eq!(next_head(&mut wire), (200, true));
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), 0);
    wire.send(&frame(DATA, END, 1, b"last"));
    assert_eq!(next_head(&mut wire), (200, true));
    assert_eq!(events.recv_timeout(PATIENCE).unwrap(), 5 * FRAMES + 4);
}

#[test]
fn small_frames_that_wait_for_clients_end_no_connection() {
    const STALLED: u32 = 20;
    let gateway = gateway(|mut wire| {
        while let Some(came) = next(&mut wire, &[HEADERS]) {
            wire.send(
                &[head(came.stream, false, &[(":status", "200")]), frame(DATA, 0, came.stream, b"small").repeat(3_000)].concat(),
            );
        }
    });
    let mut wire = Wire::bare(gateway.address);
    wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
    for number in 0..=STALLED {
        wire.send(&get(2 * number + 1, "/"));
        assert_eq!(next_head(&mut wire), (200, false), "{number}");
    }
    let last = 2 * STALLED + 1;
    wire.send(&frame(WINDOW_UPDATE, 0, last, &[0, 1, 0, 0]));
    let mut count = 0;
    while count < 15_000 {
        let data = next(&mut wire, &[DATA]).expect("its connection ended");
        assert_eq!(data.stream, last);
        count += data.payload.len();
    }
}
