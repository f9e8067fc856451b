//! Identities that are computed of a row's natural key. The same as schemas/derived.py.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use sha1_smol::Sha1;

use crate::cursor::{Res, LEFT};
use crate::json::{integer, uuid_text};

const BEFORE: &[u8] = b"{\"before\":{";
const AFTER: &[u8] = b"\"after\":{";
const UUID_BYTES: usize = 36;

/// Rows with their identities: keys of the natural key's columns become keys of the identity, and
/// every image gets it as its first member.
///
/// begins: the namespace's bytes and the table's part of the name. heads: what stands in a key before
/// each column's value. decimals: which columns are. member: what stands in JSON before the identity.
/// Raises ValueError for what only the Python code can judge.
#[pyfunction]
pub fn derived<'py>(
    py: Python<'py>,
    keys: &Bound<'py, PyList>,
    values: &Bound<'py, PyList>,
    begins: &[u8],
    heads: Vec<Vec<u8>>,
    decimals: Vec<bool>,
    member: &[u8],
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let wrong = pyo3::exceptions::PyValueError::new_err::<&'static str>;
    let (made_keys, made_values) = (PyList::empty(py), PyList::empty(py));
    let (mut name, mut part) = (Vec::new(), Vec::new());
    let mut said = [member, &[b'"'; UUID_BYTES + 2], b","].concat();
    let at = member.len() + 1;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for (given, row) in keys.iter().zip(values.iter()) {
        name.clear();
        name.extend_from_slice(begins);
        parts(&mut name, &mut part, given.cast::<PyBytes>()?.as_bytes(), &heads, &decimals)
            .map_err(wrong)?;
        said.truncate(at);
        uuid_text(&mut said, &version_5(&name));
        said.extend_from_slice(b"\",");
        key.clear();
        key.push(b'{');
        key.extend_from_slice(&said[..said.len() - 1]);
        key.push(b'}');
        made_keys.append(PyBytes::new(py, &key))?;
        value.clear();
        with_member(&mut value, row.cast::<PyBytes>()?.as_bytes(), &said);
        made_values.append(PyBytes::new(py, &value))?;
    }
    Ok((made_keys, made_values))
}

/// RFC 9562, 5.5; `name` begins with the namespace's bytes.
fn version_5(name: &[u8]) -> [u8; 16] {
    let digest = Sha1::from(name).digest().bytes();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x50;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// The envelope with `member` as the first one of each image.
fn with_member(out: &mut Vec<u8>, value: &[u8], member: &[u8]) {
    let mut from = 0;
    if value.starts_with(BEFORE) {
        out.extend_from_slice(BEFORE);
        out.extend_from_slice(member);
        from = BEFORE.len();
    }
    // No value is an object, and the quotes inside strings are escaped: this stands nowhere else.
    if let Some(found) = value[from..].windows(AFTER.len()).position(|some| some == AFTER) {
        let end = from + found + AFTER.len();
        out.extend_from_slice(&value[from..end]);
        out.extend_from_slice(member);
        from = end;
    }
    out.extend_from_slice(&value[from..]);
}

/// Each value of a wire key, with its length before it.
fn parts(
    out: &mut Vec<u8>,
    part: &mut Vec<u8>,
    key: &[u8],
    heads: &[Vec<u8>],
    decimals: &[bool],
) -> Res<()> {
    let mut rest = key;
    for (head, &is_decimal) in heads.iter().zip(decimals) {
        rest = rest.strip_prefix(&head[..]).ok_or(LEFT)?;
        part.clear();
        rest = one(part, rest)?;
        if is_decimal {
            plain_digits(part);
        }
        integer(out, part.len());
        out.push(b':');
        out.extend_from_slice(part);
    }
    if rest == b"}" { Ok(()) } else { Err(LEFT) }
}

/// A value as text, and what follows it.
fn one<'a>(out: &mut Vec<u8>, from: &'a [u8]) -> Res<&'a [u8]> {
    if let Some(text) = from.strip_prefix(b"\"") {
        return unquoted(out, text);
    }
    if let Some(rest) = from.strip_prefix(b"true") {
        out.push(b'1');
        return Ok(rest);
    }
    if let Some(rest) = from.strip_prefix(b"false") {
        out.push(b'0');
        return Ok(rest);
    }
    let digits = from.iter().take_while(|c| matches!(c, b'0'..=b'9' | b'-')).count();
    out.extend_from_slice(&from[..digits]);
    if digits > 0 { Ok(&from[digits..]) } else { Err(LEFT) }
}

/// A string up to its end's quote.
fn unquoted<'a>(out: &mut Vec<u8>, mut text: &'a [u8]) -> Res<&'a [u8]> {
    loop {
        let at = text.iter().position(|c| matches!(c, b'"' | b'\\')).ok_or(LEFT)?;
        out.extend_from_slice(&text[..at]);
        if text[at] == b'"' {
            return Ok(&text[at + 1..]);
        }
        let mut size = 2;
        out.push(match text.get(at + 1) {
            Some(&c @ (b'"' | b'\\')) => c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'u') => {
                let digits = text.get(at + 2..at + 6).ok_or(LEFT)?;
                let digits = std::str::from_utf8(digits).map_err(|_| LEFT)?;
                size = 6;
                let code = u8::from_str_radix(digits, 16).map_err(|_| LEFT)?;
                if code < 0x80 { code } else { return Err(LEFT) }
            }
            _ => return Err(LEFT),
        });
        text = &text[at + size..];
    }
}

/// 1.50 as 1.5, and -0.0 as 0.
fn plain_digits(text: &mut Vec<u8>) {
    if text.contains(&b'.') {
        while text.last() == Some(&b'0') {
            text.pop();
        }
        if text.last() == Some(&b'.') {
            text.pop();
        }
    }
    if text == b"-0" {
        text.remove(0);
    }
}
