//! Converts a numpy array, in the format of `numpy.save`, into rows.
//!
//! `header.rs` reads what the file says about the array, `dtype.rs` knows the types, `text.rs` writes elements. This file
//! checks that data and header agree, and decides how the array becomes rows of the model's input.

mod dtype;
mod header;
mod text;

use self::dtype::{Class, ElementType};
use self::header::Header;
use self::text::{Conversion, Elements, Unwritable, write_number};
use super::{Rows, Target};
use crate::budget::Buffer;
use crate::convert::signature::Tensor;
use crate::error::RequestError;

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// The most lists that an array without elements becomes. A header of a hundred bytes may announce any number of them.
const MAX_EMPTY_LISTS: usize = 10_000;
/// The most sizes or indices of dimensions that a message shows.
const MAX_SHOWN_DIMENSIONS: usize = 8;
/// The most characters of a client's text that a message shows.
const MAX_SHOWN_CHARACTERS: usize = 80;

/// Converts an npy file. The first dimension counts the rows, unless the signature says that the array is one row.
///
/// # Errors
/// 400 for a broken file, an array that JSON cannot carry or an element that the input's type does not allow; 413 or
/// 503 when no memory is left for the conversion.
pub fn to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    if target.rows == Rows::Examples {
        return Err(RequestError::bad_request(
            "classify and regress need named features, which an npy array does not have; send JSON, or CSV with \
             header=present.",
        ));
    }
    let mut array = Array::parse(body, "The array".to_owned(), target.only_input())?;
    array.become_rows();
    let opening = target.opening();
    let mut out = body.sibling();
    let likely = opening.len() + array.likely_text() + 1;
    out.reserve_likely(likely, opening.len())?;
    out.extend(opening.as_bytes())?;
    array.write(&mut out)?;
    out.extend(b"}")?;
    release_unused(&mut out)?;
    Ok(out)
}

/// Gives memory back that a conversion reserved and did not need.
pub(super) fn release_unused(out: &mut Buffer) -> Result<(), RequestError> {
    if out.room() > out.len() / 4 {
        out.settle(0)?;
    }
    Ok(())
}

/// An array whose data has the size that its shape requires.
pub(super) struct Array<'a> {
    elements: Elements<'a>,
    shape: Vec<usize>,
    /// The distance between neighbors in each dimension, in bytes; 0 where there is at most one.
    strides: Vec<usize>,
    /// The subject of messages.
    label: String,
    /// The input that it is for.
    input: Option<&'a Tensor>,
}

impl<'a> Array<'a> {
    /// Reads a file. Messages begin with `label`. If the input that the array is for is known, its type decides how
    /// elements are written, and its shape whether the array is one row.
    ///
    /// # Errors
    /// 400 for a broken file or an array that JSON cannot carry.
    pub fn parse(
        file: &'a [u8],
        label: String,
        input: Option<&'a Tensor>,
    ) -> Result<Self, RequestError> {
        let Header {
            element,
            is_fortran,
            shape,
            length,
        } = Header::parse(file).map_err(|problem| wrong(&label, &problem))?;
        let data = &file[length..];
        let size = check_size(&shape, element, data.len());
        let count = size.map_err(|problem| wrong(&label, &problem))?;
        let conversion = Conversion::to(input.map(|input| input.dtype));
        let strides = match count {
            0 => vec![0; shape.len()], // there is nothing to find
            _ => strides(&shape, element.width, is_fortran),
        };
        let mut array = Self {
            elements: Elements {
                data,
                element,
                conversion,
            },
            shape,
            strides,
            label,
            input,
        };
        array.fit();
        Ok(array)
    }

    /// The size of each dimension, after the array was made to fit the input.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Adds dimensions of size 1 where the input's shape leaves no doubt that they were left out.
    fn fit(&mut self) {
        let Some(input) = self.input else { return };
        let Some(row) = input.row_shape() else { return };
        let is_each_a_row = input.is_strict && input.row_size() == Some(1);
        if is_each_a_row && !row.is_empty() && self.shape.len() <= 1 {
            // Each element is a row.
            self.become_rows();
            self.shape.resize(1 + row.len(), 1);
            self.strides.resize(1 + row.len(), 0);
            return;
        }
        let fits = |(size, wanted): (&usize, &Option<usize>)| wanted.is_none_or(|n| n == *size);
        if self.shape.len() == row.len() && self.shape.iter().zip(row).all(fits) {
            self.shape.insert(0, 1);
            self.strides.insert(0, 0);
        }
    }

    /// Makes a single value a list with one row.
    pub fn become_rows(&mut self) {
        if self.shape.is_empty() {
            self.shape.push(1);
            self.strides.push(0);
        }
    }

