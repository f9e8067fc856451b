//! A query's rows in MySQL's text protocol -> wire rows. The same bytes as capture/mysql_chunk.py.
//!
//! Formats: MySQL's manual of the client/server protocol, "Text Resultset" and "MySQL Packets".

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::cursor::{Cursor, Res, LEFT};
use crate::mysql_text::{fragment, Kind};
use crate::reads::{Given, Layout, Reads};

/// A payload of this size goes on in the next packet.
const LONGEST: usize = 0xff_ffff;

/// Takes the rows of one result in, as they arrive; see capture/mysql_native.py.
#[pyclass]
pub struct ResultEncoder {
    columns: Vec<Kind>,
    layout: Layout,
    tail: Vec<u8>,
    reads: Reads,
    /// The beginning of a packet whose end has not arrived.
    waiting: Vec<u8>,
    /// The beginning of a payload that goes on in the next packet.
    split: Vec<u8>,
    last: Vec<u8>,
}

#[pymethods]
impl ResultEncoder {
    /// columns: (name, kind); what a row holds behind them is for Python only.
    #[new]
    fn new(columns: Vec<(String, String)>, identity: Vec<usize>, tail: Vec<u8>) -> PyResult<Self> {
        let wrong = PyValueError::new_err::<&'static str>;
        let names: Vec<String> = columns.iter().map(|c| c.0.clone()).collect();
        let layout = Layout::new(&names, &identity).map_err(wrong)?;
        let columns: Vec<Kind> =
            columns.iter().map(|c| Kind::named(&c.1)).collect::<Res<_>>().map_err(wrong)?;
        Ok(ResultEncoder {
            columns,
            layout,
            tail,
            reads: Reads::default(),
            waiting: Vec::new(),
            split: Vec::new(),
            last: Vec::new(),
        })
    }

    /// Take in what has arrived; once it is there, the payload that ends the rows (EOF or ERR).
    ///
    /// Raises ValueError for what only the Python code can judge: the rows are lost then.
    fn feed<'py>(
        &mut self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let data = data.as_bytes();
        let end = py.detach(|| self.take(data)).map_err(PyValueError::new_err)?;
        Ok(end.map(|payload| PyBytes::new(py, &payload)))
    }

    /// Keys, values, their size, and the last row's payload.
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<(Given, Bound<'py, PyBytes>)> {
        Ok((self.reads.give(py)?, PyBytes::new(py, &self.last)))
    }
}

impl ResultEncoder {
    fn take(&mut self, data: &[u8]) -> Res<Option<Vec<u8>>> {
        if self.waiting.is_empty() {
            let (at, end) = self.packets(data)?;
            self.waiting.extend_from_slice(&data[at..]);
            return Ok(end);
        }
        let mut joined = std::mem::take(&mut self.waiting);
        joined.extend_from_slice(data);
        let (at, end) = self.packets(&joined)?;
        // A long packet comes in many pieces: what waits is not copied with each of them.
        self.waiting = if at == 0 { joined } else { joined[at..].to_vec() };
        Ok(end)
    }

    /// Take in whole packets; where the first stands that is not, and what ended the rows.
    fn packets(&mut self, data: &[u8]) -> Res<(usize, Option<Vec<u8>>)> {
        let mut from = Cursor::new(data, 0);
        while data.len() - from.at >= 4 {
            let start = from.at;
            let size = from.little(3)? as usize;
            from.at += 1; // the packet's number
            if data.len() - from.at < size {
                from.at = start;
                break;
            }
            let payload = from.take(size)?;
            if size == LONGEST || !self.split.is_empty() {
                self.split.extend_from_slice(payload);
                if size < LONGEST {
                    let whole = std::mem::take(&mut self.split);
                    self.row(&whole)?;
                }
                continue;
            }
            if matches!(payload, [0xff, ..]) || (size < 9 && matches!(payload, [0xfe, ..])) {
                let is_last = from.is_at_end();
                return if is_last { Ok((from.at, Some(payload.to_vec()))) } else { Err(LEFT) };
            }
            self.row(payload)?;
        }
        Ok((from.at, None))
    }

    fn row(&mut self, payload: &[u8]) -> Res<()> {
        let mut from = Cursor::new(payload, 0);
        let columns = &self.columns;
        self.reads.row(&self.layout, &self.tail, |out, place| {
            let size = match from.byte()? {
                0xfb => {
                    out.extend_from_slice(b"null");
                    return Ok(());
                }
                0xfc => from.little(2)? as usize,
                0xfd => from.little(3)? as usize,
                0xfe => from.little(8)? as usize,
                0xff => return Err(LEFT),
                size => usize::from(size),
            };
            fragment(out, columns[place], from.take(size)?)
        })?;
        self.last.clear();
        self.last.extend_from_slice(payload);
        Ok(())
    }
}
