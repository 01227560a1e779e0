//! What is read and written: `exchanges` over sockets, with the connection's fate; `pieces` and `fuzz` without, however bytes are split.

mod exchanges;
mod fuzz;
mod pieces;
mod sending;

use bytes::Bytes;
use http::HeaderMap;

use super::framing::{Content, Piece};
use super::incoming::Incoming;

/// What came of reading an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether the body came to its end.
    is_whole: bool,
    /// Whether its connection may be used again.
    is_usable: bool,
    /// How many times the body was asked for.
    asked: usize,
}

/// Reads an answer that comes in `pieces`, after which the connection ends. Error: there is none, and why.
pub(super) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, is_to_head: bool) -> Result<Read, String> {
    let (mut incoming, mut asked) = (Incoming::new(), 0);
    let mut pieces = pieces.into_iter();
    let head = loop {
        let taken = incoming.take_head(HeaderMap::new, is_to_head, || asked += 1).map_err(|error| error.to_string())?;
        match (taken, pieces.next()) {
            (Some(head), next) => {
                let mut rest = next.map(<[u8]>::to_vec).unwrap_or_default();
                pieces.by_ref().for_each(|piece| rest.extend_from_slice(piece));
                break (head, rest);
            }
            (None, Some(piece)) => incoming.buffer.extend_from_slice(piece),
            (None, None) => return Err(incoming.end_of_head().to_string()),
        }
    };
    let (head, rest) = head;
    let mut read = Read {
        status: head.response.status().as_u16(),
        headers: head.response.headers().clone(),
        body: Vec::new(),
        trailers: None,
        is_whole: false,
        is_usable: false,
        asked,
    };
    let mut content = head.content;
    let mut rest = rest.chunks(7);
    loop {
        match content.next(&mut incoming.input) {
            Ok(Piece::Data(data)) => read.body.extend_from_slice(&data),
            Ok(Piece::Trailers(trailers)) => read.trailers = Some(trailers),
            Ok(Piece::End) => break,
            Ok(Piece::Starved) => match rest.next() {
                Some(piece) => incoming.input = Bytes::copy_from_slice(piece),
                None if content.end().is_ok() => break,
                None => return Ok(read),
            },
            Err(_) => return Ok(read),
        }
    }
    assert!(content.is_done() && matches!(content, Content::Done));
    let is_all_read = incoming.input.is_empty() && rest.next().is_none();
    (read.is_whole, read.is_usable) = (true, head.is_kept && is_all_read);
    Ok(read)
}
