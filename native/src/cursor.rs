//! A reader over bytes that nobody vouches for: every step is checked, no step panics.

/// Why bytes could not be read; never holds any of them.
pub type Res<T> = Result<T, &'static str>;

/// Why something is not taken: it is rare, or wrong, and the Python code knows what to say of it.
pub const LEFT: &str = "left to the Python code";

const SHORT: &str = "the bytes end too early";

pub struct Cursor<'a> {
    pub data: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(data: &'a [u8], at: usize) -> Self {
        Cursor { data, at }
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.data.len()
    }

    #[inline]
    pub fn take(&mut self, size: usize) -> Res<&'a [u8]> {
        let end = self.at.checked_add(size).ok_or(SHORT)?;
        let found = self.data.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(found)
    }

    #[inline]
    pub fn byte(&mut self) -> Res<u8> {
        let found = *self.data.get(self.at).ok_or(SHORT)?;
        self.at += 1;
        Ok(found)
    }

    /// An unsigned little-endian number of at most eight bytes.
    #[inline]
    pub fn little(&mut self, size: usize) -> Res<u64> {
        Ok(self.take(size)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    /// An unsigned big-endian number of at most eight bytes.
    #[inline]
    pub fn big(&mut self, size: usize) -> Res<u64> {
        Ok(self.take(size)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }
}
