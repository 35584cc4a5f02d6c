//! Arrays in numpy's file format, version 1.0.
//!
//! The values are read twice: first for the shapes and types, then for the data, whose size is known and reserved by
//! then.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::budget::{Buffer, NoRoom, Reservation};
use crate::convert::signature::{Signature, Tensor};
use crate::error::shown;

use super::answer::{Answer, Content, Outputs, finish, only_output};
use super::array::{Element, Leaf, Shape, Survey, whole};
use super::problem::Problem;
use super::reader::{Reader, unescape};

/// The arrays of a response.
pub struct Arrays {
    /// At least one.
    pub list: Vec<Array>,
    /// Whether the response has several outputs, or one that has a name of its own.
    pub are_named: bool,
    _memory: Option<Reservation>,
}

/// An array.
pub struct Array {
    /// The name of the output.
    pub name: String,
    /// The file.
    pub file: Buffer,
    shape: Shape,
    survey: Survey,
    /// The size of the first dimension.
    rows: usize,
    /// Whether there is no first dimension.
    is_scalar: bool,
    element: Element,
}

/// Converts a response to an array for each output.
///
/// # Errors
/// For broken structure or lists of different lengths, for values of mixed types, or when no memory is left.
pub fn convert(body: &Buffer, signature: Option<&Signature>) -> Result<Arrays, Problem> {
    let mut answer = Answer::read(body)?;
    let mut arrays = Arrays::new(&answer, body, signature)?;
    let mut scratch = body.sibling();
    let end = each_value(&mut answer.content, |index, reader| {
        arrays.list[index].survey(reader, &mut scratch)
    })?;
    finish(end)?;
    for array in &mut arrays.list {
        let tensor = match (arrays.are_named, signature) {
            (false, _) => only_output(signature),
            (true, Some(signature)) => signature.outputs.iter().find(|t| t.name == array.name),
            (true, None) => None,
        };
        array.begin(tensor, answer.key)?;
    }
    each_value(&mut answer.content, |index, reader| {
        arrays.list[index].write(reader, &mut scratch)
    })?;
    Ok(arrays)
}

/// Calls `see` with each value along the first dimension, and the index of its output. Returns the reader behind all.
fn each_value<'a>(
    content: &mut Content<'a>,
    mut see: impl FnMut(usize, &mut Reader<'a>) -> Result<(), Problem>,
) -> Result<Reader<'a>, Problem> {
    match content {
        Content::Scalar(reader) => {
            let mut reader = *reader;
            see(0, &mut reader)?;
            Ok(reader)
        }
        Content::Rows(reader) => each_element(*reader, |reader| see(0, reader)),
        Content::NamedRows(reader, outputs) => {
            outputs.rewind();
            let mut number = 0;
            each_element(*reader, |reader| {
                number += 1;
                outputs.find(reader, number)?;
                let mut values = outputs.list.iter_mut().enumerate();
                values.try_for_each(|(index, output)| see(index, &mut output.reader))
            })
        }
        Content::Columns(outputs) => each_tensor(outputs, see),
    }
}

fn each_tensor<'a>(
    outputs: &Outputs<'a>,
    mut see: impl FnMut(usize, &mut Reader<'a>) -> Result<(), Problem>,
) -> Result<Reader<'a>, Problem> {
    let mut end = Reader::new(b"");
    for (index, output) in outputs.list.iter().enumerate() {
        let mut reader = output.reader;
        if reader.peek()? == b'[' {
            reader = each_element(reader, |reader| see(index, reader))?;
        } else {
            see(index, &mut reader)?;
        }
        if output.position + 1 == outputs.list.len() {
            end = reader;
        }
    }
    end.expect(b'}')?;
    Ok(end)
}

/// Calls `see` at each element of the list here. Returns the reader behind the list.
fn each_element<'a>(
    mut reader: Reader<'a>,
    mut see: impl FnMut(&mut Reader<'a>) -> Result<(), Problem>,
) -> Result<Reader<'a>, Problem> {
    reader.expect(b'[')?;
    let mut is_first = true;
    while reader.next_element(&mut is_first)? {
        see(&mut reader)?;
    }
    Ok(reader)
}

