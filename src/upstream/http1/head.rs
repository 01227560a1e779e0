//! Heads: of the request, as it is written, and of the answer, as it is read.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, request};
use httparse::{ParserConfig, Status};

use super::error::Http1Error;
use super::framing::{self, Content, Said};
use super::outgoing::Form;

/// Bytes of an answer's head at most.
pub(super) const HEAD_BYTES_MAX: usize = 80 * 1024;
/// Fields of an answer's head, and of its trailers.
pub(super) const FIELDS_MAX: usize = 100;
/// What an answer over [`HEAD_BYTES_MAX`] is called.
pub(super) const TOO_LARGE: Http1Error = Http1Error::HeadSize("the answer's head is over 80 KiB");
/// What a field of a request takes on average.
const FIELD_BYTES: usize = 48;

/// Writes the head of a request whose body is sent as `form` says. What the fields say of that is not taken over.
pub(super) fn write(out: &mut Vec<u8>, parts: &request::Parts, form: &Form) {
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    out.reserve(64 + target.len() + parts.headers.len() * FIELD_BYTES);
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut is_length_due = matches!(form, Form::Length(_));
    for (name, value) in &parts.headers {
        match *name {
            CONTENT_LENGTH => match form {
                Form::Length(length) => {
                    if std::mem::take(&mut is_length_due) {
                        // As it was said, if that is right.
                        match framing::number(value.as_bytes()) == Some(*length) {
                            true => write_field(out, name, value),
                            false => write_length(out, *length),
                        }
                    }
                }
                // A length of 0 is said where the client said so: not every backend knows a POST without one.
                Form::Nothing if value.as_bytes() == b"0" => write_field(out, name, value),
                Form::Nothing | Form::Chunks(_) => {}
            },
            TRANSFER_ENCODING => {}
            _ => write_field(out, name, value),
        }
    }
    match form {
        Form::Length(length) if is_length_due => write_length(out, *length),
        Form::Chunks(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Form::Length(_) | Form::Nothing => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one field.
pub(super) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// Without a reason phrase, which is nobody's concern.
    pub(super) response: Response<()>,
    /// What follows it.
    pub(super) content: Content,
    /// Whether its connection may serve another request after it.
    pub(super) is_kept: bool,
    /// What was read beyond it.
    pub(super) rest: Bytes,
}

impl Head {
    /// Whether another head follows.
    pub(super) fn is_interim(&self) -> bool {
        is_interim(self.response.status())
    }
}

/// 1xx but 101 (RFC 9110 15.2).
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Reads a head out of `buffer`; `None`, and nothing taken, where its end has not come. `room` gives an empty map for the fields of an answer.
pub(super) fn parse(
    buffer: &mut BytesMut,
    room: impl FnOnce() -> HeaderMap,
    is_to_head: bool,
) -> Result<Option<Head>, Http1Error> {
    let bytes = std::mem::take(buffer).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let length = match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields)? {
        Status::Complete(length) if length > HEAD_BYTES_MAX => return Err(TOO_LARGE),
        Status::Complete(length) => length,
        Status::Partial => {
            // Nobody else holds them, so they are not copied.
            *buffer = BytesMut::from(bytes);
            return Ok(None);
        }
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    // A request is kept until its own answer comes.
    let mut headers = if is_interim(status) { HeaderMap::new() } else { room() };
    headers.reserve(parsed.headers.len());
    let mut said = Said::default();
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| httparse::Error::HeaderName)?;
        // A slice of what was read, not a copy.
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| httparse::Error::HeaderValue)?;
        said.read(&name, &value)?;
        headers.append(name, value);
    }
    let (content, is_kept) = said.content(status, version, is_to_head, &mut headers)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, content, is_kept, rest: bytes.slice(length..) }))
}
