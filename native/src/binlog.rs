//! Row images of a MySQL or MariaDB binlog -> wire rows. The same bytes as capture/binlog_rows.py.
//!
//! Formats: MySQL's log_event.cc, field.cc, strings/decimal.cc and mysys/my_time.cc.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::cursor::{Cursor, Res};
use crate::json;
use crate::rows::{lead, Identity, Rows, Tails};

/// What a column's bytes are.
enum Kind {
    Signed,
    Unsigned,
    Bool,
    Single,
    Double,
    Decimal { precision: usize, scale: usize },
    Date,
    Time { part: usize },
    DateTime { part: usize },
    Timestamp { part: usize },
    Text,
    /// Padded with zero bytes to a width.
    Binary { width: usize },
    Uuid,
    Enum { labels: Vec<Vec<u8>> },
    /// Python makes the fragment: charsets other than UTF-8, JSON's binary form.
    Call(Py<PyAny>),
    Skip,
}

/// How many bytes a column takes: as many as said, or as a prefix of so many bytes says.
enum Size {
    Fixed(usize),
    Prefixed(usize),
}

struct Column {
    lead: Option<Vec<u8>>,
    nullable: bool,
    size: Size,
    kind: Kind,
}

/// One column from Python: (name or None to step over it, nullable, fixed size or 0, prefix's size,
/// kind, its parameters).
#[derive(FromPyObject)]
struct Given(Option<String>, bool, usize, usize, String, Vec<Py<PyAny>>);

impl Given {
    fn column(self, py: Python) -> PyResult<Column> {
        let Given(name, nullable, fixed, prefix, kind, parameters) = self;
        let number = |at: usize| -> PyResult<usize> {
            parameters
                .get(at)
                .ok_or_else(|| PyValueError::new_err("a parameter is missing"))?
                .extract(py)
        };
        let part = || -> PyResult<usize> {
            let bytes = number(0)?.div_ceil(2);
            (bytes <= 3).then_some(bytes).ok_or_else(|| PyValueError::new_err("a long fraction"))
        };
        let kind = match kind.as_str() {
            "signed" => Kind::Signed,
            "unsigned" => Kind::Unsigned,
            "bool" => Kind::Bool,
            "single" => Kind::Single,
            "double" => Kind::Double,
            "decimal" => Kind::Decimal { precision: number(0)?, scale: number(1)? },
            "date" => Kind::Date,
            "time" => Kind::Time { part: part()? },
            "datetime" => Kind::DateTime { part: part()? },
            "timestamp" => Kind::Timestamp { part: part()? },
            "text" => Kind::Text,
            "binary" => Kind::Binary { width: number(0)? },
            "uuid" => Kind::Uuid,
            "enum" => {
                let mut labels = vec![b"\"\"".to_vec()];
                for label in &parameters {
                    let mut out = Vec::new();
                    let label: String = label.extract(py)?;
                    json::quote(&mut out, label.as_bytes()).map_err(PyValueError::new_err)?;
                    labels.push(out);
                }
                Kind::Enum { labels }
            }
            "call" => Kind::Call(
                parameters
                    .into_iter()
                    .next()
                    .ok_or_else(|| PyValueError::new_err("a function is missing"))?,
            ),
            "skip" => Kind::Skip,
            other => return Err(PyValueError::new_err(format!("no kind is named {other}"))),
        };
        let name = if matches!(kind, Kind::Skip) { None } else { name };
        Ok(Column {
            lead: name.map(|n| lead(&n)).transpose().map_err(PyValueError::new_err)?,
            nullable,
            size: if prefix > 0 { Size::Prefixed(prefix) } else { Size::Fixed(fixed) },
            kind,
        })
    }
}