impl Arrays {
    fn new(answer: &Answer, body: &Buffer, signature: Option<&Signature>) -> Result<Self, Problem> {
        let (outputs, are_columns) = match &answer.content {
            Content::Scalar(_) | Content::Rows(_) => {
                let is_scalar = matches!(answer.content, Content::Scalar(_));
                let name = answer.only_name(signature);
                return Ok(Self {
                    list: vec![Array::new(name, is_scalar, body)],
                    are_named: false,
                    _memory: None,
                });
            }
            Content::NamedRows(_, outputs) => (outputs, false),
            Content::Columns(outputs) => (outputs, true),
        };
        let names: usize = outputs.list.iter().map(|output| output.key.len()).sum();
        let memory = body.reserve_outside(outputs.list.len() * size_of::<Array>() + 3 * names)?;
        let array = |output: &super::answer::Output| {
            let is_scalar = are_columns && output.reader.clone().peek()? != b'[';
            Ok(Array::new(output.name(body)?, is_scalar, body))
        };
        let list = outputs.list.iter().map(array);
        Ok(Self {
            list: list.collect::<Result<_, Problem>>()?,
            are_named: true,
            _memory: memory,
        })
    }
}

impl Array {
    fn new(name: String, is_scalar: bool, body: &Buffer) -> Self {
        Self {
            name,
            file: body.sibling(),
            shape: Shape::default(),
            survey: Survey::default(),
            rows: 0,
            is_scalar,
            element: Element::F8,
        }
    }

    /// Reads a value for the shape and type.
    fn survey(&mut self, reader: &mut Reader, scratch: &mut Buffer) -> Result<(), Problem> {
        self.rows += 1;
        let start = *reader;
        let survey = &mut self.survey;
        self.shape.read(reader, |leaf| {
            match leaf {
                Leaf::Word(word) => {
                    if survey.see_word(word).is_none() {
                        return start.broken();
                    }
                }
                Leaf::Text(content) => survey.see_text(characters(plain(content, scratch, start)?)),
                Leaf::Bytes(content) => {
                    let text = plain(content, scratch, start)?;
                    let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
                    survey.see_bytes((text.len() - padding) * 3 / 4);
                }
            }
            Ok(())
        })
    }

    /// Chooses the type, writes the header, and makes room for the data.
    fn begin(&mut self, tensor: Option<&Tensor>, key: &str) -> Result<(), Problem> {
        let Some(element) = self.survey.element(tensor) else {
            return Err(self.mixed(key));
        };
        self.element = element;
        let mut sizes: Vec<usize> = Vec::new();
        if !self.is_scalar {
            sizes.push(self.rows);
            sizes.extend(self.shape.sizes());
        }
        let rows = tensor
            .and_then(Tensor::row_shape)
            .filter(|shape| shape.len() < 64);
        if self.rows == 0
            && let Some(known) = rows
            && known.iter().all(Option::is_some)
        {
            sizes.extend(known.iter().flatten());
        }
        let header = header(element, &sizes);
        let data = element
            .size()
            .and_then(|size| size.checked_mul(self.survey.count));
        let whole = data.and_then(|data| data.checked_add(header.len()));
        self.file.reserve_exact(whole.ok_or(NoRoom::Ever)?)?;
        self.file.extend(&header)?;
        Ok(())
    }

    fn mixed(&self, key: &str) -> Problem {
        if key == "results" {
            return Problem::unfit(
                "The results pair labels with scores, and no array has values of both types. Send Accept: \
                 application/json or text/csv.",
            );
        }
        Problem::unfit(format!(
            "The output {} has values of mixed types or null, which no array has. Send Accept: application/json.",
            shown(&self.name)
        ))
    }

    /// Reads a value for its data.
    fn write(&mut self, reader: &mut Reader, scratch: &mut Buffer) -> Result<(), Problem> {
        let start = *reader;
        let (element, file) = (self.element, &mut self.file);
        self.shape.read(reader, |leaf| {
            let written = match (leaf, element) {
                (Leaf::Word(word), _) => write_word(word, element, file)?,
                (Leaf::Text(content), Element::Text(length)) => {
                    let text = plain(content, scratch, start)?;
                    if text.last() == Some(&0) {
                        return Err(ends_in_zero());
                    }
                    write_text(text, length, file)?
                }
                (Leaf::Bytes(content), Element::Bytes(length)) => {
                    // The content is in the text or in the scratch buffer, so the bytes go straight into the file.
                    let end = write_bytes(plain(content, scratch, start)?, length, file)?;
                    if end == Some(Some(0)) {
                        return Err(ends_in_zero());
                    }
                    end.map(|_| ())
                }
                _ => None,
            };
            if written.is_some() {
                Ok(())
            } else {
                start.broken()
            }
        })
    }
}

