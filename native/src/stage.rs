//! Rows on their way into a staging table: wire bytes -> lines of COPY's text format, byte for byte
//! as apply/staging.py and apply/fields.py write them.
//!
//! What it does not take, whether rare or wrong, is an error for the whole call: the Python code
//! judges those rows.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::cursor::{Res, LEFT};
use crate::image::{after, member, token, unescape, Token};
use crate::json;
use crate::known::Known;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// How a wire value becomes a field; the names are those of fields.NATIVE.
#[derive(Clone, Copy)]
enum Form {
    Plain { takes_negative_zero: bool },
    Text,
    Flag,
    Single { takes_negative_zero: bool },
    Hexadecimal(&'static [u8]),
    UuidOfBytes,
    BytesOfUuid(&'static [u8]),
    WithoutZone,
    JsonInDoubles,
    /// A source's key as text, to be translated.
    Key,
}

impl Form {
    fn named(name: &str) -> Res<Form> {
        Ok(match name {
            "plain" => Form::Plain { takes_negative_zero: true },
            "plain, not -0.0" => Form::Plain { takes_negative_zero: false },
            "text" => Form::Text,
            "flag" => Form::Flag,
            "single" => Form::Single { takes_negative_zero: true },
            "single, not -0.0" => Form::Single { takes_negative_zero: false },
            "hexadecimal" => Form::Hexadecimal(b""),
            "hexadecimal with prefix" => Form::Hexadecimal(b"\\\\x"),
            "uuid of bytes" => Form::UuidOfBytes,
            "bytes of uuid" => Form::BytesOfUuid(b""),
            "bytes of uuid with prefix" => Form::BytesOfUuid(b"\\\\x"),
            "without zone" => Form::WithoutZone,
            "json in doubles" => Form::JsonInDoubles,
            "key" => Form::Key,
            _ => return Err("a form of field that is not known"),
        })
    }
}

struct Column {
    /// The name as JSON, quotes included.
    name: Vec<u8>,
    form: Form,
    is_required: bool,
    /// Of a source's key: the form of the identity that it meant, a second field.
    identity: Option<Form>,
}

/// A key with the identity that it meant; what follows is the identity's form.
const KNOWN: &str = "known key, ";

/// Lines of one plan's staging table.
#[pyclass(frozen)]
pub struct Stager {
    columns: Vec<Column>,
}

#[pymethods]
impl Stager {
    /// columns: name, form, and whether a row without a value is to be judged by the caller.
    #[new]
    fn new(columns: Vec<(String, String, bool)>) -> PyResult<Self> {
        let one = |(name, form, is_required): (String, String, bool)| {
            let mut quoted = Vec::new();
            json::quote(&mut quoted, name.as_bytes())?;
            let (form, identity) = match form.strip_prefix(KNOWN) {
                Some(identity) => (Form::Key, Some(Form::named(identity)?)),
                None => (Form::named(&form)?, None),
            };
            Ok(Column { name: quoted, form, is_required, identity })
        };
        let columns = columns.into_iter().map(one).collect::<Res<_>>();
        Ok(Stager { columns: columns.map_err(PyValueError::new_err)? })
    }

    /// A line for the after-image of each of these values: ordinal, set, then the columns; or
    /// without ordinals, the columns alone. known: what keys meant; tables: whose keys each column
    /// of a known key holds.
    #[pyo3(signature = (values, at, ordinals, sets, known=None, tables=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn lines<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyList>,
        at: Vec<usize>,
        ordinals: Option<Vec<i64>>,
        sets: Vec<i64>,
        known: Option<&Bound<'py, Known>>,
        tables: Vec<u32>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut known = known.map(|known| known.borrow_mut());
        let mut out = Vec::with_capacity(at.len() * 128);
        let mut row = Row::default();
        for (nth, (at, set)) in at.into_iter().zip(sets).enumerate() {
            let value = values.get_item(at)?;
            let value = value.cast::<PyBytes>()?.as_bytes();
            let mut ordinal = 0;
            if let Some(ordinals) = &ordinals {
                let Some(given) = ordinals.get(nth) else {
                    return Err(PyValueError::new_err("a row without an ordinal"));
                };
                ordinal = *given;
                json::integer(&mut out, ordinal);
                out.push(b'\t');
                json::integer(&mut out, set);
                out.push(b'\t');
            }
            let keys = Keys { known: known.as_deref_mut(), tables: &tables, ordinal };
            self.line(&mut out, value, &mut row, keys).map_err(PyValueError::new_err)?;
        }
        Ok(PyBytes::new(py, &out))
    }
}

/// What is used again from row to row.
#[derive(Default)]
struct Row {
    /// Where a member of the image stood among the columns in the row before.
    places: Vec<usize>,
    text: Vec<u8>,
    identity: Vec<u8>,
}

/// What the keys of one row meant.
struct Keys<'a> {
    known: Option<&'a mut Known>,
    tables: &'a [u32],
    ordinal: i64,
}

