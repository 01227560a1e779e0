//! The PROXY protocol, versions 1 and 2: a load balancer before the gateway says who connected to it.
//!
//! A listener with `proxy_protocol = true` demands it of every connection, for whoever may leave it out may also make it up: such a
//! listener is not for clients to reach.

use std::io;
use std::net::IpAddr;
use std::ops::Range;

use ppp::{v1, v2};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a header of version 1 at most, the line's end among them.
const V1_BYTES_MAX: usize = 107;
/// Bytes of a header of version 2 before its addresses.
const V2_BYTES_MIN: usize = 16;
/// Bytes of addresses and extensions that are read.
const V2_REST_BYTES_MAX: usize = 4096;
/// Bytes of an extension of version 2 before its value: its type and its length.
const EXTENSION_BYTES_MIN: usize = 3;
/// What tells version 2 from version 1, which is never that short.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection is closed before its first request.
#[derive(Debug, Error)]
pub(super) enum HeaderError {
    /// It ended, or broke.
    #[error("no PROXY header")]
    Read(#[from] io::Error),
    /// It begins with something else.
    #[error("not a PROXY header")]
    Invalid,
    /// It claims to be longer than what is read.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header, to its last byte and not further, and gives the client's address: `peer` where the header does not say.
pub(super) async fn read_client<I: AsyncRead + Unpin>(io: &mut I, peer: IpAddr) -> Result<IpAddr, HeaderError> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    io.read_exact(&mut header).await?;
    match header.as_slice() == V2_SIGNATURE {
        true => read_v2(io, header, peer).await,
        false => read_v1(io, header, peer).await,
    }
}

async fn read_v1<I: AsyncRead + Unpin>(io: &mut I, mut header: Vec<u8>, peer: IpAddr) -> Result<IpAddr, HeaderError> {
    if !header.starts_with(b"PROXY ") {
        return Err(HeaderError::Invalid);
    }
    while !header.ends_with(b"\r\n") {
        if header.len() == V1_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        header.push(io.read_u8().await?);
    }
    let text = str::from_utf8(&header).map_err(|_| HeaderError::Invalid)?;
    let header = v1::Header::try_from(text).map_err(|_| HeaderError::Invalid)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => peer,
        // The library reads ports as the language does, which takes a sign.
        _ if text.contains('+') => return Err(HeaderError::Invalid),
        v1::Addresses::Tcp4(addresses) => addresses.source_address.into(),
        v1::Addresses::Tcp6(addresses) => IpAddr::V6(addresses.source_address).to_canonical(),
    })
}

async fn read_v2<I: AsyncRead + Unpin>(io: &mut I, mut header: Vec<u8>, peer: IpAddr) -> Result<IpAddr, HeaderError> {
    header.resize(V2_BYTES_MIN, 0);
    io.read_exact(&mut header[V2_SIGNATURE.len()..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[V2_BYTES_MIN - 2], header[V2_BYTES_MIN - 1]]));
    if rest > V2_REST_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    header.resize(V2_BYTES_MIN + rest, 0);
    io.read_exact(&mut header[V2_BYTES_MIN..]).await?;
    let bytes = header.as_slice();
    let header = v2::Header::try_from(bytes).map_err(|_| HeaderError::Invalid)?;
    if header.command == v2::Command::Local {
        return Ok(peer);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(_) | v2::Addresses::IPv6(_) if !are_extensions_sound(bytes, &header) => {
            return Err(HeaderError::Invalid);
        }
        v2::Addresses::IPv4(addresses) => addresses.source_address.into(),
        v2::Addresses::IPv6(addresses) => IpAddr::V6(addresses.source_address).to_canonical(),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => peer,
    })
}

