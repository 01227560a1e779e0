//! Every reason for which the bytes of a request are refused, in one list.

use std::fmt;

use http::StatusCode;

/// What is wrong with a request's framing, and what is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw {
    /// The status of the answer.
    pub status: StatusCode,
    /// What it is counted under: one of a closed set.
    pub reason: &'static str,
    /// One sentence for the client.
    pub detail: &'static str,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.detail)
    }
}

macro_rules! flaws {
    ($( $name:ident = $status:ident, $reason:literal, $detail:literal; )+) => {
        $( pub(in super::super) const $name: Flaw = Flaw { status: StatusCode::$status, reason: $reason, detail: $detail }; )+
    };
}

flaws! {
    BARE_LF = BAD_REQUEST, "line_end", "a line ends in LF without CR";
    BARE_CR = BAD_REQUEST, "line_end", "a CR stands without LF";
    METHOD = BAD_REQUEST, "request_line", "the method is not a token followed by one space";
    TARGET = BAD_REQUEST, "request_line", "the request target holds what no target may hold";
    PSEUDO_FIELDS = BAD_REQUEST, "request_line", "the :path holds a fragment, or a pseudo field stands behind another field";
    TARGET_FORM = BAD_REQUEST, "request_line", "the request target has none of the four forms";
    TARGET_END = BAD_REQUEST, "request_line", "the request line is not a method, a target and a version with one space between";
    PROTOCOL = BAD_REQUEST, "request_line", "the request line does not end in a version of HTTP";
    VERSION = HTTP_VERSION_NOT_SUPPORTED, "version", "the version is neither HTTP/1.1 nor HTTP/1.0";
    TARGET_LONG = URI_TOO_LONG, "target_size", "the request target is over 8 KiB";
    HEAD_LONG = REQUEST_HEADER_FIELDS_TOO_LARGE, "head_size", "the head is over the listener's limit";
    HEAD_FIELDS = REQUEST_HEADER_FIELDS_TOO_LARGE, "head_size", "the head has over 100 fields";
    FIELD_SPACE = BAD_REQUEST, "field", "white space stands before a field";
    FIELD_NAME = BAD_REQUEST, "field", "a field's name is not a token followed by a colon";
    FIELD_VALUE = BAD_REQUEST, "field", "a field's value holds a control character";
    FIELD_ENDS = BAD_REQUEST, "field", "a field's value begins or ends with white space, or its name holds a quotation mark";
    HOST_MISSING = BAD_REQUEST, "host", "Host is missing";
    HOST_TWICE = BAD_REQUEST, "host", "Host stands more than once";
    LENGTH = BAD_REQUEST, "length", "Content-Length is not a number of bytes";
    LENGTH_TWICE = BAD_REQUEST, "length", "Content-Length stands more than once";
    LENGTH_AND_CODING = BAD_REQUEST, "length_and_coding", "Content-Length stands beside Transfer-Encoding";
    CODING = BAD_REQUEST, "coding", "Transfer-Encoding does not end in chunked";
    CODING_TWICE = BAD_REQUEST, "coding", "Transfer-Encoding stands more than once, or names chunked more than once";
    CODING_VERSION = BAD_REQUEST, "coding", "Transfer-Encoding stands in a request of HTTP/1.0";
    CODING_OTHER = NOT_IMPLEMENTED, "coding", "Transfer-Encoding other than chunked";
    CHUNK_SIZE = BAD_REQUEST, "chunk", "a chunk's size is not a hexadecimal number of at most 16 digits";
    CHUNK_EXTENSION = BAD_REQUEST, "chunk", "a chunk's extension holds a control character";
    CHUNK_EXTENSIONS = BAD_REQUEST, "chunk", "the extensions of the chunks are over 4 KiB";
    CHUNK_END = BAD_REQUEST, "chunk", "a chunk is not followed by CR and LF";
    TRAILERS_LONG = BAD_REQUEST, "trailers", "the trailers are over the listener's limit for heads";
    TRAILERS_FIELDS = BAD_REQUEST, "trailers", "there are over 100 trailers";
}
