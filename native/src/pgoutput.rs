//! Row messages of pgoutput -> wire rows. The same bytes as capture/postgres_rows.py.
//!
//! Formats: PostgreSQL's protocol-logicalrep-message-formats and protocol-replication.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::cursor::{Cursor, Res, LEFT};
use crate::postgres_text::{self, Kind};
use crate::rows::{lead, Identity, Rows, Tails};

/// Where a row message has its kind: after `w`, two positions and a clock.
const KIND_AT: usize = 25;
/// Where its first tuple stands: a letter, then the tuple.
const ROW_AT: usize = 30;

struct Column {
    lead: Option<Vec<u8>>,
    in_key: bool,
    is_padded: bool,
    kind: Kind,
}

/// One column from Python: (name or None to step over it, in the replica identity, blank-padded,
/// kind).
#[derive(FromPyObject)]
struct Given(Option<String>, bool, bool, String);

impl Given {
    fn column(self) -> Res<Column> {
        let Given(name, in_key, is_padded, kind) = self;
        let kind = Kind::named(&kind)?;
        Ok(Column { lead: name.map(|n| lead(&n)).transpose()?, in_key, is_padded, kind })
    }
}

/// A tuple's fragments by column; None: the log did not carry it, or it is stepped over.
#[derive(Default)]
struct Tuple {
    text: Vec<u8>,
    spans: Vec<Option<(usize, usize)>>,
}

impl Tuple {
    fn fragment(&self, place: usize) -> Option<&[u8]> {
        self.spans[place].map(|(start, end)| &self.text[start..end])
    }
}

/// Writes the rows of one relation under one description; see capture/postgres_native.py.
#[pyclass(frozen)]
pub struct TupleEncoder {
    columns: Vec<Column>,
    identity: Identity,
    logs_identity: bool,
}

/// What one call works with.
#[derive(Default)]
struct Work {
    old: Tuple,
    new: Tuple,
    before: Vec<u8>,
    after: Vec<u8>,
    old_key: Vec<u8>,
    new_key: Vec<u8>,
    rows: Rows,
    is_partial: bool,
}

#[pymethods]
impl TupleEncoder {
    #[new]
    fn new(columns: Vec<Given>, identity: Vec<usize>) -> PyResult<Self> {
        let wrong = PyValueError::new_err::<&'static str>;
        let columns: Vec<Column> =
            columns.into_iter().map(Given::column).collect::<Res<_>>().map_err(wrong)?;
        let leads: Vec<Option<Vec<u8>>> = columns.iter().map(|c| c.lead.clone()).collect();
        let identity = Identity::new(&leads, &identity).map_err(wrong)?;
        let logs_identity = identity.places().all(|place| columns[place].in_key);
        Ok(TupleEncoder { columns, identity, logs_identity })
    }

    /// Append the rows of messages[start:] up to the first that Python must judge.
    ///
    /// Gives where that is (the messages' number, if nowhere), the next ordinal, and whether some
    /// row lacks columns.
    #[allow(clippy::too_many_arguments)]
    fn encode(
        &self,
        py: Python,
        messages: &Bound<PyList>,
        start: usize,
        ordinal: u64,
        tails: Tails,
        ops: &Bound<PyList>,
        keys: &Bound<PyList>,
        values: &Bound<PyList>,
    ) -> PyResult<(usize, u64, bool)> {
        let (mut work, mut at) = (Work::default(), start);
        for message in messages.iter().skip(start) {
            let message = message.cast::<PyBytes>()?.as_bytes();
            let next = ordinal + work.rows.len() as u64;
            if self.message(py, message, next, &tails, &mut work).is_err() {
                break;
            }
            at += 1;
        }
        let next = ordinal + work.rows.len() as u64;
        work.rows.give(py, Some(ops), keys, values)?;
        Ok((at, next, work.is_partial))
    }
}

