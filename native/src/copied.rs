//! Rows in COPY's text format -> wire rows. The same bytes as capture/postgres_chunk.py.
//!
//! Format: PostgreSQL's manual, COPY, "Text Format".

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::cursor::{Res, LEFT};
use crate::postgres_text::{fragment, Kind};
use crate::reads::{Given, Layout, Reads};

/// Writes the rows of one table; see capture/postgres_native.py.
#[pyclass(frozen)]
pub struct CopyEncoder {
    columns: Vec<(Kind, bool)>,
    layout: Layout,
}

#[pymethods]
impl CopyEncoder {
    /// columns: (name, blank-padded, kind).
    #[new]
    fn new(columns: Vec<(String, bool, String)>, identity: Vec<usize>) -> PyResult<Self> {
        let wrong = PyValueError::new_err::<&'static str>;
        let names: Vec<String> = columns.iter().map(|c| c.0.clone()).collect();
        let layout = Layout::new(&names, &identity).map_err(wrong)?;
        let columns = columns
            .iter()
            .map(|(_, is_padded, kind)| Ok((Kind::named(kind)?, *is_padded)))
            .collect::<Res<_>>()
            .map_err(wrong)?;
        Ok(CopyEncoder { columns, layout })
    }

    /// Keys, values and their size. Raises ValueError for what only the Python code can judge.
    fn encode(&self, py: Python, data: &Bound<PyBytes>, tail: Vec<u8>) -> PyResult<Given> {
        let data = data.as_bytes();
        let reads = py.detach(|| self.rows(data, &tail)).map_err(PyValueError::new_err)?;
        reads.give(py)
    }
}

impl CopyEncoder {
    fn rows(&self, data: &[u8], tail: &[u8]) -> Res<Reads> {
        let mut reads = Reads::default();
        let (mut at, mut plain, last) = (0, Vec::new(), self.layout.width().wrapping_sub(1));
        while at < data.len() {
            reads.row(&self.layout, tail, |out, place| {
                let (end, is_escaped) = field(data, at)?;
                let raw = &data[at..end];
                if data[end] != if place == last { b'\n' } else { b'\t' } {
                    return Err(LEFT);
                }
                at = end + 1;
                if raw == b"\\N" {
                    out.extend_from_slice(b"null");
                    return Ok(());
                }
                let (kind, is_padded) = self.columns[place];
                if is_escaped {
                    unescape(&mut plain, raw)?;
                    return fragment(out, kind, is_padded, &plain);
                }
                fragment(out, kind, is_padded, raw)
            })?;
            if reads.lacks_key(&self.layout) {
                return Err(LEFT);
            }
        }
        Ok(reads)
    }
}

/// Where the field that begins here ends, and whether it has a backslash.
#[inline]
fn field(data: &[u8], at: usize) -> Res<(usize, bool)> {
    let mut is_escaped = false;
    for (end, &byte) in data.iter().enumerate().skip(at) {
        match byte {
            b'\t' | b'\n' => return Ok((end, is_escaped)),
            b'\\' => is_escaped = true,
            _ => {}
        }
    }
    Err(LEFT)
}

fn unescape(out: &mut Vec<u8>, raw: &[u8]) -> Res<()> {
    out.clear();
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match *bytes.next().ok_or(LEFT)? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => other,
            },
            other => other,
        });
    }
    Ok(())
}
