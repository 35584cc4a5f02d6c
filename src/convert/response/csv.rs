//! CSV (RFC 4180): one row for each instance.

use csv_core::WriteResult;

use crate::budget::{Buffer, NoRoom};
use crate::convert::signature::Signature;

use super::answer::{Answer, Content, Outputs, finish};
use super::lines::{end_of_columns, enter_columns, next_row};
use super::problem::Problem;
use super::reader::{Nowhere, Reader, unescape};

/// Converts a response to CSV with line ends of `\n`. A row has a field for each element of an instance, or with
/// several outputs for each output. `header`: the first line names the columns.
///
/// # Errors
/// For broken structure, for outputs without common rows, or when no memory is left.
pub fn convert(
    body: &Buffer,
    header: bool,
    signature: Option<&Signature>,
) -> Result<Buffer, Problem> {
    let mut table = Table {
        out: body.sibling(),
        scratch: body.sibling(),
        row_start: 0,
        csv: csv_core::Writer::new(),
    };
    let answer = Answer::read(body)?;
    // Only quotes may need more.
    table.out.reserve_likely(body.len(), 0)?;
    if header {
        match &answer.content {
            Content::Scalar(_) => table.names(&answer.only_name(signature), 1)?,
            Content::Rows(reader) => {
                table.names(&answer.only_name(signature), fields_of_first_row(*reader)?)?;
            }
            Content::NamedRows(_, outputs) | Content::Columns(outputs) => {
                for (index, output) in outputs.list.iter().enumerate() {
                    table.comma(index)?;
                    table.string(output.key, output.reader)?;
                }
                table.end_row()?;
            }
        }
    }
    let end = match answer.content {
        Content::Scalar(mut reader) => {
            table.field(&mut reader)?;
            table.end_row()?;
            reader
        }
        Content::Rows(mut reader) => {
            reader.expect(b'[')?;
            let mut is_first = true;
            while reader.next_element(&mut is_first)? {
                table.row(&mut reader)?;
                table.end_row()?;
            }
            reader
        }
        Content::NamedRows(reader, outputs) => table.named_rows(reader, outputs)?,
        Content::Columns(outputs) => table.columns(outputs)?,
    };
    finish(end)?;
    Ok(table.out)
}

/// The number of fields of the first row; 1 if there is none.
fn fields_of_first_row(mut reader: Reader) -> Result<usize, Problem> {
    reader.expect(b'[')?;
    if reader.peek()? != b'[' {
        return Ok(1);
    }
    for _ in 0..reader.wrapping()? {
        reader.expect(b'[')?;
    }
    if !reader.take(b'[')? {
        return Ok(1);
    }
    let (mut count, mut is_first) = (0, true);
    while reader.next_element(&mut is_first)? {
        reader.copy_value(&mut Nowhere)?;
        count += 1;
    }
    Ok(count)
}

struct Table {
    out: Buffer,
    /// For the text of a field that may need quotes.
    scratch: Buffer,
    /// Where the current row begins in `out`.
    row_start: usize,
    csv: csv_core::Writer,
}

impl Table {
    /// Writes the header line of a single output.
    fn names(&mut self, name: &str, fields: usize) -> Result<(), Problem> {
        if fields <= 1 {
            self.text(name.as_bytes())?;
        }
        for index in 0..if fields > 1 { fields } else { 0 } {
            self.comma(index)?;
            self.text(format!("{name}_{index}").as_bytes())?;
        }
        Ok(self.end_row()?)
    }

