//! One batch's rows among others, by the stamps at their ends. The same as schemas/codec.py.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::cursor::{Res, LEFT};

const BEGINS: &[u8] = b"\"headwater\":{\"schema\":\"";
const ENDS: &[u8] = b"}}}";
const OP: &[u8] = b",\"op\":\"";

/// Rows of one description: its fingerprint, which rows (None: all), their ordinals and their ops.
type Stamped = (String, Option<Vec<usize>>, Py<PyList>, Py<PyList>);

struct Found<'py> {
    fingerprint: Vec<u8>,
    at: Vec<usize>,
    ordinals: Bound<'py, PyList>,
    ops: Bound<'py, PyList>,
}

/// The rows of `values` that have this epoch and run, in stamps of at most `longest` bytes.
///
/// Raises ValueError for what only the Python code can judge.
#[pyfunction]
pub fn stamps<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyList>,
    epoch: u64,
    run: u64,
    longest: usize,
) -> PyResult<Vec<Stamped>> {
    let wrong = pyo3::exceptions::PyValueError::new_err::<&'static str>;
    let numbers = format!("\",\"epoch\":{epoch},\"run\":{run},\"ordinal\":").into_bytes();
    let mut all: Vec<Found> = Vec::new();
    // What stands from the last row's op up to its ordinal: mostly the same in the next one.
    let (mut tail, mut latest, mut op) = (Vec::new(), 0, pyo3::intern!(py, "s").clone());
    for (at, value) in values.iter().enumerate() {
        let value = value.cast::<PyBytes>()?.as_bytes();
        let Some((head, digits)) = ordinal_split(value) else { continue };
        if tail.is_empty() || !head.ends_with(&tail) {
            let Some(fingerprint) = fingerprint(value, head, &numbers, longest) else { continue };
            let op_at = head.windows(OP.len()).rposition(|some| some == OP);
            op = letter(py, op_at.map(|at| value[at + OP.len()])).map_err(wrong)?;
            tail = op_at.map_or(Vec::new(), |at| head[at..].to_vec());
            let known = all.iter().position(|found| found.fingerprint == fingerprint);
            latest = known.unwrap_or(all.len());
            if known.is_none() {
                all.push(Found {
                    fingerprint: fingerprint.to_vec(),
                    at: Vec::new(),
                    ordinals: PyList::empty(py),
                    ops: PyList::empty(py),
                });
            }
        }
        let ordinal = number(digits).map_err(wrong)?;
        let found = &mut all[latest];
        found.at.push(at);
        found.ordinals.append(ordinal)?;
        found.ops.append(&op)?;
    }
    let given = all.into_iter().map(|found| {
        // Hexadecimal digits, as `stamp` saw.
        let fingerprint = String::from_utf8_lossy(&found.fingerprint).into_owned();
        let some = (found.at.len() < values.len()).then_some(found.at);
        (fingerprint, some, found.ordinals.unbind(), found.ops.unbind())
    });
    Ok(given.collect())
}

/// What stands before a stamp's ordinal, and the ordinal's digits; None: there is no stamp.
fn ordinal_split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, digits) = split_while(value.strip_suffix(ENDS)?, u8::is_ascii_digit);
    (!digits.is_empty()).then_some((head, digits))
}

/// The fingerprint of a row that has these numbers; None: it is another's.
fn fingerprint<'a>(
    value: &[u8],
    head: &'a [u8],
    numbers: &[u8],
    longest: usize,
) -> Option<&'a [u8]> {
    let is_hex = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    let (head, fingerprint) = split_while(head.strip_suffix(numbers)?, is_hex);
    let size = value.len() - head.strip_suffix(BEGINS)?.len();
    (size <= longest).then_some(fingerprint)
}

/// What stands before the longest end of `bytes` all of which fits, and that end.
fn split_while(bytes: &[u8], fits: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let at = bytes.iter().rposition(|c| !fits(c)).map_or(0, |at| at + 1);
    bytes.split_at(at)
}

fn number(digits: &[u8]) -> Res<u64> {
    let mut number = 0u64;
    for digit in digits {
        let next = number.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit - b'0')));
        number = next.ok_or(LEFT)?;
    }
    Ok(number)
}

/// An op as Python's text; seeds have none. An unescaped `,"op":"` occurs last at the envelope's
/// top level.
fn letter(py: Python, op: Option<u8>) -> Res<Bound<PyString>> {
    let text = match op {
        None => pyo3::intern!(py, "s"),
        Some(b'c') => pyo3::intern!(py, "c"),
        Some(b'u') => pyo3::intern!(py, "u"),
        Some(b'd') => pyo3::intern!(py, "d"),
        Some(b'r') => pyo3::intern!(py, "r"),
        _ => return Err(LEFT),
    };
    Ok(text.clone())
}
