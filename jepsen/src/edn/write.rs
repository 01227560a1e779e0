//! Writing EDN: on one line, as Clojure prints it.

use std::fmt::{self, Display, Formatter, Write};

use super::Edn;

impl Display for Edn {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Edn::Nil => out.write_str("nil"),
            Edn::Bool(truth) => write!(out, "{truth}"),
            Edn::Int(number) if i64::try_from(*number).is_ok() => write!(out, "{number}"),
            Edn::Int(number) => write!(out, "{number}N"),
            Edn::Float(number) if number.is_nan() => out.write_str("##NaN"),
            Edn::Float(number) if number.is_infinite() => out.write_str(if *number > 0.0 { "##Inf" } else { "##-Inf" }),
            Edn::Float(number) => write!(out, "{number:?}"),
            Edn::Text(text) => write_text(text, out),
            Edn::Keyword(name) => write!(out, ":{name}"),
            Edn::Vector(items) => {
                out.write_char('[')?;
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.write_char(' ')?;
                    }
                    item.fmt(out)?;
                }
                out.write_char(']')
            }
            Edn::Map(entries) => {
                out.write_char('{')?;
                for (place, (key, value)) in entries.iter().enumerate() {
                    if place > 0 {
                        out.write_str(", ")?;
                    }
                    write!(out, "{key} {value}")?;
                }
                out.write_char('}')
            }
        }
    }
}

fn write_text(text: &str, out: &mut Formatter<'_>) -> fmt::Result {
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            // A line of the history stays one line, in every reader.
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                write!(out, "\\u{:04x}", u32::from(control))?;
            }
            plain => out.write_char(plain)?,
        }
    }
    out.write_char('"')
}