impl Keys<'_> {
    /// The identity as a field of this form, NULL where it is not known.
    fn identity(
        &mut self,
        out: &mut Vec<u8>,
        nth: usize,
        form: Form,
        token: Token,
        row: &mut Row,
    ) -> Res<()> {
        out.push(b'\t');
        let key = match token {
            Token::Bare(bare) => bare,
            Token::String { raw, is_escaped: false } => raw,
            Token::String { raw, .. } => {
                unescape(&mut row.text, raw)?;
                &row.text
            }
            Token::Null => return null(out),
        };
        let Some(known) = self.known.as_deref_mut() else { return null(out) };
        let table = *self.tables.get(nth).ok_or("a key without a table")?;
        row.identity.clear();
        if !known.look(table, key, self.ordinal, &mut row.identity) {
            return null(out);
        }
        let text = row.identity.as_slice();
        match form {
            Form::Text => escape(out, text),
            Form::Plain { .. } => out.extend_from_slice(text),
            Form::Hexadecimal(prefix) => {
                out.extend_from_slice(prefix);
                hexadecimal(out, text)?;
            }
            Form::UuidOfBytes => uuid_of_bytes(out, text)?,
            Form::BytesOfUuid(prefix) => bytes_of_uuid(out, prefix, text)?,
            _ => return Err(LEFT),
        }
        Ok(())
    }
}

fn null(out: &mut Vec<u8>) -> Res<()> {
    out.extend_from_slice(b"\\N");
    Ok(())
}

