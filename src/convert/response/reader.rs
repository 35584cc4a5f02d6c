//! Reads JSON one token at a time. Checks the structure on the way, but not the spelling of numbers and words.
//!
//! Nothing here recurses: a response may be nested as deeply as [`MAX_DEPTH`].

use crate::budget::{Buffer, NoRoom};
use crate::convert::depth::{MAX_DEPTH, end_of_string};

use super::problem::Problem;

/// Where a copied value goes.
pub trait Sink {
    /// Appends bytes.
    ///
    /// # Errors
    /// When no memory is left for them.
    fn write(&mut self, bytes: &[u8]) -> Result<(), NoRoom>;
}

impl Sink for Buffer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.extend(bytes)
    }
}

/// Bytes of words that are copied at once.
const WORDS: usize = 256;

/// For values that are stepped over.
pub struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: &[u8]) -> Result<(), NoRoom> {
        Ok(())
    }
}

/// A position in a document.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The start of a document.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The problem that the document is broken here.
    pub fn broken<T>(&self) -> Result<T, Problem> {
        Err(Problem::Broken(self.at))
    }

    /// The problem that lists differ here.
    pub fn ragged<T>(&self) -> Result<T, Problem> {
        Err(Problem::Ragged(self.at))
    }

    /// The next byte that is no white space, without stepping over it.
    ///
    /// # Errors
    /// At the end of the document.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, Problem> {
        while let Some(&byte) = self.text.get(self.at) {
            if !is_space(byte) {
                return Ok(byte);
            }
            self.at += 1;
        }
        self.broken()
    }

    /// Steps over `byte` if it is the next that is no white space. Returns whether it was.
    ///
    /// # Errors
    /// At the end of the document.
    #[inline]
    pub fn take(&mut self, byte: u8) -> Result<bool, Problem> {
        let is_next = self.peek()? == byte;
        self.at += usize::from(is_next);
        Ok(is_next)
    }

    /// Steps over `byte`, which must be next.
    ///
    /// # Errors
    /// If it is not.
    pub fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        if self.take(byte)? {
            Ok(())
        } else {
            self.broken()
        }
    }

    /// Whether only white space is left.
    pub fn is_at_end(mut self) -> bool {
        self.peek().is_err()
    }

    /// Steps to the next element of a list, or behind the list. Returns whether there is one. `is_first`: the reader is
    /// behind the opening bracket; it becomes false.
    ///
    /// # Errors
    /// For broken structure.
    pub fn next_element(&mut self, is_first: &mut bool) -> Result<bool, Problem> {
        self.next_item(is_first, b']')
    }

    /// Steps to the value of the next member of an object, or behind the object. Returns the content of its key. The
    /// rest as for lists.
    ///
    /// # Errors
    /// For broken structure.
    pub fn next_member(&mut self, is_first: &mut bool) -> Result<Option<&'a [u8]>, Problem> {
        if !self.next_item(is_first, b'}')? {
            return Ok(None);
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    fn next_item(&mut self, is_first: &mut bool, closing: u8) -> Result<bool, Problem> {
        if self.take(closing)? {
            return Ok(false);
        }
        if *is_first {
            *is_first = false;
        } else {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// Steps over a string and returns its content, with its escapes.
    ///
    /// # Errors
    /// If no string is next, or it does not end, or it contains control characters, which would break lines.
    pub fn string(&mut self) -> Result<&'a [u8], Problem> {
        self.expect(b'"')?;
        let start = self.at;
        let Some(end) = end_of_string(self.text, start) else {
            return self.broken();
        };
        let content = &self.text[start..end - 1];
        // Without a way out of the loop, so that the compiler can use vector instructions.
        if content.iter().fold(false, |any, &b| any | (b < b' ')) {
            return self.broken();
        }
        self.at = end;
        Ok(content)
    }

    /// Steps over a number or a word such as `true` or `NaN`. It consists of ASCII letters, digits and `+-.`.
    ///
    /// # Errors
    /// If none is next.
    pub fn word(&mut self) -> Result<&'a [u8], Problem> {
        self.peek()?;
        let start = self.at;
        self.skip_word();
        if self.at == start {
            return self.broken();
        }
        Ok(&self.text[start..self.at])
    }

    fn skip_word(&mut self) {
        while self.text.get(self.at).is_some_and(|&b| is_word(b)) {
            self.at += 1;
        }
    }

    /// Copies words of a list as long as each has a comma right behind it, with the commas. Stops before anything else,
    /// and before `null`.
    ///
    /// # Errors
    /// When no memory is left.
    pub fn copy_words(&mut self, out: &mut impl Sink) -> Result<(), Problem> {
        if !self.peek().is_ok_and(is_word) {
            return Ok(());
        }
        // Most of a response is such words. They are collected here, because a call for each costs more than its bytes.
        let mut run = [0; WORDS];
        let mut length = 0;
        while let Ok(first) = self.peek() {
            let (at, mut end) = (self.at, length);
            let mut last = first;
            for (&byte, place) in self.text[at..].iter().zip(&mut run[length..]) {
                *place = byte;
                end += 1;
                last = byte;
                if !is_word(byte) {
                    break;
                }
            }
            if last == b',' && end - length > 1 && first != b'n' {
                self.at += end - length;
                length = end;
            } else if length == 0 || end < WORDS {
                break;
            } else {
                // No space was left for the word.
                out.write(&run[..length])?;
                length = 0;
            }
        }
        Ok(out.write(&run[..length])?)
    }

    /// Steps over an object with the only member `b64`, which stands for bytes. Returns its string. `None`, without a
    /// step, if something else is next.
    pub fn base64(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let mut is_first = true;
        if !ahead.take(b'{').ok()? || ahead.next_member(&mut is_first).ok()?? != b"b64" {
            return None;
        }
        let content = ahead.string().ok()?;
        let is_only = ahead.next_member(&mut is_first).ok()?.is_none();
        is_only.then(|| {
            *self = ahead;
            content
        })
    }

    /// Steps over a value and copies it without white space between tokens.
    ///
    /// # Errors
    /// For broken structure, or when no memory is left.
    pub fn copy_value(&mut self, out: &mut impl Sink) -> Result<(), Problem> {
        match self.peek()? {
            b'[' | b'{' => {}
            b'"' => return self.copy_string(out),
            _ => return Ok(out.write(self.word()?)?),
        }
        let mut open = Nesting::new();
        loop {
            match self.peek()? {
                bracket @ (b'[' | b'{') => {
                    self.at += 1;
                    out.write(&[bracket])?;
                    // With this difference, `[` becomes `]` and `{` becomes `}`.
                    let closing = bracket + 2;
                    if self.take(closing)? {
                        out.write(&[closing])?;
                    } else {
                        if open.push(bracket == b'{').is_none() {
                            return self.broken();
                        }
                        self.begin_item(&open, out)?;
                        continue;
                    }
                }
                b'"' => self.copy_string(out)?,
                _ => out.write(self.word()?)?,
            }
            // A value has ended, and with it perhaps some of those around it.
            loop {
                let Some(is_object) = open.last() else {
                    return Ok(());
                };
                if self.take(b',')? {
                    out.write(b",")?;
                    self.begin_item(&open, out)?;
                    break;
                }
                let closing = if is_object { b'}' } else { b']' };
                self.expect(closing)?;
                out.write(&[closing])?;
                open.pop();
            }
        }
    }

    /// Copies what precedes a value: its key, or the words before it in the list.
    fn begin_item(&mut self, open: &Nesting, out: &mut impl Sink) -> Result<(), Problem> {
        if open.last() != Some(true) {
            return self.copy_words(out);
        }
        self.copy_string(out)?;
        self.expect(b':')?;
        Ok(out.write(b":")?)
    }

    fn copy_string(&mut self, out: &mut impl Sink) -> Result<(), Problem> {
        self.peek()?;
        let start = self.at;
        self.string()?;
        Ok(out.write(&self.text[start..self.at])?)
    }

    /// The number of lists around the value here that have one element each: 2 for `[[[1, 2]]]`, 3 for `[[[1]]]`, 0 for
    /// `[]`. Reads no further than the first element of the outermost list that has more.
    ///
    /// # Errors
    /// For broken structure.
    pub fn wrapping(mut self) -> Result<usize, Problem> {
        let mut depth = 0;
        while self.take(b'[')? {
            depth += 1;
        }
        if depth > MAX_DEPTH {
            return self.broken();
        }
        let mut single = depth;
        if depth > 0 && self.peek()? == b']' {
            single -= 1;
        } else {
            self.copy_value(&mut Nowhere)?;
        }
        while depth > 0 && single > 0 {
            if self.take(b',')? {
                single = single.min(depth - 1);
                if single > 0 {
                    self.copy_value(&mut Nowhere)?;
                }
            } else {
                self.expect(b']')?;
                depth -= 1;
            }
        }
        Ok(single)
    }
}

