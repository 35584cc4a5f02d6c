//! Converts CSV: each row becomes an instance, an object of named inputs, or an example.
//!
//! The signature says what fields are and how they nest (`csv/layout.rs`, `csv/input.rs`). Without one, each bare
//! number becomes a JSON number, and each other field a string. Quotes decide then, and the `csv` crate does not report
//! which fields were quoted, so `csv/reader.rs` is a parser of its own; tests compare it with that crate.

mod bulk;
mod input;
mod layout;
mod number;
mod reader;

use self::bulk::Numbers;
use self::input::{Input, Reading};
use self::layout::{Layout, Named, Plan};
use self::number::plain;
use self::reader::{Reader, row_of};
use super::target::{Header, Target, escape};
use crate::budget::Buffer;
use crate::error::RequestError;

/// Converts a CSV body into the body of a request to TensorFlow Serving. `header` is what the content type says.
///
/// # Errors
/// 400 with the row for bytes that are not UTF-8, a quote that is never closed, a row with another number of fields than
/// the first, or fields that do not fit the signature; 413 or 503 when no memory is left.
pub fn to_tfs(
    buffer: &Buffer,
    header: Option<Header>,
    target: &Target,
) -> Result<Buffer, RequestError> {
    let body: &[u8] = buffer;
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Err(error) = std::str::from_utf8(body) {
        return Err(RequestError::bad_request(format!(
            "CSV row {} is not valid UTF-8.",
            row_of(body, error.valid_up_to())
        )));
    }
    let mut reader = Reader::new(body);
    let Plan { columns, layout } = layout::plan(
        &mut reader,
        header.unwrap_or(target.csv_header),
        target,
        buffer,
    )?;
    // Room for brackets and commas, and for some fields that grow. Larger results are rare and cost a copy.
    let mut out = buffer.sibling();
    let likely = body.len() + body.len() / 8 + 64;
    out.reserve_likely(likely, body.len())?;
    out.extend(target.opening().as_bytes())?;
    out.extend(b"[")?;
    let mut rows = Writer {
        reader,
        columns,
        out,
    };
    match &layout {
        Layout::Line(lists) => rows.lines(*lists)?,
        Layout::Named(named) => rows.objects(named)?,
        Layout::One(input) if !input.nest.is_flat() => rows.nested(input)?,
        // The type is fixed here, so that the loop over fields does not look at it.
        Layout::One(input) => match input.reading {
            Reading::AsWritten => rows.flat::<true, true>(input, usize::MAX)?,
            Reading::Float(digits) => rows.flat::<true, true>(input, digits)?,
            Reading::Integer(dtype) => match dtype.integer_range() {
                Some((0, high)) => rows.flat::<false, false>(input, safe_digits(high))?,
                range => {
                    rows.flat::<false, true>(input, safe_digits(range.map_or(0, |(_, high)| high)))?
                }
            },
            Reading::Bool | Reading::Text => rows.nested(input)?,
        },
    }
    let mut out = rows.out;
    out.extend(b"]}")?;
    Ok(out)
}

/// A row with fewer fields left is read field by field: a block holds a few numbers at least.
const MIN_BULK_FIELDS: usize = 4;
/// Fields that are read one by one before a block is tried again, because something in the last one was unusual.
const MAX_SINGLES: usize = 16;

/// Numbers of so many digits do not exceed `high`, nor fall below its negative.
fn safe_digits(high: i128) -> usize {
    high.to_string().len() - 1
}

struct Writer<'a> {
    reader: Reader<'a>,
    /// Fields in each row.
    columns: usize,
    out: Buffer,
}