/// One row's JSON object, and where the columns' fragments stand in it.
#[derive(Default)]
struct Image {
    text: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

impl Image {
    fn fragment(&self, place: usize) -> &[u8] {
        let (start, end) = self.spans[place];
        &self.text[start..end]
    }
}

/// Decodes the rows of one description; see capture/binlog_native.py.
#[pyclass(frozen)]
pub struct ImageDecoder {
    columns: Vec<Column>,
    identity: Identity,
}

#[pymethods]
impl ImageDecoder {
    #[new]
    fn new(py: Python, columns: Vec<Given>, identity: Vec<usize>) -> PyResult<Self> {
        let columns =
            columns.into_iter().map(|c| c.column(py)).collect::<PyResult<Vec<Column>>>()?;
        let leads: Vec<Option<Vec<u8>>> = columns.iter().map(|c| c.lead.clone()).collect();
        let identity = Identity::new(&leads, &identity).map_err(PyValueError::new_err)?;
        Ok(ImageDecoder { columns, identity })
    }

    /// Append an event's inserted or deleted rows (deleted: without `ops`, the tail decides).
    #[allow(clippy::too_many_arguments)]
    fn images(
        &self,
        py: Python,
        data: &Bound<PyBytes>,
        start: usize,
        ordinal: u64,
        tails: Tails,
        deleted: bool,
        keys: &Bound<PyList>,
        values: &Bound<PyList>,
    ) -> PyResult<u64> {
        let mut from = Cursor::new(data.as_bytes(), start);
        let (mut rows, mut image, mut key) = (Rows::default(), Image::default(), Vec::new());
        let mut ordinal = ordinal;
        while !from.is_at_end() {
            self.read(py, &mut from, &mut image)?;
            self.identity.key(&mut key, |place| image.fragment(place));
            if deleted {
                rows.delete(py, &tails, &key, &image.text, ordinal);
            } else {
                rows.create(py, &tails, &key, &image.text, ordinal);
            }
            ordinal += 1;
        }
        rows.give(py, None, keys, values)?;
        Ok(ordinal)
    }