/// Which brackets are open: one bit each, which says whether it is an object's.
struct Nesting {
    bits: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Nesting {
    fn new() -> Self {
        Self {
            bits: [0; MAX_DEPTH / 64],
            depth: 0,
        }
    }

    /// `None` if too many are open.
    fn push(&mut self, is_object: bool) -> Option<()> {
        let word = self.bits.get_mut(self.depth / 64)?;
        let bit = 1 << (self.depth % 64);
        *word = if is_object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the innermost is an object's; `None` if none is open.
    fn last(&self) -> Option<bool> {
        let index = self.depth.checked_sub(1)?;
        Some(self.bits[index / 64] >> (index % 64) & 1 == 1)
    }
}

/// Whether JSON counts the byte as white space (RFC 8259, section 2).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_word(byte: u8) -> bool {
    const WORD: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            let ascii = byte as u8;
            table[byte] = ascii.is_ascii_alphanumeric() || matches!(ascii, b'+' | b'-' | b'.');
            byte += 1;
        }
        table
    };
    WORD[usize::from(byte)]
}

/// Appends the text that the content of a JSON string stands for. A lone surrogate becomes U+FFFD, because UTF-8 cannot
/// express it. Bytes that are not UTF-8 stay.
///
/// # Errors
/// `None` inside of `Ok` for a wrong escape; when no memory is left.
pub fn unescape(content: &[u8], out: &mut Buffer) -> Result<Option<()>, NoRoom> {
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend(&rest[..at])?;
        let Some(&kind) = rest.get(at + 1) else {
            return Ok(None);
        };
        rest = &rest[at + 2..];
        let plain = match kind {
            b'"' | b'\\' | b'/' => kind,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let Some(unit) = code_unit(rest) else {
                    return Ok(None);
                };
                rest = &rest[4..];
                let low = rest.strip_prefix(b"\\u").and_then(code_unit);
                let pair = low.and_then(|low| {
                    let mut decoded = char::decode_utf16([unit, low]);
                    decoded.next()?.ok().filter(|_| decoded.next().is_none())
                });
                if pair.is_some() {
                    rest = &rest[6..];
                }
                let single = char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
                let text = pair.unwrap_or(single);
                out.extend(text.encode_utf8(&mut [0; 4]).as_bytes())?;
                continue;
            }
            _ => return Ok(None),
        };
        out.extend(&[plain])?;
    }
    out.extend(rest)?;
    Ok(Some(()))
}

