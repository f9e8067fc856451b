//! Finished rows: keys and values on their way into Python's lists, and the envelope around images.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::cursor::Res;
use crate::json;

/// The parts of an envelope after its images, up to the ordinal: codec.Envelope.tails.
#[derive(FromPyObject)]
pub struct Tails {
    create: Vec<u8>,
    update: Vec<u8>,
    delete: Vec<u8>,
    moved: Vec<u8>,
}

/// Rows of one call. Python's lists get them at its end only: a call that fails adds nothing.
#[derive(Default)]
pub struct Rows {
    ops: String,
    keys: Vec<Py<PyBytes>>,
    values: Vec<Py<PyBytes>>,
    buffer: Vec<u8>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn create(&mut self, py: Python, tails: &Tails, key: &[u8], after: &[u8], ordinal: u64) {
        self.add(py, 'c', key, b"null", Some(after), &tails.create, ordinal);
    }

    pub fn update(
        &mut self,
        py: Python,
        tails: &Tails,
        key: &[u8],
        before: &[u8],
        after: &[u8],
        ordinal: u64,
    ) {
        self.add(py, 'u', key, before, Some(after), &tails.update, ordinal);
    }

    pub fn delete(&mut self, py: Python, tails: &Tails, key: &[u8], before: &[u8], ordinal: u64) {
        self.add(py, 'd', key, before, None, &tails.delete, ordinal);
    }

    /// The old identity of a row whose identity was changed; its new one is created next.
    pub fn moved(&mut self, py: Python, tails: &Tails, key: &[u8], before: &[u8], ordinal: u64) {
        self.add(py, 'd', key, before, None, &tails.moved, ordinal);
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        py: Python,
        op: char,
        key: &[u8],
        before: &[u8],
        after: Option<&[u8]>,
        tail: &[u8],
        ordinal: u64,
    ) {
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(b"{\"before\":");
        out.extend_from_slice(before);
        // A delete's tail begins with its after, which is null.
        if let Some(after) = after {
            out.extend_from_slice(b",\"after\":");
            out.extend_from_slice(after);
        }
        out.extend_from_slice(tail);
        json::integer(out, ordinal);
        out.extend_from_slice(b"}}}");
        self.ops.push(op);
        self.keys.push(PyBytes::new(py, key).unbind());
        self.values.push(PyBytes::new(py, out).unbind());
    }

    /// Append everything to Python's lists.
    pub fn give(
        self,
        py: Python,
        ops: Option<&Bound<PyList>>,
        keys: &Bound<PyList>,
        values: &Bound<PyList>,
    ) -> PyResult<()> {
        if let Some(ops) = ops {
            for op in self.ops.chars() {
                let text = match op {
                    'c' => pyo3::intern!(py, "c"),
                    'u' => pyo3::intern!(py, "u"),
                    _ => pyo3::intern!(py, "d"),
                };
                ops.append(text)?;
            }
        }
        for (key, value) in self.keys.into_iter().zip(self.values) {
            keys.append(key)?;
            values.append(value)?;
        }
        Ok(())
    }
}

/// The identity's columns: where each stands among the columns, and its name as JSON with a colon.
pub struct Identity(Vec<(usize, Vec<u8>)>);

impl Identity {
    pub fn new(leads: &[Option<Vec<u8>>], places: &[usize]) -> Res<Self> {
        let one = |&place: &usize| match leads.get(place) {
            Some(Some(lead)) => Ok((place, lead.clone())),
            _ => Err("an identity's column is not among the columns"),
        };
        Ok(Identity(places.iter().map(one).collect::<Res<_>>()?))
    }

    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|(place, _)| *place)
    }

    /// Write the key of a row whose fragments `of` gives.
    pub fn key<'a>(&self, out: &mut Vec<u8>, of: impl Fn(usize) -> &'a [u8]) {
        out.clear();
        for (nth, (place, lead)) in self.0.iter().enumerate() {
            out.push(if nth == 0 { b'{' } else { b',' });
            out.extend_from_slice(lead);
            out.extend_from_slice(of(*place));
        }
        out.push(b'}');
    }
}

/// A column's name as it stands in an image: JSON with a colon.
pub fn lead(name: &str) -> Res<Vec<u8>> {
    let mut out = Vec::new();
    json::quote(&mut out, name.as_bytes())?;
    out.push(b':');
    Ok(out)
}
