//! PostgreSQL's text output -> fragments. The same bytes as schemas/postgres_text.py.

use crate::cursor::{Res, LEFT};
use crate::json;

#[derive(Clone, Copy)]
pub enum Kind {
    /// The text is the fragment: integers.
    Plain,
    /// The text needs no escape.
    Quoted,
    Single,
    Double,
    Bool,
    Text,
    Binary,
    DateTime,
    Instant,
}

impl Kind {
    pub fn named(name: &str) -> Res<Self> {
        Ok(match name {
            "plain" => Kind::Plain,
            "quoted" => Kind::Quoted,
            "single" => Kind::Single,
            "double" => Kind::Double,
            "bool" => Kind::Bool,
            "text" => Kind::Text,
            "binary" => Kind::Binary,
            "datetime" => Kind::DateTime,
            "instant" => Kind::Instant,
            _ => return Err("a kind that nobody knows"),
        })
    }
}

/// One value's text output; padded: of character(n), whose trailing blanks mean nothing.
pub fn fragment(out: &mut Vec<u8>, kind: Kind, is_padded: bool, raw: &[u8]) -> Res<()> {
    let raw = if is_padded { trimmed(raw) } else { raw };
    match kind {
        Kind::Plain => out.extend_from_slice(ascii(raw)?),
        Kind::Quoted => json::quote_plain(out, ascii(raw)?),
        Kind::Single => json::single(out, f64::from(number(raw)? as f32)),
        Kind::Double => json::double(out, number(raw)?),
        Kind::Bool => {
            let is_true = raw == b"t" || raw == b"true";
            out.extend_from_slice(if is_true { b"true" } else { b"false" });
        }
        Kind::Text => json::quote(out, raw)?,
        Kind::Binary => {
            let digits = raw.strip_prefix(b"\\x").ok_or(LEFT)?;
            if digits.len() % 2 > 0 || !digits.iter().all(u8::is_ascii_hexdigit) {
                return Err(LEFT);
            }
            json::base64(out, digits.chunks_exact(2).map(|d| nibble(d[0]) << 4 | nibble(d[1])));
        }
        Kind::DateTime => moment(out, ascii(raw)?, b""),
        Kind::Instant => match ascii(raw)? {
            special @ (b"infinity" | b"-infinity") => json::quote_plain(out, special),
            text => {
                if let Some(clock) = text.strip_suffix(b"+00") {
                    moment(out, clock, b"Z");
                } else {
                    moment(out, text.strip_suffix(b"+00 BC").ok_or(LEFT)?, b"Z BC");
                }
            }
        },
    }
    Ok(())
}

/// A date and a clock with a T between them.
fn moment(out: &mut Vec<u8>, text: &[u8], zone: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.extend_from_slice(text);
    if let Some(blank) = text.iter().position(|&b| b == b' ') {
        out[start + blank] = b'T';
    }
    out.extend_from_slice(zone);
    out.push(b'"');
}

fn trimmed(raw: &[u8]) -> &[u8] {
    let end = raw.iter().rposition(|&b| b != b' ').map_or(0, |at| at + 1);
    &raw[..end]
}

/// What PostgreSQL prints for anything but text; the Python code judges what is not.
fn ascii(raw: &[u8]) -> Res<&[u8]> {
    if raw.iter().all(|b| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\') {
        Ok(raw)
    } else {
        Err(LEFT)
    }
}

fn number(raw: &[u8]) -> Res<f64> {
    std::str::from_utf8(raw).ok().and_then(|text| text.parse().ok()).ok_or(LEFT)
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