/// Whether all extensions are whole and the checksum, where one is among them, is that of the header (2.2.3 of the protocol's text).
fn are_extensions_sound(bytes: &[u8], header: &v2::Header<'_>) -> bool {
    let mut at = V2_BYTES_MIN + header.address_bytes().len();
    header.tlvs().all(|extension| {
        let Ok(extension) = extension else { return false };
        let value = at + EXTENSION_BYTES_MIN;
        at = value + extension.value.len();
        extension.kind != u8::from(v2::Type::CRC32C) || is_checksum(bytes, value..at)
    })
}

/// Whether these bytes are the checksum of all, with themselves taken for zero.
fn is_checksum(bytes: &[u8], place: Range<usize>) -> bool {
    let (Some(before), Some(after)) = (bytes.get(..place.start), bytes.get(place.end..)) else { return false };
    let sum = [&[0; 4][..], after].into_iter().fold(crc32c::crc32c(before), crc32c::crc32c_append);
    bytes.get(place) == Some(&sum.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE.as_slice(), &[0x20 | command, family], &length, rest].concat()
    }

    /// The client and how many bytes were left, or nothing where the header is refused.
    async fn read(bytes: &[u8]) -> Option<(String, usize)> {
        let mut rest = bytes;
        let client = read_client(&mut rest, "192.0.2.9".parse().unwrap()).await.ok()?;
        Some((client.to_string(), rest.len()))
    }

    #[tokio::test]
    async fn headers_say_who_connected() {
        let ipv4 = [10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 1, 187];
        let ipv6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
        let summed = |sum: [u8; 4]| v2(1, 0x11, &[&ipv4[..], &[4, 0, 1, 7, 3, 0, 4], &sum, &[5, 0, 1, 8]].concat());
        let sum = crc32c::crc32c(&summed([0; 4])).to_be_bytes();
        let table: &[(Vec<u8>, Option<&str>)] = &[
            (summed(sum), Some("10.0.0.1")),
            (summed([0; 4]), None),
            (summed([sum[0], sum[1], sum[2], !sum[3]]), None),
            (v2(1, 0x11, &[&ipv4[..], &[3, 0, 3, 1, 2, 3]].concat()), None),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 80 443\r\n".to_vec(), Some("10.0.0.1")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 80 443\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Some("192.0.2.9")),
            (b"PROXY UNKNOWN a + b\r\n".to_vec(), Some("192.0.2.9")),
            (v2(1, 0x11, &ipv4), Some("10.0.0.1")),
            (v2(1, 0x11, &[&ipv4[..], &[4, 0, 1, 7]].concat()), Some("10.0.0.1")),
            (v2(1, 0x11, &[&ipv4[..], &[4, 0, 0, 0x20, 0, 1, 7]].concat()), Some("10.0.0.1")),
            (v2(1, 0x11, &[&ipv4[..], &[4, 0, 2, 7]].concat()), None),
            (v2(1, 0x11, &[&ipv4[..], &[4, 0]].concat()), None),
            (v2(1, 0x21, &[&ipv6[..], &[0, 80, 1, 187]].concat()), Some("2001:db8::1")),
            (v2(0, 0x00, &[]), Some("192.0.2.9")),
            (v2(0, 0x11, &ipv4), Some("192.0.2.9")),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), None),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 80\r\n".to_vec(), None),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 80 99999\r\n".to_vec(), None),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 +80 443\r\n".to_vec(), None),
            (b"PROXY TCP4 x 10.0.0.2 80 443\r\n".to_vec(), None),
            ([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(), None),
            (v2(1, 0x11, &ipv4[..8]), None),
            (v2(7, 0x11, &ipv4), None),
            (v2(1, 0x11, &[0; V2_REST_BYTES_MAX + 1]), None),
            (b"PROXY TCP4 10.".to_vec(), None),
            (vec![], None),
        ];
        for (header, expected) in table {
            let shown = header.escape_ascii();
            let followed = [header.as_slice(), b"GET /"].concat();
            let found = read(if expected.is_some() { &followed } else { header }).await;
            assert_eq!(found, expected.map(|client| (client.to_owned(), 5)), "{shown}");
        }
    }
}
