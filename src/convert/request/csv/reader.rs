//! Splits CSV into rows and fields (RFC 4180), and keeps what the `csv` crate's reader does not report: which fields
//! were quoted.
//!
//! Blanks (spaces and tabs) at the ends of a row are not part of it, and a line of nothing else is no row: the Python
//! container reads it so, and people indent and pad CSV. Blanks inside of quotes, and around other fields, stay.

use memchr::memchr;

use crate::budget::{Buffer, NoRoom};
use crate::convert::request::target::escape;
use crate::error::{RequestError, shown};

/// A field as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// The text; of a quoted field, the text between the quotes, in which two quotes stand for one.
    pub text: &'a [u8],
    /// The text after the closing quote. RFC 4180 allows none; other readers keep it, and so does this one.
    pub tail: &'a [u8],
    /// Whether the field is quoted.
    pub is_quoted: bool,
}

impl Field<'_> {
    /// Writes the field as a JSON string.
    pub fn write_text(&self, out: &mut Buffer) -> Result<(), NoRoom> {
        out.extend(b"\"")?;
        let mut rest = self.text;
        if self.is_quoted {
            while let Some(quote) = memchr(b'"', rest) {
                escape(&rest[..=quote], out)?;
                rest = &rest[quote + 2..];
            }
        }
        escape(rest, out)?;
        escape(self.tail, out)?;
        out.extend(b"\"")
    }

    /// The text, unless something follows the closing quote.
    pub fn whole(&self) -> Option<&[u8]> {
        self.tail.is_empty().then_some(self.text)
    }

    /// The field for messages.
    pub fn shortened(&self) -> String {
        const MOST_BYTES: usize = 400;
        shown(&String::from_utf8_lossy(
            &self.text[..self.text.len().min(MOST_BYTES)],
        ))
    }
}

/// Steps over the fields of a body.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    /// The whole body: UTF-8 without a byte order mark.
    pub body: &'a [u8],
    /// The current position.
    pub at: usize,
    /// The number of rows begun, which is also the number of the current row. Blank lines are no rows.
    pub row: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            at: 0,
            row: 0,
        }
    }

    /// Begins the next row, behind its leading blanks; `false` at the end of the body.
    pub fn next_row(&mut self) -> bool {
        while matches!(self.peek(), Some(b'\n' | b'\r' | b' ' | b'\t')) {
            self.at += 1; // blank lines, the \n of \r\n, and leading blanks
        }
        let has_more = self.at < self.body.len();
        self.row += usize::from(has_more);
        has_more
    }

    /// Reads a field, and stops at the comma or line end after it.
    ///
    /// # Errors
    /// 400 for a quote that is never closed.
    pub fn field(&mut self) -> Result<Field<'a>, RequestError> {
        if self.peek() != Some(b'"') {
            return Ok(Field {
                text: self.bare_part(),
                tail: b"",
                is_quoted: false,
            });
        }
        let start = self.at + 1;
        let mut end = start;
        loop {
            let Some(quote) = memchr(b'"', &self.body[end..]) else {
                return Err(RequestError::bad_request(format!(
                    "CSV row {}: a quoted field is never closed.",
                    self.row
                )));
            };
            end += quote;
            if self.body.get(end + 1) != Some(&b'"') {
                break;
            }
            end += 2; // two quotes stand for one
        }
        self.at = end + 1;
        Ok(Field {
            text: &self.body[start..end],
            tail: self.bare_part(),
            is_quoted: true,
        })
    }

    /// Steps over the comma after a field; `false` at the end of the row.
    pub fn next_field(&mut self) -> bool {
        let has_more = self.peek() == Some(b',');
        self.at += usize::from(has_more);
        has_more
    }

    /// Steps over the rest of the row and counts its fields. Call it at the start of a field.
    ///
    /// # Errors
    /// 400 for a quote that is never closed.
    pub fn count_fields(&mut self) -> Result<usize, RequestError> {
        let mut fields = 1;
        loop {
            self.field()?;
            if !self.next_field() {
                return Ok(fields);
            }
            fields += 1;
        }
    }

    /// Returns the current line as it stands, with all blanks, and stops at its end. Call it at the start of a row.
    pub fn line(&mut self) -> &'a [u8] {
        while self.at > 0 && is_blank(self.body[self.at - 1]) {
            self.at -= 1;
        }
        let rest = &self.body[self.at..];
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Returns the bytes up to the next comma or line end, and stops there. Blanks before a line end do not count.
    fn bare_part(&mut self) -> &'a [u8] {
        let rest = &self.body[self.at..];
        let length = rest
            .iter()
            .position(|b| matches!(b, b',' | b'\n' | b'\r'))
            .unwrap_or(rest.len());
        self.at += length;
        let mut part = &rest[..length];
        if self.peek() != Some(b',') {
            while let [before @ .., last] = part
                && is_blank(*last)
            {
                part = before;
            }
        }
        part
    }

    /// The byte at the current position.
    pub fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The number, from 1, of the row that contains the byte at `at`.
pub fn row_of(body: &[u8], at: usize) -> usize {
    let before = &body[..at];
    let mut reader = Reader::new(before);
    while reader.next_row() {
        if reader.count_fields().is_err() {
            return reader.row; // the byte is inside a quoted field
        }
        if reader.at == before.len() {
            return reader.row; // the byte is inside the row
        }
    }
    reader.row + 1
}