impl TupleEncoder {
    /// Add the rows of one message, or nothing and an error.
    fn message(
        &self,
        py: Python,
        message: &[u8],
        ordinal: u64,
        tails: &Tails,
        work: &mut Work,
    ) -> Res<()> {
        let kind = *message.get(KIND_AT).ok_or(LEFT)?;
        let mut from = Cursor::new(message, ROW_AT);
        let letter = from.byte()?;
        if kind == b'I' {
            self.read(&mut from, &mut work.new)?;
            self.key(&work.new, &mut work.new_key)?;
            if self.image(&work.new, &mut work.after, |_| true) {
                return Err(LEFT);
            }
            work.rows.create(py, tails, &work.new_key, &work.after, ordinal);
            return Ok(());
        }
        if !self.logs_identity {
            return Err(LEFT);
        }
        let is_whole = letter == b'O';
        if kind == b'D' {
            self.read(&mut from, &mut work.old)?;
            self.key(&work.old, &mut work.old_key)?;
            self.image(&work.old, &mut work.before, |c| is_whole || c.in_key);
            work.rows.delete(py, tails, &work.old_key, &work.before, ordinal);
            return Ok(());
        }
        if kind != b'U' {
            return Err(LEFT);
        }
        let has_old = letter != b'N';
        if has_old {
            self.read(&mut from, &mut work.old)?;
            from.byte()?;
        }
        self.read(&mut from, &mut work.new)?;
        if has_old {
            self.fill(&work.old, &mut work.new, is_whole);
        }
        let same = |place| work.old.fragment(place) == work.new.fragment(place);
        if !has_old || self.identity.places().all(same) {
            self.key(&work.new, &mut work.new_key)?;
            if has_old && is_whole {
                self.image(&work.old, &mut work.before, |_| true);
            } else {
                work.before.clear();
                work.before.extend_from_slice(b"null");
            }
            work.is_partial |= self.image(&work.new, &mut work.after, |_| true);
            let Work { rows, new_key, before, after, .. } = work;
            rows.update(py, tails, new_key, before, after, ordinal);
            return Ok(());
        }
        self.key(&work.old, &mut work.old_key)?;
        self.key(&work.new, &mut work.new_key)?;
        if self.image(&work.new, &mut work.after, |_| true) {
            return Err(LEFT);
        }
        self.image(&work.old, &mut work.before, |c| is_whole || c.in_key);
        work.rows.moved(py, tails, &work.old_key, &work.before, ordinal);
        work.rows.create(py, tails, &work.new_key, &work.after, ordinal + 1);
        Ok(())
    }

    fn read(&self, from: &mut Cursor, tuple: &mut Tuple) -> Res<()> {
        tuple.text.clear();
        tuple.spans.clear();
        if from.big(2)? != self.columns.len() as u64 {
            return Err(LEFT);
        }
        for column in &self.columns {
            let start = tuple.text.len();
            let is_carried = match from.byte()? {
                b't' => {
                    let size = from.big(4)? as usize;
                    let raw = from.take(size)?;
                    if column.lead.is_some() {
                        postgres_text::fragment(
                            &mut tuple.text,
                            column.kind,
                            column.is_padded,
                            raw,
                        )?;
                    }
                    true
                }
                b'n' => {
                    tuple.text.extend_from_slice(b"null");
                    true
                }
                b'u' => false,
                _ => return Err(LEFT),
            };
            let span = (start, tuple.text.len());
            tuple.spans.push((is_carried && column.lead.is_some()).then_some(span));
        }
        Ok(())
    }

    /// A value that did not change stands in the old row, where that was logged.
    fn fill(&self, old: &Tuple, new: &mut Tuple, is_whole: bool) {
        for (place, column) in self.columns.iter().enumerate() {
            if new.spans[place].is_some() || !(is_whole || column.in_key) {
                continue;
            }
            if let Some(fragment) = old.fragment(place) {
                let start = new.text.len();
                new.text.extend_from_slice(fragment);
                new.spans[place] = Some((start, new.text.len()));
            }
        }
    }

    fn key(&self, tuple: &Tuple, out: &mut Vec<u8>) -> Res<()> {
        for place in self.identity.places() {
            if matches!(tuple.fragment(place), None | Some(b"null")) {
                return Err(LEFT);
            }
        }
        self.identity.key(out, |place| tuple.fragment(place).unwrap_or_default());
        Ok(())
    }

    /// Write a row's JSON object; whether it lacks a wanted column.
    fn image(&self, tuple: &Tuple, out: &mut Vec<u8>, wants: impl Fn(&Column) -> bool) -> bool {
        let mut lacks = false;
        out.clear();
        out.push(b'{');
        for (place, column) in self.columns.iter().enumerate() {
            let Some(lead) = &column.lead else { continue };
            if !wants(column) {
                continue;
            }
            let Some(fragment) = tuple.fragment(place) else {
                lacks = true;
                continue;
            };
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(lead);
            out.extend_from_slice(fragment);
        }
        out.push(b'}');
        lacks
    }
}
