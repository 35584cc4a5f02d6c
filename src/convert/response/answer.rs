//! The parts of TensorFlow Serving's response: where its rows and outputs are.
//!
//! `{"predictions": [...]}` and `{"results": [...]}` list rows, `{"outputs": ...}` holds whole tensors: one, or one for
//! each name.

use crate::budget::{Buffer, Reservation};
use crate::convert::signature::{Signature, Tensor};

use super::problem::Problem;
use super::reader::{Nowhere, Reader, unescape};

/// A response that is about to be converted.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The key of the rows or tensors.
    pub key: &'static str,
    /// What follows the key.
    pub content: Content<'a>,
}

/// What a response contains. Readers are in front of the value.
#[derive(Debug)]
pub enum Content<'a> {
    /// One value: a number, a word, a string or bytes.
    Scalar(Reader<'a>),
    /// A list, whose elements are the rows of the only output.
    Rows(Reader<'a>),
    /// A list of objects, which have a member for each output.
    NamedRows(Reader<'a>, Outputs<'a>),
    /// A tensor for each output. Its outputs' readers are in front of the tensors.
    Columns(Outputs<'a>),
}

/// The outputs of a response with several, in the alphabetical order of their names.
#[derive(Debug)]
pub struct Outputs<'a> {
    /// At least one.
    pub list: Vec<Output<'a>>,
    _memory: Option<Reservation>,
}

/// One of several outputs.
#[derive(Debug)]
pub struct Output<'a> {
    /// The name, with its escapes.
    pub key: &'a [u8],
    /// In front of the tensor, or of the value in the current row.
    pub reader: Reader<'a>,
    /// The place in the response, from 0.
    pub position: usize,
    /// The number of the row whose value was found last, from 1.
    row: usize,
}

impl<'a> Answer<'a> {
    /// Finds the parts of a response.
    ///
    /// # Errors
    /// For broken structure, or when no memory is left.
    pub fn read(body: &'a Buffer) -> Result<Self, Problem> {
        let mut reader = Reader::new(body);
        reader.expect(b'{')?;
        let mut is_first = true;
        let (key, start) = loop {
            let key = match reader.next_member(&mut is_first)? {
                None => return reader.broken(),
                Some(b"predictions") => "predictions",
                Some(b"outputs") => "outputs",
                Some(b"results") => "results",
                Some(_) => {
                    reader.copy_value(&mut Nowhere)?;
                    continue;
                }
            };
            break (key, reader);
        };
        let mut ahead = start;
        let content = match ahead.peek()? {
            b'[' => {
                let mut row = ahead;
                row.expect(b'[')?;
                let is_named = row.peek()? == b'{' && row.base64().is_none();
                match is_named {
                    true => Content::NamedRows(start, Outputs::read(row, body)?),
                    false => Content::Rows(start),
                }
            }
            _ if key != "outputs" => return ahead.broken(),
            b'{' if ahead.base64().is_none() => Content::Columns(Outputs::read(start, body)?),
            _ => Content::Scalar(start),
        };
        Ok(Self { key, content })
    }

    /// The name of the only output: the signature's, if it has one output.
    pub fn only_name(&self, signature: Option<&Signature>) -> String {
        match only_output(signature) {
            Some(output) => output.name.clone(),
            None => self.key.to_owned(),
        }
    }
}

/// The output of a signature that has just one.
pub fn only_output(signature: Option<&Signature>) -> Option<&Tensor> {
    match signature?.outputs.as_slice() {
        [output] => Some(output),
        _ => None,
    }
}

/// Checks that the response ends after its rows or tensors. The reader is behind them.
///
/// # Errors
/// For broken structure.
pub fn finish(mut reader: Reader) -> Result<(), Problem> {
    while reader.next_member(&mut false)?.is_some() {
        reader.copy_value(&mut Nowhere)?;
    }
    if reader.is_at_end() {
        Ok(())
    } else {
        reader.broken()
    }
}

impl<'a> Outputs<'a> {
    /// Reads the members of the object here. Their readers are in front of the values.
    fn read(start: Reader<'a>, body: &Buffer) -> Result<Self, Problem> {
        let mut count = 0;
        each_member(start, |_, reader| {
            count += 1;
            reader.copy_value(&mut Nowhere)
        })?;
        if count == 0 {
            return start.broken();
        }
        let memory = body.reserve_outside(count * size_of::<Output>())?;
        let mut list = Vec::with_capacity(count);
        each_member(start, |key, reader| {
            list.push(Output {
                key,
                reader: *reader,
                position: list.len(),
                row: 0,
            });
            reader.copy_value(&mut Nowhere)
        })?;
        list.sort_by_key(|output| output.key);
        if list.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return start.broken();
        }
        Ok(Self {
            list,
            _memory: memory,
        })
    }

    /// Prepares for finding the rows again from the first.
    pub fn rewind(&mut self) {
        for output in &mut self.list {
            output.row = 0;
        }
    }

    /// Finds the values of the row with this number, from 1, and steps over it.
    ///
    /// # Errors
    /// If the row does not have the outputs of the first row.
    pub fn find(&mut self, reader: &mut Reader<'a>, row: usize) -> Result<(), Problem> {
        let mut count = 0;
        let end = each_member(*reader, |key, reader| {
            let found = self.list.binary_search_by_key(&key, |output| output.key);
            match found.ok().map(|index| &mut self.list[index]) {
                Some(output) if output.row < row => {
                    output.row = row;
                    output.reader = *reader;
                }
                _ => return reader.broken(),
            }
            count += 1;
            reader.copy_value(&mut Nowhere)
        })?;
        if count < self.list.len() {
            return reader.broken();
        }
        *reader = end;
        Ok(())
    }
}

impl Output<'_> {
    /// The name.
    ///
    /// # Errors
    /// For a wrong escape, or when no memory is left.
    pub fn name(&self, body: &Buffer) -> Result<String, Problem> {
        let mut name = body.sibling();
        if unescape(self.key, &mut name)?.is_none() {
            return self.reader.broken();
        }
        Ok(String::from_utf8_lossy(&name).into_owned())
    }
}

/// Calls `see` with the key of each member of the object here; it steps over the value. Returns the reader behind the
/// object.
fn each_member<'a>(
    mut reader: Reader<'a>,
    mut see: impl FnMut(&'a [u8], &mut Reader<'a>) -> Result<(), Problem>,
) -> Result<Reader<'a>, Problem> {
    reader.expect(b'{')?;
    let mut is_first = true;
    while let Some(key) = reader.next_member(&mut is_first)? {
        see(key, &mut reader)?;
    }
    Ok(reader)
}