    /// Append an event's updated rows; a changed identity is a delete and a create.
    #[allow(clippy::too_many_arguments)]
    fn updates(
        &self,
        py: Python,
        data: &Bound<PyBytes>,
        start: usize,
        ordinal: u64,
        tails: Tails,
        ops: &Bound<PyList>,
        keys: &Bound<PyList>,
        values: &Bound<PyList>,
    ) -> PyResult<u64> {
        let mut from = Cursor::new(data.as_bytes(), start);
        let (mut rows, mut before, mut after) =
            (Rows::default(), Image::default(), Image::default());
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let mut ordinal = ordinal;
        while !from.is_at_end() {
            self.read(py, &mut from, &mut before)?;
            self.identity.key(&mut old, |place| before.fragment(place));
            self.read(py, &mut from, &mut after)?;
            self.identity.key(&mut new, |place| after.fragment(place));
            if old == new {
                rows.update(py, &tails, &new, &before.text, &after.text, ordinal);
                ordinal += 1;
            } else {
                rows.moved(py, &tails, &old, &before.text, ordinal);
                rows.create(py, &tails, &new, &after.text, ordinal + 1);
                ordinal += 2;
            }
        }
        rows.give(py, Some(ops), keys, values)?;
        Ok(ordinal)
    }
}

impl ImageDecoder {
    fn read(&self, py: Python, from: &mut Cursor, image: &mut Image) -> PyResult<()> {
        let wrong = PyValueError::new_err::<&'static str>;
        image.text.clear();
        image.spans.clear();
        let nulls = from.take(self.columns.len().div_ceil(8)).map_err(wrong)?;
        for (i, column) in self.columns.iter().enumerate() {
            let is_null = column.nullable && nulls[i / 8] >> (i % 8) & 1 == 1;
            if let Some(lead) = &column.lead {
                image.text.push(if image.text.is_empty() { b'{' } else { b',' });
                image.text.extend_from_slice(lead);
            }
            let start = image.text.len();
            if is_null {
                if column.lead.is_some() {
                    image.text.extend_from_slice(b"null");
                }
            } else {
                let size = match column.size {
                    Size::Fixed(size) => size,
                    Size::Prefixed(prefix) => from.little(prefix).map_err(wrong)? as usize,
                };
                let raw = from.take(size).map_err(wrong)?;
                if let Kind::Call(function) = &column.kind {
                    let made = function.call1(py, (PyBytes::new(py, raw),))?;
                    let made = made.bind(py).cast::<PyString>()?;
                    image.text.extend_from_slice(made.to_cow()?.as_bytes());
                } else {
                    fragment(&mut image.text, &column.kind, raw).map_err(wrong)?;
                }
            }
            image.spans.push((start, image.text.len()));
        }
        if image.text.is_empty() {
            image.text.push(b'{');
        }
        image.text.push(b'}');
        Ok(())
    }
}

fn fragment(out: &mut Vec<u8>, kind: &Kind, raw: &[u8]) -> Res<()> {
    match kind {
        Kind::Signed => json::integer(out, signed(raw)),
        Kind::Unsigned => json::integer(out, little(raw)),
        Kind::Bool => match signed(raw) {
            0 => out.extend_from_slice(b"false"),
            1 => out.extend_from_slice(b"true"),
            other => json::integer(out, other),
        },
        Kind::Single => {
            let bytes = raw.try_into().map_err(|_| "a float of another size")?;
            json::single(out, f64::from(f32::from_le_bytes(bytes)));
        }
        Kind::Double => {
            let bytes = raw.try_into().map_err(|_| "a double of another size")?;
            json::double(out, f64::from_le_bytes(bytes));
        }
        Kind::Decimal { precision, scale } => decimal(out, raw, *precision, *scale)?,
        Kind::Date => {
            let packed = little(raw);
            out.push(b'"');
            day(out, packed >> 9, packed >> 5 & 15, packed & 31);
            out.push(b'"');
        }
        Kind::Time { part } => time(out, raw, *part),
        Kind::DateTime { part } => date_time(out, raw, *part)?,
        Kind::Timestamp { part } => timestamp(out, raw, *part),
        Kind::Text => json::quote(out, raw)?,
        Kind::Binary { width } => {
            let padding = width.saturating_sub(raw.len());
            let padded = Padded { raw, padding };
            json::base64(out, padded);
        }
        Kind::Uuid => {
            let mut bytes = [0; 16];
            bytes.get_mut(..raw.len()).ok_or("a UUID that is too long")?.copy_from_slice(raw);
            json::uuid(out, &bytes);
        }
        Kind::Enum { labels } => {
            let label = labels.get(little(raw) as usize).ok_or("an unknown label")?;
            out.extend_from_slice(label);
        }
        Kind::Call(_) | Kind::Skip => {}
    }
    Ok(())
}

/// Bytes, then zero bytes.
struct Padded<'a> {
    raw: &'a [u8],
    padding: usize,
}

impl Iterator for Padded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let Some((&first, rest)) = self.raw.split_first() {
            self.raw = rest;
            return Some(first);
        }
        self.padding = self.padding.checked_sub(1)?;
        Some(0)
    }
}

