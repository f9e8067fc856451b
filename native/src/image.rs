//! An envelope's after-image as members and tokens; nothing is copied or converted.

use crate::cursor::{Cursor, Res, LEFT};

/// A value in an image, as it stands there.
#[derive(Clone, Copy)]
pub enum Token<'a> {
    Null,
    /// Without its quotes.
    String { raw: &'a [u8], is_escaped: bool },
    /// A number, true or false, not looked at yet.
    Bare(&'a [u8]),
}

/// The inside of the envelope's after-image.
pub fn after(value: &[u8]) -> Res<Cursor<'_>> {
    let mut cursor = Cursor::new(value, 0);
    if next(&mut cursor)? != b'{' {
        return Err(LEFT);
    }
    let mut is_first = true;
    while let Some(name) = member(&mut cursor, is_first)? {
        is_first = false;
        if name == b"\"after\"" {
            return if next(&mut cursor)? == b'{' { Ok(cursor) } else { Err(LEFT) };
        }
        skip(&mut cursor)?;
    }
    Err(LEFT)
}

/// The next byte that is no blank.
#[inline]
fn next(cursor: &mut Cursor) -> Res<u8> {
    loop {
        let byte = cursor.byte()?;
        if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(byte);
        }
    }
}

/// The name of an object's next member, quotes included; None at the object's end.
#[inline]
pub fn member<'a>(cursor: &mut Cursor<'a>, is_first: bool) -> Res<Option<&'a [u8]>> {
    let mut byte = next(cursor)?;
    if byte == b'}' {
        return Ok(None);
    }
    if !is_first {
        if byte != b',' {
            return Err(LEFT);
        }
        byte = next(cursor)?;
    }
    if byte != b'"' {
        return Err(LEFT);
    }
    let start = cursor.at - 1;
    string(cursor)?;
    let name = cursor.data.get(start..cursor.at).ok_or(LEFT)?;
    if next(cursor)? != b':' {
        return Err(LEFT);
    }
    Ok(Some(name))
}

/// Whether the string that begins here has escapes; the cursor goes behind its closing quote.
#[inline]
fn string(cursor: &mut Cursor) -> Res<bool> {
    let mut is_escaped = false;
    loop {
        cursor.at = plain_until(cursor.data, cursor.at);
        match cursor.byte()? {
            b'"' => return Ok(is_escaped),
            b'\\' => {
                is_escaped = true;
                cursor.byte()?;
            }
            _ => return Err(LEFT),
        }
    }
}

/// Where the next quote, backslash or control character stands; the end where there is none.
#[inline]
fn plain_until(data: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([128; 8]);
    // Eight bytes at a time: whether one of them is below `n`, or equals `c`.
    // https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord
    let less = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & TOPS;
    let has = |word: u64, c: u8| less(word ^ (ONES * u64::from(c)), 1);
    while let Some(Ok(word)) = data.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let word = u64::from_ne_bytes(word);
        if less(word, 0x20) | has(word, b'"') | has(word, b'\\') != 0 {
            break;
        }
        at += 8;
    }
    let is_plain = |c: &u8| *c >= 0x20 && *c != b'"' && *c != b'\\';
    at + data.get(at..).map_or(0, |rest| rest.iter().take_while(|c| is_plain(c)).count())
}

/// A value of an image.
#[inline]
pub fn token<'a>(cursor: &mut Cursor<'a>) -> Res<Token<'a>> {
    let byte = next(cursor)?;
    let start = cursor.at;
    if byte == b'"' {
        let is_escaped = string(cursor)?;
        let raw = cursor.data.get(start..cursor.at - 1).ok_or(LEFT)?;
        return Ok(Token::String { raw, is_escaped });
    }
    let rest = cursor.data.get(start - 1..).ok_or(LEFT)?;
    let size = rest.iter().take_while(|c| !matches!(c, b',' | b'}' | b' ' | b'\n')).count();
    let bare = cursor.data.get(start - 1..start - 1 + size).ok_or(LEFT)?;
    cursor.at = start - 1 + size;
    Ok(if bare == b"null" { Token::Null } else { Token::Bare(bare) })
}

/// Go past a value of any kind.
fn skip(cursor: &mut Cursor) -> Res<()> {
    let mut depth = 0usize;
    loop {
        match next(cursor)? {
            b'"' => {
                string(cursor)?;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1).ok_or(LEFT)?,
            _ => {}
        }
        if depth == 0 && cursor.data.get(cursor.at).is_none_or(|c| matches!(c, b',' | b'}')) {
            return Ok(());
        }
    }
}

/// A string's text.
pub fn unescape(out: &mut Vec<u8>, raw: &[u8]) -> Res<()> {
    out.clear();
    let mut cursor = Cursor::new(raw, 0);
    while !cursor.is_at_end() {
        let byte = cursor.byte()?;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match cursor.byte()? {
            c @ (b'"' | b'\\' | b'/') => out.push(c),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code = four(&mut cursor)?;
                if (0xd800..0xdc00).contains(&code) {
                    if cursor.take(2)? != b"\\u" {
                        return Err(LEFT);
                    }
                    let low = four(&mut cursor)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(LEFT);
                    }
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let found = char::from_u32(code).ok_or(LEFT)?;
                out.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(LEFT),
        }
    }
    Ok(())
}

fn four(cursor: &mut Cursor) -> Res<u32> {
    cursor.take(4)?.iter().try_fold(0, |code, &c| {
        char::from(c).to_digit(16).map(|digit| code << 4 | digit).ok_or(LEFT)
    })
}
