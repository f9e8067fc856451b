//! What MySQL and MariaDB say in their text protocol -> fragments. The same bytes as
//! schemas/mysql_text.py.

use crate::cursor::{Res, LEFT};
use crate::json;

#[derive(Clone, Copy)]
pub enum Kind {
    Int,
    Bool,
    Decimal,
    Single,
    Double,
    Text,
    Binary,
    Date,
    Time,
    DateTime,
    Timestamp,
}

impl Kind {
    pub fn named(name: &str) -> Res<Self> {
        Ok(match name {
            "int" => Kind::Int,
            "bool" => Kind::Bool,
            "decimal" => Kind::Decimal,
            "single" => Kind::Single,
            "double" => Kind::Double,
            "text" => Kind::Text,
            "binary" => Kind::Binary,
            "date" => Kind::Date,
            "time" => Kind::Time,
            "datetime" => Kind::DateTime,
            "timestamp" => Kind::Timestamp,
            _ => return Err("a kind that nobody knows"),
        })
    }
}

pub fn fragment(out: &mut Vec<u8>, kind: Kind, raw: &[u8]) -> Res<()> {
    match kind {
        Kind::Int => int(out, raw)?,
        Kind::Bool => match raw {
            b"1" => out.extend_from_slice(b"true"),
            b"0" => out.extend_from_slice(b"false"),
            _ => int(out, raw)?,
        },
        Kind::Decimal => {
            if !made_of(raw, b"0123456789.-") {
                return Err(LEFT);
            }
            json::quote_plain(out, without_fill(raw));
        }
        Kind::Single => json::single(out, number(raw)?),
        Kind::Double => json::double(out, number(raw)?),
        Kind::Text => json::quote(out, raw)?,
        Kind::Binary => json::base64(out, raw.iter().copied()),
        Kind::Date => json::quote_plain(out, digits_and(raw, b"-")?),
        Kind::Time => json::quote_plain(out, trimmed(digits_and(raw, b"-:.")?)),
        Kind::DateTime => moment(out, raw, b"")?,
        Kind::Timestamp => moment(out, raw, b"Z")?,
    }
    Ok(())
}

/// An integer without the zeros of ZEROFILL.
fn int(out: &mut Vec<u8>, raw: &[u8]) -> Res<()> {
    let (sign, digits) = match raw.strip_prefix(b"-") {
        Some(digits) => (&b"-"[..], digits),
        None => (&b""[..], raw),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(LEFT);
    }
    match digits.iter().position(|&d| d != b'0') {
        Some(start) => {
            out.extend_from_slice(sign);
            out.extend_from_slice(&digits[start..]);
        }
        None => out.push(b'0'),
    }
    Ok(())
}

/// A decimal without the zeros of ZEROFILL: the last one before a point stays.
fn without_fill(raw: &[u8]) -> &[u8] {
    let zeros = raw.iter().take_while(|&&d| d == b'0').count();
    match raw.get(zeros) {
        Some(b'0'..=b'9') => &raw[zeros..],
        _ => &raw[zeros.saturating_sub(1)..],
    }
}

fn moment(out: &mut Vec<u8>, raw: &[u8], zone: &[u8]) -> Res<()> {
    let raw = digits_and(raw, b"- :.")?;
    let blank = raw.iter().position(|&b| b == b' ').ok_or(LEFT)?;
    let (day, clock) = (&raw[..blank], trimmed(&raw[blank + 1..]));
    out.push(b'"');
    out.extend_from_slice(day);
    // The zero date has no time on the wire.
    if day != b"0000-00-00" || clock != b"00:00:00" {
        out.push(b'T');
        out.extend_from_slice(clock);
        out.extend_from_slice(zone);
    }
    out.push(b'"');
    Ok(())
}

/// A clock without its fraction's trailing zeros.
fn trimmed(clock: &[u8]) -> &[u8] {
    if !clock.contains(&b'.') {
        return clock;
    }
    let without =
        |clock: &[u8], last| clock.iter().rposition(|&b| b != last).map_or(0, |at| at + 1);
    let end = without(clock, b'0');
    &clock[..without(&clock[..end], b'.')]
}

fn number(raw: &[u8]) -> Res<f64> {
    if !made_of(raw, b"0123456789.-+eE") {
        return Err(LEFT);
    }
    std::str::from_utf8(raw).ok().and_then(|text| text.parse().ok()).ok_or(LEFT)
}

fn digits_and<'a>(raw: &'a [u8], more: &[u8]) -> Res<&'a [u8]> {
    if raw.iter().all(|b| b.is_ascii_digit() || more.contains(b)) {
        Ok(raw)
    } else {
        Err(LEFT)
    }
}

fn made_of(raw: &[u8], letters: &[u8]) -> bool {
    raw.iter().all(|b| letters.contains(b))
}
