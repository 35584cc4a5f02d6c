//! JSON lines: one line for each instance.

use crate::budget::Buffer;

use super::answer::{Answer, Content, Outputs, finish};
use super::problem::Problem;
use super::reader::Reader;

/// Converts a response to JSON lines. Each ends with `\n`; none contains white space outside of strings.
///
/// # Errors
/// For broken structure, for outputs without common rows, or when no memory is left.
pub fn convert(body: &Buffer) -> Result<Buffer, Problem> {
    let mut out = body.sibling();
    let answer = Answer::read(body)?;
    // Only lines that repeat names may need more.
    out.reserve_likely(body.len(), 0)?;
    let end = match answer.content {
        Content::Scalar(mut reader) => {
            reader.copy_value(&mut out)?;
            out.extend(b"\n")?;
            reader
        }
        Content::Rows(mut reader) | Content::NamedRows(mut reader, _) => {
            reader.expect(b'[')?;
            let mut is_first = true;
            while reader.next_element(&mut is_first)? {
                reader.copy_value(&mut out)?;
                out.extend(b"\n")?;
            }
            reader
        }
        Content::Columns(outputs) => write_columns(outputs, &mut out)?,
    };
    finish(end)?;
    Ok(out)
}

/// Writes a line for each row of the tensors. Returns the reader behind all tensors.
fn write_columns<'a>(mut outputs: Outputs<'a>, out: &mut Buffer) -> Result<Reader<'a>, Problem> {
    outputs.list.sort_by_key(|output| output.position);
    let mut is_first = true;
    enter_columns(&mut outputs)?;
    while next_row(&mut outputs, &mut is_first)? {
        for (index, output) in outputs.list.iter_mut().enumerate() {
            out.extend(if index > 0 { b",\"" } else { b"{\"" })?;
            out.extend(output.key)?;
            out.extend(b"\":")?;
            output.reader.copy_value(out)?;
        }
        out.extend(b"}\n")?;
    }
    end_of_columns(&outputs)
}

/// Steps into the lists of all tensors.
///
/// # Errors
/// If one is no list.
pub fn enter_columns(outputs: &mut Outputs) -> Result<(), Problem> {
    for output in &mut outputs.list {
        if !output.reader.take(b'[')? {
            return Err(no_common_rows());
        }
    }
    Ok(())
}

/// Steps to the next row of all tensors. Returns whether there is one.
///
/// # Errors
/// For broken structure, or if only some have one.
pub fn next_row(outputs: &mut Outputs, is_first: &mut bool) -> Result<bool, Problem> {
    let mut more = 0;
    let was_first = *is_first;
    for output in &mut outputs.list {
        *is_first = was_first;
        more += usize::from(output.reader.next_element(is_first)?);
    }
    match more {
        0 => Ok(false),
        _ if more == outputs.list.len() => Ok(true),
        _ => Err(no_common_rows()),
    }
}

/// The reader behind the object of all tensors, when all are read.
///
/// # Errors
/// For broken structure.
pub fn end_of_columns<'a>(outputs: &Outputs<'a>) -> Result<Reader<'a>, Problem> {
    let last = outputs.list.iter().max_by_key(|output| output.position);
    let mut reader = last.map_or(Reader::new(b""), |output| output.reader);
    reader.expect(b'}')?;
    Ok(reader)
}

fn no_common_rows() -> Problem {
    Problem::unfit(
        "The model's outputs have no common rows: some are scalars, or they differ in length. Send Accept: \
         application/json or application/x-npz.",
    )
}