impl Writer<'_> {
    /// Begins the next row, after a comma unless it is the first; `false` at the end of the body.
    fn next_row(&mut self, is_first: &mut bool) -> Result<bool, RequestError> {
        let has_more = self.reader.next_row();
        if has_more && !std::mem::take(is_first) {
            self.out.extend(b",")?;
        }
        Ok(has_more)
    }

    /// Writes rows of at most one list, whose fields are numbers in most cases. Runs of numbers that are valid JSON,
    /// with their commas, are copied at once. `FRACTIONS`, `NEGATIVE` and `digits` are those of [`plain`].
    fn flat<const FRACTIONS: bool, const NEGATIVE: bool>(
        &mut self,
        input: &Input,
        digits: usize,
    ) -> Result<(), RequestError> {
        let numbers = Numbers {
            fractions: FRACTIONS,
            negative: NEGATIVE,
            digits,
        };
        let mut is_first = true;
        while self.next_row(&mut is_first)? {
            input.nest.open(&mut self.out)?;
            let mut fields = 0;
            loop {
                let body = self.reader.body;
                let run = self.reader.at;
                let mut at = run;
                if self.columns - fields.min(self.columns) >= MIN_BULK_FIELDS {
                    let (end, skipped) = bulk::skip(body, at, numbers);
                    at = end;
                    fields += skipped;
                }
                let mut is_end = false;
                let mut singles = 0;
                while let Some(end) = plain::<FRACTIONS, NEGATIVE>(body, at, digits) {
                    at = end;
                    fields += 1;
                    singles += 1;
                    is_end = body.get(at) != Some(&b',');
                    if is_end {
                        break;
                    }
                    at += 1;
                    if singles == MAX_SINGLES {
                        break;
                    }
                }
                self.out.extend(&body[run..at])?;
                self.reader.at = at;
                if is_end {
                    break;
                }
                if singles == MAX_SINGLES {
                    continue;
                }
                fields += 1;
                let field = self.reader.field()?;
                input.write(&field, self.reader.row, fields, &mut self.out)?;
                if !self.reader.next_field() {
                    break;
                }
                self.out.extend(b",")?;
            }
            self.check_fields(fields)?;
            input.nest.close(&mut self.out)?;
        }
        Ok(())
    }

    /// Writes rows of one input, field by field.
    fn nested(&mut self, input: &Input) -> Result<(), RequestError> {
        let mut is_first = true;
        while self.next_row(&mut is_first)? {
            input.nest.open(&mut self.out)?;
            let mut fields = 0;
            loop {
                fields += 1;
                let field = self.reader.field()?;
                input.write(&field, self.reader.row, fields, &mut self.out)?;
                if !self.reader.next_field() {
                    break;
                }
                input.nest.separate(fields, &mut self.out)?;
            }
            self.check_fields(fields)?;
            input.nest.close(&mut self.out)?;
        }
        Ok(())
    }

    /// Writes rows as objects.
    fn objects(&mut self, named: &Named) -> Result<(), RequestError> {
        // `Named` has reserved memory for them.
        let mut fields = Vec::with_capacity(self.columns);
        let mut is_first = true;
        while self.next_row(&mut is_first)? {
            fields.clear();
            loop {
                if fields.len() == self.columns {
                    let more = self.reader.count_fields()?;
                    return self.check_fields(self.columns + more);
                }
                fields.push(self.reader.field()?);
                if !self.reader.next_field() {
                    break;
                }
            }
            self.check_fields(fields.len())?;
            let row = self.reader.row;
            let mut separator: &[u8] = b"{\"";
            for member in &named.members {
                self.out.extend(separator)?;
                separator = b", \"";
                escape(member.name.as_bytes(), &mut self.out)?;
                self.out.extend(b"\": ")?;
                let nest = &member.input.nest;
                nest.open(&mut self.out)?;
                for (index, &column) in member.columns.iter().enumerate() {
                    if index > 0 {
                        nest.separate(index, &mut self.out)?;
                    }
                    let field = &fields[column];
                    member.input.write(field, row, column + 1, &mut self.out)?;
                }
                nest.close(&mut self.out)?;
            }
            self.out.extend(b"}")?;
        }
        Ok(())
    }

    /// Writes each line as one string, in this many lists.
    fn lines(&mut self, lists: usize) -> Result<(), RequestError> {
        let mut is_first = true;
        while self.next_row(&mut is_first)? {
            (0..lists).try_for_each(|_| self.out.extend(b"["))?;
            self.out.extend(b"\"")?;
            escape(self.reader.line(), &mut self.out)?;
            self.out.extend(b"\"")?;
            (0..lists).try_for_each(|_| self.out.extend(b"]"))?;
        }
        Ok(())
    }

    fn check_fields(&self, fields: usize) -> Result<(), RequestError> {
        if fields == self.columns {
            return Ok(());
        }
        let plural = if fields == 1 { "field" } else { "fields" };
        Err(RequestError::bad_request(format!(
            "CSV row {} has {fields} {plural}, and the first row has {}.",
            self.reader.row, self.columns
        )))
    }
}

#[cfg(test)]
mod tests;