/// The text of a string: as it is, or without escapes in the scratch buffer.
fn plain<'a>(
    content: &'a [u8],
    scratch: &'a mut Buffer,
    start: Reader,
) -> Result<&'a [u8], Problem> {
    if !content.contains(&b'\\') {
        return Ok(content);
    }
    scratch.consume(scratch.len());
    match unescape(content, scratch)? {
        Some(()) => Ok(scratch),
        None => start.broken(),
    }
}

/// The number of characters of a text, with one for each sequence of bytes that is not UTF-8.
fn characters(text: &[u8]) -> usize {
    let chunks = text.utf8_chunks();
    let counts = chunks.map(|c| c.valid().chars().count() + usize::from(!c.invalid().is_empty()));
    counts.sum()
}

/// Writes a number or word. `None` if it does not have this type.
fn write_word(word: &[u8], element: Element, file: &mut Buffer) -> Result<Option<()>, NoRoom> {
    let text = str::from_utf8(word).unwrap_or_default();
    match element {
        Element::F4 => {
            let Ok(number) = text.parse::<f32>() else {
                return Ok(None);
            };
            file.extend(&number.to_le_bytes())?;
        }
        Element::F8 => {
            let Ok(number) = text.parse::<f64>() else {
                return Ok(None);
            };
            file.extend(&number.to_le_bytes())?;
        }
        Element::Integer { bytes, .. } => {
            let Some(number) = whole(word) else {
                return Ok(None);
            };
            // All numbers fit, so the bytes that are left out only repeat the sign.
            file.extend(&number.to_le_bytes()[..bytes.into()])?;
        }
        Element::Bool => file.extend(&[u8::from(word == b"true")])?,
        Element::Text(_) | Element::Bytes(_) => return Ok(None),
    }
    Ok(Some(()))
}

/// Writes a text in UTF-32, with zeros up to `length` characters.
fn write_text(text: &[u8], length: usize, file: &mut Buffer) -> Result<Option<()>, NoRoom> {
    let end = file.len() + 4 * length;
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            file.extend(&u32::from(character).to_le_bytes())?;
        }
        if !chunk.invalid().is_empty() {
            file.extend(&u32::from(char::REPLACEMENT_CHARACTER).to_le_bytes())?;
        }
    }
    pad(file, end)
}

/// numpy fills strings up with zeros, and cannot tell them from zeros of the string.
fn ends_in_zero() -> Problem {
    Problem::unfit(
        "The response has strings that end with a zero byte, which numpy arrays cannot hold. Send Accept: \
         application/json.",
    )
}

/// Writes bytes from base64, with zeros up to `length` bytes. Returns the last byte, if there is one.
fn write_bytes(
    base64: &[u8],
    length: usize,
    file: &mut Buffer,
) -> Result<Option<Option<u8>>, NoRoom> {
    let end = file.len() + length;
    // Decoders need room for whole groups of four characters; what is too much is removed.
    let most = base64.len().div_ceil(4) * 3;
    file.reserve_exact(most)?;
    let start = file.len();
    let bytes = file.bytes_mut();
    bytes.resize(start + most, 0);
    let Ok(written) = STANDARD.decode_slice(base64, &mut bytes[start..]) else {
        return Ok(None);
    };
    bytes.truncate(start + written);
    let last = bytes[start..].last().copied();
    Ok(pad(file, end)?.map(|()| last))
}

/// Appends zeros up to this length. `None` if the file is longer.
fn pad(file: &mut Buffer, end: usize) -> Result<Option<()>, NoRoom> {
    let Some(missing) = end.checked_sub(file.len()) else {
        return Ok(None);
    };
    file.reserve_exact(missing)?;
    file.bytes_mut().resize(end, 0);
    Ok(Some(()))
}

/// The head of a file of version 1.0, as numpy writes it: with space for a first dimension of up to 20 digits, and a
/// length that is a multiple of 64.
fn header(element: Element, sizes: &[usize]) -> Vec<u8> {
    let list: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let growth = list.first().map_or(0, |first| 21 - first.len());
    let text = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{comma}), }}{:growth$}",
        element.descr(),
        list.join(", "),
        ""
    );
    const FIXED: usize = 10;
    let padding = 64 - (FIXED + text.len() + 1) % 64;
    let length = text.len() + padding + 1;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    // 64 sizes of 20 digits stay far below 65,536.
    header.extend((length as u16).to_le_bytes());
    header.extend(text.bytes());
    header.resize(header.len() + padding, b' ');
    header.push(b'\n');
    header
}
