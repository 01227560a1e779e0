//! W3C Trace Context: which trace a request belongs to, and what the backend is told of it.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use super::worker::Worker;
use crate::observe::{Trace, Traces};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What the caller says of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace_id: TraceId,
    parent: SpanId,
    is_sampled: bool,
}

impl TraceParent {
    /// Of a valid `traceparent` (version "-" trace id "-" parent id "-" flags), else nothing.
    pub(super) fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?.to_str().ok()?;
        let mut parts = value.split('-');
        let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let is_hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_valid = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        // Later versions may append parts; the first may not.
        let ends = version != "00" || parts.next().is_none();
        if !is_valid || !ends || values.next().is_some() {
            return None;
        }
        let (trace_id, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
        let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (trace_id != TraceId::INVALID && parent != SpanId::INVALID).then_some(TraceParent { trace_id, parent, is_sampled })
    }
}

/// The trace of a request: the caller's, which has decided whether it is sampled, or a new one.
pub(super) fn begin(traces: &Traces, parent: Option<TraceParent>, worker: &Worker) -> Trace {
    // Zero is no id.
    let span_id = SpanId::from(worker.random().max(1));
    if let Some(TraceParent { trace_id, parent, is_sampled }) = parent {
        return Trace { trace_id, span_id, parent: Some(parent), is_sampled };
    }
    let trace_id = TraceId::from(worker.random_id().max(1));
    Trace { trace_id, span_id, parent: None, is_sampled: traces.samples(trace_id) }
}

/// Tells the backend its place in the trace. One of the caller's that gets no span here passes as it came.
pub(super) fn pass_on(trace: Trace, headers: &mut HeaderMap) {
    if !trace.is_sampled && trace.parent.is_some() {
        return;
    }
    if trace.parent.is_none() {
        // It belongs to a traceparent that was none (Trace Context 3.3).
        headers.remove(TRACESTATE);
    }
    let value = format!("00-{}-{}-{:02x}", trace.trace_id, trace.span_id, u8::from(trace.is_sampled));
    headers.insert(TRACEPARENT, HeaderValue::try_from(value).expect("hexadecimal digits and dashes are a valid value"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_a_valid_traceparent_names_a_trace() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let known = |is_sampled| Some((TraceId::from_hex(trace).unwrap(), SpanId::from_hex(parent).unwrap(), is_sampled));
        let table = [
            (format!("00-{trace}-{parent}-01"), known(true)),
            (format!("00-{trace}-{parent}-00"), known(false)),
            // Only the last bit says sampled (Trace Context 3.2.2.5).
            (format!("00-{trace}-{parent}-fe"), known(false)),
            (format!("01-{trace}-{parent}-03-more"), known(true)),
            (format!("00-{trace}-{parent}-01-more"), None),
            (format!("ff-{trace}-{parent}-01"), None),
            (format!("00-{}-{parent}-01", trace.to_uppercase()), None),
            (format!("00-{}-{parent}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{trace}-{parent}"), None),
            ("00-ab-cd-01".to_owned(), None),
        ];
        for (value, expected) in table {
            let found = TraceParent::of(&map(&[&value])).map(|found| (found.trace_id, found.parent, found.is_sampled));
            assert_eq!(found, expected, "{value}");
        }
        let value = format!("00-{trace}-{parent}-01");
        assert_eq!(TraceParent::of(&map(&[&value, &value])), None);
        assert_eq!(TraceParent::of(&HeaderMap::new()), None);
    }
}