impl Stager {
    fn line(&self, out: &mut Vec<u8>, value: &[u8], row: &mut Row, mut keys: Keys) -> Res<()> {
        std::str::from_utf8(value).map_err(|_| LEFT)?;
        let mut found = vec![Token::Null; self.columns.len()];
        let mut cursor = after(value)?;
        let mut nth = 0;
        while let Some(name) = member(&mut cursor, nth == 0)? {
            let token = token(&mut cursor)?;
            if let Some(place) = self.place(name, nth, row)? {
                found[place] = token;
            }
            nth += 1;
        }
        let mut keyed = 0;
        for (place, (column, token)) in self.columns.iter().zip(found).enumerate() {
            if place > 0 {
                out.push(b'\t');
            }
            if let Token::Null = token {
                if column.is_required {
                    return Err(LEFT);
                }
                out.extend_from_slice(b"\\N");
            } else {
                field(out, column.form, token, &mut row.text)?;
            }
            if let Some(form) = column.identity {
                keys.identity(out, keyed, form, token, row)?;
                keyed += 1;
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// The column of this name; the rows of a table have their members in one order.
    fn place(&self, name: &[u8], nth: usize, row: &mut Row) -> Res<Option<usize>> {
        if let Some(&place) = row.places.get(nth) {
            if self.columns.get(place).is_some_and(|c| c.name == name) {
                return Ok(Some(place));
            }
        }
        let Some(place) = self.columns.iter().position(|c| c.name == name) else {
            // Another way to escape one of our names, for all we know.
            return if name.contains(&b'\\') { Err(LEFT) } else { Ok(None) };
        };
        if row.places.len() <= nth {
            row.places.resize(nth + 1, usize::MAX);
        }
        row.places[nth] = place;
        Ok(Some(place))
    }
}

fn field(out: &mut Vec<u8>, form: Form, token: Token, text: &mut Vec<u8>) -> Res<()> {
    match (form, token) {
        (Form::Text | Form::Key, Token::String { raw, is_escaped: false }) => {
            out.extend_from_slice(raw);
        }
        (Form::Text | Form::Key, Token::String { raw, .. }) => {
            unescape(text, raw)?;
            escape(out, text);
        }
        (Form::Plain { .. } | Form::Single { .. }, Token::String { raw, is_escaped: false }) => {
            out.extend_from_slice(raw);
        }
        (Form::Key | Form::Flag, Token::Bare(bare)) if is_integer(bare) => {
            out.extend_from_slice(bare);
        }
        (Form::Plain { .. }, Token::Bare(bare)) if is_integer(bare) => out.extend_from_slice(bare),
        (Form::Plain { takes_negative_zero }, Token::Bare(bare)) => {
            float(out, parsed(bare)?, takes_negative_zero)?;
        }
        (Form::Single { takes_negative_zero }, Token::Bare(bare)) => {
            float(out, f64::from(parsed(bare)? as f32), takes_negative_zero)?;
        }
        (Form::Flag, Token::Bare(b"true")) => out.push(b'1'),
        (Form::Flag, Token::Bare(b"false")) => out.push(b'0'),
        (Form::Hexadecimal(prefix), Token::String { raw, is_escaped: false }) => {
            out.extend_from_slice(prefix);
            hexadecimal(out, raw)?;
        }
        (Form::UuidOfBytes, Token::String { raw, is_escaped: false }) => uuid_of_bytes(out, raw)?,
        (Form::BytesOfUuid(prefix), Token::String { raw, is_escaped: false }) => {
            bytes_of_uuid(out, prefix, raw)?;
        }
        (Form::WithoutZone, Token::String { raw: [clock @ .., b'Z'], is_escaped: false }) => {
            out.extend_from_slice(clock);
        }
        (Form::WithoutZone, Token::String { raw: raw @ [_, ..], is_escaped: false }) => {
            out.extend_from_slice(raw);
        }
        (Form::JsonInDoubles, Token::String { raw, .. }) => {
            unescape(text, raw)?;
            if may_lose_digits(text) {
                return Err(LEFT);
            }
            escape(out, text);
        }
        _ => return Err(LEFT),
    }
    Ok(())
}

/// As fields.text: what would end a field or a line, and the escape itself.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for &c in text {
        match c {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0 => out.extend_from_slice(b"\\\0"),
            _ => out.push(c),
        }
    }
}

/// Whether Python would print the same digits: an integer of at most 64 bits.
fn is_integer(bare: &[u8]) -> bool {
    let digits = bare.strip_prefix(b"-").unwrap_or(bare);
    let is_canonical = match digits {
        [b'0'] => bare.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(bare).unwrap_or("");
    is_canonical && (digits.len() < 19 || text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok())
}

/// A JSON number with a fraction or an exponent.
fn parsed(bare: &[u8]) -> Res<f64> {
    let digits = bare.strip_prefix(b"-").unwrap_or(bare);
    let whole = digits.iter().take_while(|c| c.is_ascii_digit()).count();
    let mut rest = digits.get(whole..).ok_or(LEFT)?;
    let mut is_good = whole == 1 || (whole > 1 && !digits.starts_with(b"0"));
    let has_part = !rest.is_empty();
    if let [b'.', part @ ..] = rest {
        let size = part.iter().take_while(|c| c.is_ascii_digit()).count();
        is_good &= size > 0;
        rest = part.get(size..).ok_or(LEFT)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            unsigned => unsigned,
        };
        is_good &= !exponent.is_empty() && exponent.iter().all(u8::is_ascii_digit);
        rest = b"";
    }
    if !is_good || !has_part || !rest.is_empty() {
        return Err(LEFT);
    }
    let text = std::str::from_utf8(bare).map_err(|_| LEFT)?;
    text.parse().map_err(|_| LEFT)
}

fn float(out: &mut Vec<u8>, number: f64, takes_negative_zero: bool) -> Res<()> {
    let is_negative_zero = number == 0.0 && number.is_sign_negative();
    if !number.is_finite() || (is_negative_zero && !takes_negative_zero) {
        return Err(LEFT);
    }
    json::double(out, number);
    Ok(())
}

fn hexadecimal(out: &mut Vec<u8>, base64: &[u8]) -> Res<()> {
    if base64.len() % 4 != 0 {
        return Err(LEFT);
    }
    let padding = base64.iter().rev().take_while(|c| **c == b'=').count();
    if padding > 2 {
        return Err(LEFT);
    }
    for (nth, group) in base64.chunks_exact(4).enumerate() {
        let is_last = (nth + 1) * 4 == base64.len();
        let held = if is_last { 3 - padding } else { 3 };
        let mut bits = 0u32;
        for (place, &c) in group.iter().enumerate() {
            let digit = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if place > held => 0,
                _ => return Err(LEFT),
            };
            bits = bits << 6 | u32::from(digit);
        }
        for byte in bits.to_be_bytes().iter().skip(1).take(held) {
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
    Ok(())
}

/// Sixteen bytes as text.
fn uuid_of_bytes(out: &mut Vec<u8>, base64: &[u8]) -> Res<()> {
    let start = out.len();
    hexadecimal(out, base64)?;
    let digits = out.split_off(start);
    if digits.len() != 32 {
        return Err(LEFT);
    }
    for (place, digit) in digits.into_iter().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        out.push(digit);
    }
    Ok(())
}

/// The digits of a text.
fn bytes_of_uuid(out: &mut Vec<u8>, prefix: &[u8], text: &[u8]) -> Res<()> {
    if text.len() != 36 {
        return Err(LEFT);
    }
    out.extend_from_slice(prefix);
    for (place, &c) in text.iter().enumerate() {
        match (place, c) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return Err(LEFT),
            (_, c) if c.is_ascii_hexdigit() => out.push(c.to_ascii_lowercase()),
            _ => return Err(LEFT),
        }
    }
    Ok(())
}

/// As fields.json_in_doubles looks for numbers that a double may not keep.
fn may_lose_digits(document: &[u8]) -> bool {
    let mut run = 0;
    for (at, c) in document.iter().enumerate() {
        match c {
            b'0'..=b'9' | b'.' => run += 1,
            b'e' | b'E' if at > 0 && document[at - 1].is_ascii_digit() => return true,
            _ => run = 0,
        }
        if run >= 15 {
            return true;
        }
    }
    false
}