    /// Writes rows that are objects. Returns the reader behind them.
    fn named_rows<'a>(
        &mut self,
        mut reader: Reader<'a>,
        mut outputs: Outputs<'a>,
    ) -> Result<Reader<'a>, Problem> {
        reader.expect(b'[')?;
        let (mut number, mut is_first) = (0, true);
        while reader.next_element(&mut is_first)? {
            number += 1;
            outputs.find(&mut reader, number)?;
            self.fields(&mut outputs)?;
        }
        Ok(reader)
    }

    /// Writes the rows of several tensors. Returns the reader behind all of them.
    fn columns<'a>(&mut self, mut outputs: Outputs<'a>) -> Result<Reader<'a>, Problem> {
        let mut is_first = true;
        enter_columns(&mut outputs)?;
        while next_row(&mut outputs, &mut is_first)? {
            self.fields(&mut outputs)?;
        }
        end_of_columns(&outputs)
    }

    /// Writes a row with a field for each output.
    fn fields(&mut self, outputs: &mut Outputs) -> Result<(), Problem> {
        for (index, output) in outputs.list.iter_mut().enumerate() {
            self.comma(index)?;
            self.field(&mut output.reader)?;
        }
        Ok(self.end_row()?)
    }

    /// Writes the fields of an instance of the only output.
    fn row(&mut self, reader: &mut Reader) -> Result<(), Problem> {
        if reader.peek()? != b'[' {
            return self.field(reader);
        }
        // A list with one element is just this element. With one element, `[1]` is a row of one field anyway.
        let mut inside = *reader;
        inside.expect(b'[')?;
        let wrapping = match inside.peek()? {
            b'[' => reader.wrapping()?,
            _ => 0,
        };
        for _ in 0..wrapping {
            reader.expect(b'[')?;
        }
        if reader.take(b'[')? {
            let (mut index, mut is_first) = (0, true);
            while reader.next_element(&mut is_first)? {
                self.comma(index)?;
                reader.copy_words(&mut self.out)?;
                self.field(reader)?;
                index += 1;
            }
        } else {
            self.field(reader)?;
        }
        for _ in 0..wrapping {
            reader.expect(b']')?;
        }
        Ok(())
    }

    /// Writes a value as one field.
    fn field(&mut self, reader: &mut Reader) -> Result<(), Problem> {
        match reader.peek()? {
            b'"' => {
                let content = reader.string()?;
                self.string(content, *reader)
            }
            b'[' => {
                let wrapping = reader.wrapping()?;
                for _ in 0..wrapping {
                    reader.expect(b'[')?;
                }
                if reader.peek()? == b'[' {
                    self.json(reader)?;
                } else {
                    self.field_without_list(reader)?;
                }
                for _ in 0..wrapping {
                    reader.expect(b']')?;
                }
                Ok(())
            }
            _ => self.field_without_list(reader),
        }
    }

    /// Writes a value that is no list.
    fn field_without_list(&mut self, reader: &mut Reader) -> Result<(), Problem> {
        match reader.peek()? {
            b'"' => {
                let content = reader.string()?;
                self.string(content, *reader)
            }
            b'{' => match reader.base64() {
                Some(content) => self.string(content, *reader),
                None => self.json(reader),
            },
            _ => match reader.word()? {
                b"null" => Ok(()),
                // Words contain no character that needs quotes.
                word => Ok(self.out.extend(word)?),
            },
        }
    }

    /// Writes the text of a JSON string. `reader` is behind it.
    fn string(&mut self, content: &[u8], reader: Reader) -> Result<(), Problem> {
        if !content.contains(&b'\\') {
            return Ok(self.text(content)?);
        }
        let mut text = std::mem::take(&mut self.scratch);
        text.consume(text.len());
        let is_valid = unescape(content, &mut text)?.is_some();
        self.text(&text)?;
        self.scratch = text;
        if is_valid { Ok(()) } else { reader.broken() }
    }

    /// Writes a value as its JSON text.
    fn json(&mut self, reader: &mut Reader) -> Result<(), Problem> {
        let mut text = std::mem::take(&mut self.scratch);
        text.consume(text.len());
        reader.copy_value(&mut text)?;
        self.text(&text)?;
        self.scratch = text;
        Ok(())
    }

    /// Writes a text, in quotes if it needs them.
    fn text(&mut self, text: &[u8]) -> Result<(), NoRoom> {
        if !self.csv.should_quote(text) {
            return self.out.extend(text);
        }
        let quotes = memchr::memchr_iter(b'"', text).count();
        let length = text.len() + quotes;
        self.out.extend(b"\"")?;
        self.out.reserve(length, usize::MAX)?;
        let start = self.out.len();
        let bytes = self.out.bytes_mut();
        bytes.resize(start + length, 0);
        let (result, _, written) = csv_core::quote(text, &mut bytes[start..], b'"', b'"', true);
        debug_assert!(result == WriteResult::InputEmpty && written == length);
        self.out.extend(b"\"")
    }

    /// Writes a comma before each field but the first.
    fn comma(&mut self, index: usize) -> Result<(), NoRoom> {
        if index > 0 {
            self.out.extend(b",")
        } else {
            Ok(())
        }
    }

    /// Ends a row. Readers skip empty lines, so an empty field that is alone gets quotes.
    fn end_row(&mut self) -> Result<(), NoRoom> {
        if self.out.len() == self.row_start {
            self.out.extend(b"\"\"")?;
        }
        self.out.extend(b"\n")?;
        self.row_start = self.out.len();
        Ok(())
    }
}