/// The four hexadecimal digits at the start of `text`.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..4)?.iter();
    digits.copied().try_fold(0, |unit, digit| {
        let digit = char::from(digit).to_digit(16)?;
        u16::try_from(digit).ok().map(|digit| unit << 4 | digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn compact(text: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut reader = Reader::new(text);
        let mut out = Buffer::default();
        reader.copy_value(&mut out)?;
        match reader.is_at_end() {
            true => Ok(out.to_vec()),
            false => reader.broken(),
        }
    }

    #[test]
    fn copies_values_without_white_space() {
        for (text, expected) in [
            ("1", "1"),
            (" [ ] ", "[]"),
            ("{ }", "{}"),
            (
                "[1 , 2,3, null, NaN,-Infinity]",
                "[1,2,3,null,NaN,-Infinity]",
            ),
            ("[[ 1, 2 ],\n [\t3]\r]", "[[1,2],[3]]"),
            (
                r#"{ "a b" : [ { } , "c d\" ]" ], "e": 1 }"#,
                r#"{"a b":[{},"c d\" ]"],"e":1}"#,
            ),
            ("\"\u{e9} \\ud800\"", "\"\u{e9} \\ud800\""),
        ] {
            let copied = compact(text.as_bytes());
            assert_eq!(copied.ok().as_deref(), Some(expected.as_bytes()), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(compact(deep.as_bytes()).unwrap(), deep.as_bytes());
    }

    #[test]
    fn broken_structure_is_found() {
        for text in [
            "",
            " ",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "{\"a\"}",
            "{\"a\":}",
            "{1:2}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{,}",
            "\"a",
            "\"a\\\"",
            "\"a\nb\"",
            "[\"\u{1}\"]",
            "1 2",
            "[1]]",
            "'a'",
            "[1;2]",
            ":",
            "{\"a\":1:2}",
        ] {
            assert!(
                matches!(compact(text.as_bytes()), Err(Problem::Broken(_))),
                "{text}"
            );
        }
        let deep = [b'['].repeat(1_000_000);
        assert!(compact(&deep).is_err());
        assert!(Reader::new(&deep).wrapping().is_err());
    }

    #[test]
    fn counts_lists_of_one_element() {
        for (text, expected) in [
            ("1", 0),
            ("[]", 0),
            ("[[]]", 1),
            ("[1]", 1),
            ("[[[1]]]", 3),
            ("[[[1,2]]]", 2),
            ("[[[1],[2]]]", 1),
            ("[[[1]],[]]", 0),
            ("[1,2", 0),
            ("[[1,2],[3", 0),
            ("[{\"a\":[1,2]}]", 1),
            ("[\"a,b\"]", 1),
        ] {
            let found = Reader::new(text.as_bytes()).wrapping();
            assert_eq!(found.ok(), Some(expected), "{text}");
        }
        assert!(Reader::new(b"[[1").wrapping().is_err());
    }

    #[test]
    fn bytes_are_objects_with_one_member() {
        for (text, expected) in [
            ("{ \"b64\" : \"YQ==\" }", Some("YQ==")),
            ("{\"b64\":\"\"}", Some("")),
            ("{\"b64\":1}", None),
            ("{\"b64\":\"\",\"a\":1}", None),
            ("{\"a\":\"\"}", None),
            ("{}", None),
            ("\"b64\"", None),
            ("{\"b64\":\"", None),
        ] {
            let mut reader = Reader::new(text.as_bytes());
            let found = reader.base64();
            assert_eq!(found, expected.map(str::as_bytes), "{text}");
            assert_eq!(reader.at > 0, found.is_some());
        }
    }

    fn unescaped(content: &str) -> Option<String> {
        let mut out = Buffer::default();
        unescape(content.as_bytes(), &mut out).unwrap()?;
        Some(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        for (content, expected) in [
            (r"\ud83d\ude00", Some("\u{1f600}")),
            (r"\ud800", Some("\u{fffd}")),
            (r"\ud800\ud800a", Some("\u{fffd}\u{fffd}a")),
            (r"\ude00\ud83d", Some("\u{fffd}\u{fffd}")),
            (r"\ud800\u0041", Some("\u{fffd}A")),
            (r"\u0041\u0042", Some("AB")),
            (r"\u0000\/\b\f\n\r\t\\", Some("\0/\u{8}\u{c}\n\r\t\\")),
            (r"\u00", None),
            (r"\u00g0", None),
            (r"\x41", None),
            (r"\", None),
        ] {
            assert_eq!(unescaped(content).as_deref(), expected, "{content}");
        }
    }

    proptest! {
        #[test]
        fn strings_are_unescaped_as_serde_json_does(text: String) {
            let json = Value::from(text.as_str()).to_string();
            prop_assert_eq!(unescaped(&json[1..json.len() - 1]), Some(text));
        }

        /// What is valid for serde_json is copied with its value, and what breaks serde_json's structure is refused.
        #[test]
        fn copies_what_serde_json_reads(
            text in "([\\[\\]{}\",: 1]|\\[\\[|\\]\\]|\\{\"a\":|\"b\"|, |null){0,24}",
        ) {
            let copied = compact(text.as_bytes());
            match serde_json::from_str::<Value>(&text) {
                Ok(value) => {
                    let copied = copied.expect("valid");
                    prop_assert_eq!(serde_json::from_slice::<Value>(&copied).unwrap(), value);
                }
                // Words and numbers are not checked.
                Err(_) if text.contains("11") || text.contains("1n") || text.contains("l1") || text.contains("ln") => {}
                Err(error) => prop_assert!(copied.is_err(), "{}: {}", text, error),
            }
        }
    }
}