fn little(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn big(raw: &[u8]) -> u64 {
    raw.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn signed(raw: &[u8]) -> i64 {
    let unused = 64 - 8 * raw.len().clamp(1, 8) as u32;
    ((little(raw) << unused) as i64) >> unused
}

/// Whole seconds' bytes and microseconds of a value whose last `part` bytes are its fraction.
fn split(raw: &[u8], part: usize) -> (&[u8], u64) {
    let (whole, fraction) = raw.split_at(raw.len().saturating_sub(part));
    (whole, big(fraction) * [1, 10_000, 100, 1][part])
}

fn day(out: &mut Vec<u8>, year: u64, month: u64, day: u64) {
    json::padded(out, year, 4);
    out.push(b'-');
    json::padded(out, month, 2);
    out.push(b'-');
    json::padded(out, day, 2);
}

fn clock(out: &mut Vec<u8>, hours: u64, minutes: u64, seconds: u64) {
    json::padded(out, hours, 2);
    out.push(b':');
    json::padded(out, minutes, 2);
    out.push(b':');
    json::padded(out, seconds, 2);
}

fn time(out: &mut Vec<u8>, raw: &[u8], part: usize) {
    // Stored with an offset so that bytes compare as times do: negative times are below it.
    let bits = 8 * part as u32;
    let offset = 0x80_0000_i64 << bits;
    let packed = (big(raw) as i64).wrapping_sub(offset);
    let whole = packed.unsigned_abs();
    let seconds = whole >> bits;
    out.push(b'"');
    if packed < 0 {
        out.push(b'-');
    }
    clock(out, seconds >> 12 & 1023, seconds >> 6 & 63, seconds & 63);
    json::fraction(out, (whole & ((1 << bits) - 1)) * [1, 10_000, 100, 1][part]);
    out.push(b'"');
}

const ZERO_DATE: &[u8] = b"\"0000-00-00\"";

fn date_time(out: &mut Vec<u8>, raw: &[u8], part: usize) -> Res<()> {
    let (whole, micros) = split(raw, part);
    let packed = big(whole).checked_sub(1 << 39).ok_or("a negative date")?;
    if packed == 0 && micros == 0 {
        out.extend_from_slice(ZERO_DATE);
        return Ok(());
    }
    let months = packed >> 22;
    out.push(b'"');
    day(out, months / 13, months % 13, packed >> 17 & 31);
    out.push(b'T');
    clock(out, packed >> 12 & 31, packed >> 6 & 63, packed & 63);
    json::fraction(out, micros);
    out.push(b'"');
    Ok(())
}

fn timestamp(out: &mut Vec<u8>, raw: &[u8], part: usize) {
    let (whole, micros) = split(raw, part);
    let seconds = big(whole);
    if seconds == 0 && micros == 0 {
        out.extend_from_slice(ZERO_DATE);
        return;
    }
    let (year, month, of_month) = civil(seconds / 86_400);
    let rest = seconds % 86_400;
    out.push(b'"');
    day(out, year, month, of_month);
    out.push(b'T');
    clock(out, rest / 3600, rest / 60 % 60, rest % 60);
    json::fraction(out, micros);
    out.extend_from_slice(b"Z\"");
}

/// Days since 1970 -> year, month, day of the Gregorian calendar.
///
/// By Howard Hinnant's "chrono-compatible low-level date algorithms", civil_from_days.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// Bytes that hold 0-9 decimal digits.
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

fn decimal(out: &mut Vec<u8>, raw: &[u8], precision: usize, scale: usize) -> Res<()> {
    let mut bytes = [0; 32];
    let held = bytes.get_mut(..raw.len()).ok_or("a decimal that is too long")?;
    held.copy_from_slice(raw);
    let is_negative = raw.first().is_none_or(|b| b & 0x80 == 0);
    bytes[0] ^= 0x80;
    if is_negative {
        bytes[..raw.len()].iter_mut().for_each(|b| *b = !*b);
    }
    let whole = precision.checked_sub(scale).ok_or("a decimal with a long fraction")?;
    let mut groups = Cursor::new(&bytes[..raw.len()], 0);
    out.push(b'"');
    if is_negative {
        out.push(b'-');
    }
    let start = out.len();
    let mut group = |digits: usize| -> Res<u64> {
        let found = groups.big(DIGIT_BYTES[digits])?;
        if found < 10u64.pow(digits as u32) { Ok(found) } else { Err("digits that are none") }
    };
    let first = group(whole % 9)?;
    if first > 0 {
        json::integer(out, first);
    }
    for _ in 0..whole / 9 {
        let next = group(9)?;
        if out.len() > start {
            json::padded(out, next, 9);
        } else if next > 0 {
            json::integer(out, next);
        }
    }
    if out.len() == start {
        out.push(b'0');
    }
    if scale > 0 {
        out.push(b'.');
        for _ in 0..scale / 9 {
            json::padded(out, group(9)?, 9);
        }
        if scale % 9 > 0 {
            json::padded(out, group(scale % 9)?, scale % 9);
        }
    }
    out.push(b'"');
    Ok(())
}
