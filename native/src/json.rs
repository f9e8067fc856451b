//! Fragments of JSON text, byte for byte as schemas/codec.py and its callers write them.

use crate::cursor::Res;

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A string; refuses what is not UTF-8.
pub fn quote(out: &mut Vec<u8>, text: &[u8]) -> Res<()> {
    std::str::from_utf8(text).map_err(|_| "text that is not UTF-8")?;
    out.push(b'"');
    let mut from = 0;
    for (at, &c) in text.iter().enumerate() {
        if c >= 0x20 && c != b'"' && c != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        match c {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', c]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(c >> 4)], HEX[usize::from(c & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text[from..]);
    out.push(b'"');
    Ok(())
}

/// ASCII text that needs no escape.
pub fn quote_plain(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Binary, with padding.
pub fn base64(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    out.push(b'"');
    let (mut group, mut held) = (0u32, 0);
    let put = |out: &mut Vec<u8>, group: u32, held: usize| {
        for k in 0..4 {
            let digit = BASE64[(group >> (18 - 6 * k) & 63) as usize];
            out.push(if k > held { b'=' } else { digit });
        }
    };
    for byte in bytes {
        group |= u32::from(byte) << (16 - 8 * held);
        held += 1;
        if held == 3 {
            put(out, group, 3);
            (group, held) = (0, 0);
        }
    }
    if held > 0 {
        put(out, group, held);
    }
    out.push(b'"');
}

/// A UUID's sixteen bytes.
pub fn uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    out.push(b'"');
    uuid_text(out, bytes);
    out.push(b'"');
}

/// The same without quotes.
pub fn uuid_text(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

pub fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A number with leading zeros, as wide as `width` or wider.
#[inline]
pub fn padded(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

/// `.5` for 500,000 microseconds; nothing for 0.
pub fn fraction(out: &mut Vec<u8>, micros: u64) {
    if micros > 0 {
        out.push(b'.');
        padded(out, micros, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// A float of 64 bits: the shortest digits that give it back, specials as strings.
pub fn double(out: &mut Vec<u8>, number: f64) {
    if !special(out, number) {
        shortest(out, number);
    }
}

/// A float of 32 bits, by the same steps as codec.float_fragment: 6 to 9 digits.
pub fn single(out: &mut Vec<u8>, number: f64) {
    if special(out, number) {
        return;
    }
    for digits in 5..9 {
        let text = format!("{number:.digits$e}");
        if let Ok(read) = text.parse::<f64>() {
            if f64::from(read as f32) == number {
                return shortest(out, read);
            }
        }
    }
    shortest(out, number);
}

fn special(out: &mut Vec<u8>, number: f64) -> bool {
    let text: &[u8] = if number.is_nan() {
        b"NaN"
    } else if number == f64::INFINITY {
        b"Infinity"
    } else if number == f64::NEG_INFINITY {
        b"-Infinity"
    } else {
        return false;
    };
    quote_plain(out, text);
    true
}

/// As Python's repr: a plain number from 1e-4 to 1e16, else with an exponent of two digits at least.
///
/// Ryū and Python choose the same digits, also where two are as near; the standard library does not.
fn shortest(out: &mut Vec<u8>, number: f64) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let written: Vec<u8> = whole.bytes().chain(part.bytes()).collect();
    let zeros = written.iter().take_while(|&&d| d == b'0').count();
    let end = written.iter().rposition(|&d| d != b'0').map_or(zeros, |at| at + 1);
    let digits = if zeros < end { &written[zeros..end] } else { b"0" };
    let shift = if zeros < end { whole.len() as i32 - 1 - zeros as i32 } else { 0 };
    let exponent = exponent.parse::<i32>().unwrap_or(0) + shift;
    if number.is_sign_negative() {
        out.push(b'-');
    }
    if (-4..16).contains(&exponent) {
        if exponent < 0 {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
            out.extend_from_slice(digits);
            return;
        }
        let whole = exponent as usize + 1;
        out.extend_from_slice(&digits[..whole.min(digits.len())]);
        out.extend(std::iter::repeat_n(b'0', whole.saturating_sub(digits.len())));
        out.push(b'.');
        out.extend_from_slice(digits.get(whole..).filter(|d| !d.is_empty()).unwrap_or(b"0"));
        return;
    }
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.push(b'e');
    out.push(if exponent < 0 { b'-' } else { b'+' });
    padded(out, u64::from(exponent.unsigned_abs()), 2);
}
