//! What sources' keys mean, as far as it was met lately: a bounded memory beside
//! headwater_identity, with the semantics of apply/known.py.

use std::collections::{HashMap, HashSet};

use pyo3::prelude::*;

use crate::json;

/// The entries of a generation that are a number and a UUID: 2^20 slots of a table, seven of eight
/// full, 25 bytes each.
const SMALL: usize = 917_504;
/// Bytes of a generation's other entries, about.
const LARGE_BYTES: usize = 24 << 20;
const LARGE_EACH: usize = 96;

#[derive(Default)]
struct Generation {
    /// Table and number in one word -> UUID.
    small: HashMap<u64, [u8; 16]>,
    large: HashMap<u32, HashMap<Box<[u8]>, Box<[u8]>>>,
    large_bytes: usize,
}

impl Generation {
    fn find(&self, table: u32, key: &[u8], word: Option<u64>, out: &mut Vec<u8>) -> bool {
        if let Some(uuid) = word.and_then(|word| self.small.get(&word)) {
            json::uuid_text(out, uuid);
            return true;
        }
        let found = self.large.get(&table).and_then(|keys| keys.get(key));
        if let Some(text) = found {
            out.extend_from_slice(text);
        }
        found.is_some()
    }

    fn drop(&mut self, table: u32, key: &[u8]) {
        if let Some(word) = word(table, key) {
            self.small.remove(&word);
        }
        if let Some(keys) = self.large.get_mut(&table) {
            keys.remove(key);
        }
    }

    fn forget(&mut self, table: u32) {
        self.small.retain(|word, _| word >> KEY_BITS != u64::from(table));
        self.large.remove(&table);
    }
}

/// See apply/known.py.
#[pyclass]
#[derive(Default)]
pub struct Known {
    young: Generation,
    old: Generation,
    fresh: HashMap<u32, HashMap<Box<[u8]>, (Box<[u8]>, i64)>>,
    missed: HashMap<u32, HashSet<Box<[u8]>>>,
}

#[pymethods]
impl Known {
    #[new]
    fn new() -> Self {
        Known::default()
    }

    fn put(&mut self, table: u32, keys: Vec<String>, identities: Vec<String>) {
        for (key, identity) in keys.into_iter().zip(identities) {
            self.keep(table, key.as_bytes(), identity.as_bytes());
        }
    }

    fn fresh(
        &mut self,
        table: u32,
        keys: Vec<String>,
        identities: Vec<String>,
        ordinals: Vec<i64>,
    ) {
        let fresh = self.fresh.entry(table).or_default();
        for ((key, identity), ordinal) in keys.into_iter().zip(identities).zip(ordinals) {
            fresh.insert(boxed(key.as_bytes()), (boxed(identity.as_bytes()), ordinal));
        }
    }

    fn settle(&mut self) {
        for (table, keys) in std::mem::take(&mut self.fresh) {
            for (key, (identity, _)) in keys {
                self.keep(table, &key, &identity);
            }
        }
    }

    fn drop(&mut self, table: u32, keys: Vec<String>) {
        for key in keys {
            self.young.drop(table, key.as_bytes());
            self.old.drop(table, key.as_bytes());
            if let Some(fresh) = self.fresh.get_mut(&table) {
                fresh.remove(key.as_bytes());
            }
        }
    }

    fn forget(&mut self, table: u32) {
        self.young.forget(table);
        self.old.forget(table);
        self.fresh.remove(&table);
    }

    fn find(&mut self, table: u32, keys: Vec<Option<String>>, ordinals: Vec<i64>) -> Vec<Option<String>> {
        let mut text = Vec::new();
        let one = |(key, ordinal): (Option<String>, i64)| {
            text.clear();
            let is_found = self.look(table, key?.as_bytes(), ordinal, &mut text);
            is_found.then(|| String::from_utf8_lossy(&text).into_owned())
        };
        keys.into_iter().zip(ordinals).map(one).collect()
    }

    fn missed(&mut self) -> HashMap<u32, Vec<String>> {
        let text = |key: Box<[u8]>| String::from_utf8_lossy(&key).into_owned();
        let missed = std::mem::take(&mut self.missed);
        missed.into_iter().map(|(table, keys)| (table, keys.into_iter().map(text).collect())).collect()
    }
}

impl Known {
    /// Write the identity that the key meant at this ordinal to `out`; without one, note the key.
    pub fn look(&mut self, table: u32, key: &[u8], ordinal: i64, out: &mut Vec<u8>) -> bool {
        if let Some((identity, since)) = self.fresh.get(&table).and_then(|keys| keys.get(key)) {
            if ordinal >= *since {
                out.extend_from_slice(identity);
                return true;
            }
        } else {
            let word = word(table, key);
            if self.young.find(table, key, word, out) || self.old.find(table, key, word, out) {
                return true;
            }
        }
        let missed = self.missed.entry(table).or_default();
        if !missed.contains(key) {
            missed.insert(boxed(key));
        }
        false
    }

    fn keep(&mut self, table: u32, key: &[u8], identity: &[u8]) {
        if self.young.small.len() >= SMALL || self.young.large_bytes >= LARGE_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.drop(table, key);
        match (word(table, key), uuid(identity)) {
            (Some(word), Some(uuid)) => {
                self.young.small.insert(word, uuid);
            }
            _ => {
                self.young.large_bytes += key.len() + identity.len() + LARGE_EACH;
                self.young.large.entry(table).or_default().insert(boxed(key), boxed(identity));
            }
        }
    }
}

fn boxed(bytes: &[u8]) -> Box<[u8]> {
    bytes.into()
}

const KEY_BITS: u32 = 50;

/// A table and a whole number of at most 15 digits, as it is written canonically.
fn word(table: u32, key: &[u8]) -> Option<u64> {
    let is_canonical = match key {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 15 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_canonical || table >> (64 - KEY_BITS) != 0 {
        return None;
    }
    let number = key.iter().fold(0u64, |sum, c| sum * 10 + u64::from(c - b'0'));
    Some(u64::from(table) << KEY_BITS | number)
}

/// The bytes of a UUID that json::uuid_text would write so.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let (mut bytes, mut nth) = ([0u8; 16], 0);
    for (at, &c) in text.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if c != b'-' {
                return None;
            }
            continue;
        }
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        bytes[nth / 2] |= digit << (4 * (1 - nth % 2));
        nth += 1;
    }
    Some(bytes)
}