    /// How many bytes of text the array is likely to take.
    pub fn likely_text(&self) -> usize {
        let count = self.elements.data.len() / self.elements.element.width;
        let lists = match self.shape.last() {
            Some(&length) if length > 0 => count / length,
            _ => 0,
        };
        let brackets = lists.saturating_mul(3).saturating_add(2 * self.shape.len());
        let numbers = count.saturating_mul(self.elements.element.likely_text());
        numbers.saturating_add(brackets)
    }

    /// Writes the array as nested lists.
    ///
    /// # Errors
    /// 400 for an element that the input's type does not allow; 413 or 503 when no memory is left.
    pub fn write(&self, out: &mut Buffer) -> Result<(), RequestError> {
        let written = self.elements.write(0, &self.shape, &self.strides, out);
        written.map_err(|problem| self.unwritable(problem, None))
    }

    /// Writes one row of an array that has at least one dimension and more rows than `row`.
    ///
    /// # Errors
    /// As for [`Array::write`].
    pub fn write_row(&self, row: usize, out: &mut Buffer) -> Result<(), RequestError> {
        let start = row * self.strides[0];
        let written = self.elements.write(start, &self.shape[1..], &self.strides[1..], out);
        written.map_err(|problem| self.unwritable(problem, Some(row)))
    }

    fn unwritable(&self, problem: Unwritable, row: Option<usize>) -> RequestError {
        let (index, at) = match problem {
            Unwritable::NoRoom(no_room) => return no_room.into(),
            Unwritable::Element(index, at) => (index, at),
        };
        let index: Vec<_> = row.into_iter().chain(index).collect();
        let index = list(&index);
        let Elements { element, data, .. } = self.elements;
        if element.class == Class::Text {
            return wrong(
                &self.label,
                &format!("has a code point at {index} that is not a Unicode character"),
            );
        }
        let mut text = Vec::new();
        let bytes = &data[at..at + element.width];
        write_number(bytes, element, Conversion::None, &mut text);
        let value = String::from_utf8_lossy(&text);
        let (name, dtype) = match self.input {
            Some(input) => (shown(&input.name), input.dtype.name()),
            None => ("of the model".to_owned(), "of another type"),
        };
        let problem = format!(
            "has the element {value} at {index}, but the input {name} is {dtype}; convert it with astype(\"{dtype}\")"
        );
        wrong(&self.label, &problem)
    }
}

/// The number of elements.
///
/// # Errors
/// A sentence without its subject, if the data has another size, or the array would become too many empty lists.
fn check_size(shape: &[usize], element: ElementType, data: usize) -> Result<usize, String> {
    if let Some(level) = shape.iter().position(|&size| size == 0) {
        if data > 0 {
            return Err(format!(
                "has no elements (shape {}), but {data} bytes of data",
                list(shape)
            ));
        }
        let mut lists_here = 1usize;
        let mut lists = 0usize;
        for &size in &shape[..=level] {
            lists = lists.saturating_add(lists_here);
            lists_here = lists_here.saturating_mul(size);
        }
        if lists > MAX_EMPTY_LISTS {
            return Err(format!(
                "has no elements, but more than {MAX_EMPTY_LISTS} empty lists (shape {})",
                list(shape)
            ));
        }
        return Ok(0);
    }
    let product = |count: usize, &size: &usize| count.checked_mul(size);
    let count = shape.iter().try_fold(1, product);
    let needed = count.and_then(|count| count.checked_mul(element.width));
    match (count, needed) {
        (Some(count), Some(needed)) if needed == data => Ok(count),
        (_, Some(needed)) => Err(format!(
            "has {data} bytes of data, but its shape {} needs {needed}",
            list(shape)
        )),
        _ => Err(format!(
            "has {data} bytes of data, but its shape {} needs more than any memory",
            list(shape)
        )),
    }
}

/// The distance between neighbors in each dimension. The array has elements, so the products fit.
fn strides(shape: &[usize], width: usize, is_fortran: bool) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut distance = width;
    let mut next = |level: usize| {
        strides[level] = distance;
        distance *= shape[level];
    };
    if is_fortran {
        (0..shape.len()).for_each(&mut next);
    } else {
        (0..shape.len()).rev().for_each(&mut next);
    }
    strides
}

/// 400 with this subject.
fn wrong(label: &str, problem: &str) -> RequestError {
    RequestError::bad_request(format!("{label} {problem}."))
}

/// Numbers for a message.
fn list(numbers: &[usize]) -> String {
    let shown = numbers.iter().take(MAX_SHOWN_DIMENSIONS);
    let mut parts: Vec<_> = shown.map(usize::to_string).collect();
    if numbers.len() > MAX_SHOWN_DIMENSIONS {
        parts.push("...".to_owned());
    }
    format!("[{}]", parts.join(", "))
}

/// The start of a client's text for a message, quoted and escaped.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
