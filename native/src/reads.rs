//! Rows of a first copy: keys and whole envelopes, written without the interpreter.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::cursor::Res;
use crate::json;
use crate::rows::{lead, Identity};

/// A table's columns by name, and which of them make the key.
pub struct Layout {
    leads: Vec<Vec<u8>>,
    identity: Identity,
}

impl Layout {
    pub fn new(names: &[String], identity: &[usize]) -> Res<Self> {
        let leads = names.iter().map(|n| lead(n)).collect::<Res<Vec<_>>>()?;
        let given: Vec<_> = leads.iter().cloned().map(Some).collect();
        Ok(Layout { leads, identity: Identity::new(&given, identity)? })
    }

    pub fn width(&self) -> usize {
        self.leads.len()
    }
}

/// Keys, values and their size in bytes.
pub type Given = (Py<PyList>, Py<PyList>, usize);

#[derive(Default)]
pub struct Reads {
    /// Each row's value, then its key.
    text: Vec<u8>,
    /// Where each row's value ends, and where its key does.
    ends: Vec<(usize, usize)>,
    spans: Vec<(usize, usize)>,
    key: Vec<u8>,
}

impl Reads {
    /// Add a row; `write` makes one column's fragment after the other.
    pub fn row(
        &mut self,
        layout: &Layout,
        tail: &[u8],
        mut write: impl FnMut(&mut Vec<u8>, usize) -> Res<()>,
    ) -> Res<()> {
        let Reads { text, ends, spans, key } = self;
        spans.clear();
        text.extend_from_slice(b"{\"before\":null,\"after\":{");
        for (place, lead) in layout.leads.iter().enumerate() {
            if place > 0 {
                text.push(b',');
            }
            text.extend_from_slice(lead);
            let start = text.len();
            write(text, place)?;
            spans.push((start, text.len()));
        }
        text.push(b'}');
        text.extend_from_slice(tail);
        json::integer(text, ends.len());
        text.extend_from_slice(b"}}}");
        let end = text.len();
        layout.identity.key(key, |place| &text[spans[place].0..spans[place].1]);
        text.extend_from_slice(key);
        ends.push((end, text.len()));
        Ok(())
    }

    /// Whether the last row's key is null in part.
    pub fn lacks_key(&self, layout: &Layout) -> bool {
        layout.identity.places().any(|place| {
            let (start, end) = self.spans[place];
            &self.text[start..end] == b"null"
        })
    }

    /// Python's lists of them.
    pub fn give(&self, py: Python) -> PyResult<Given> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        let rows: Vec<_> = starts.zip(&self.ends).collect();
        let value = |&(start, &(end, _)): &(usize, &(usize, usize))| {
            PyBytes::new(py, &self.text[start..end])
        };
        let key = |&(_, &(start, end)): &(usize, &(usize, usize))| {
            PyBytes::new(py, &self.text[start..end])
        };
        let keys = PyList::new(py, rows.iter().map(key))?;
        let values = PyList::new(py, rows.iter().map(value))?;
        Ok((keys.unbind(), values.unbind(), self.text.len()))
    }
}
