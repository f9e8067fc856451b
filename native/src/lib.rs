//! The compiled hot path: wire bytes to wire bytes, the same bytes that the Python code writes.
//!
//! Nothing here knows a server or a log, and nothing panics on hostile input: what cannot be read is
//! an error, and the caller's lists stay as they were.

mod binlog;
mod copied;
mod cursor;
mod derived;
mod image;
mod json;
mod known;
mod mysql_text;
mod pgoutput;
mod postgres_text;
mod reads;
mod results;
mod rows;
mod stage;
mod stamps;

use pyo3::prelude::*;

#[pymodule]
mod headwater_native {
    #[pymodule_export]
    use super::binlog::ImageDecoder;
    #[pymodule_export]
    use super::copied::CopyEncoder;
    #[pymodule_export]
    use super::derived::derived;
    #[pymodule_export]
    use super::known::Known;
    #[pymodule_export]
    use super::pgoutput::TupleEncoder;
    #[pymodule_export]
    use super::results::ResultEncoder;
    #[pymodule_export]
    use super::stage::Stager;
    #[pymodule_export]
    use super::stamps::stamps;

    /// Raised with every change of a signature: schemas/native.py takes only the one it knows.
    #[pymodule_export]
    const INTERFACE: u32 = 8;
}
