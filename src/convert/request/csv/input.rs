//! One input of the model: how a field becomes an element, and how the elements of a row nest.

use super::number::{
    DOUBLE_DIGITS, SINGLE_DIGITS, is_missing, write_bool, write_bool_as_number, write_integer,
    write_number,
};
use super::reader::Field;
use crate::budget::{Buffer, NoRoom};
use crate::convert::signature::{Dtype, Kind, Tensor};
use crate::error::RequestError;

/// How fields are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Without a signature: bare numbers are numbers, other fields and all quoted ones strings.
    AsWritten,
    /// As floats. Whole numbers of more than this many digits get a fraction.
    Float(usize),
    /// As whole numbers of this type.
    Integer(Dtype),
    /// As truth values.
    Bool,
    /// As text.
    Text,
}

impl Reading {
    fn of(dtype: Dtype) -> Self {
        match dtype.kind() {
            Kind::Float if dtype == Dtype::Double => Self::Float(DOUBLE_DIGITS),
            Kind::Float => Self::Float(SINGLE_DIGITS),
            Kind::Integer => Self::Integer(dtype),
            Kind::Bool => Self::Bool,
            Kind::String => Self::Text,
            Kind::Other => Self::AsWritten,
        }
    }

    /// Writes a field as JSON. `false`: the field cannot be read this way.
    pub fn write(self, field: &Field, out: &mut Buffer) -> Result<bool, NoRoom> {
        if self == Self::AsWritten && field.is_quoted {
            field.write_text(out)?;
            return Ok(true);
        }
        let Some(text) = field.whole() else {
            return Ok(false);
        };
        match self {
            Self::AsWritten => {
                if !write_number(text, usize::MAX, out)? {
                    field.write_text(out)?;
                }
                Ok(true)
            }
            Self::Float(_) if is_missing(text) => {
                out.extend(b"NaN")?;
                Ok(true)
            }
            Self::Float(digits) => {
                Ok(write_number(text, digits, out)? || write_bool_as_number(text, out)?)
            }
            Self::Integer(dtype) => {
                let range = dtype.integer_range().unwrap_or((i128::MIN, i128::MAX));
                Ok(write_integer(text, range, out)? || write_bool_as_number(text, out)?)
            }
            Self::Bool => write_bool(text, out),
            Self::Text => {
                field.write_text(out)?;
                Ok(true)
            }
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::AsWritten | Self::Text => "text",
            Self::Float(_) => "a number",
            Self::Integer(_) => "a whole number of its range",
            Self::Bool => "true, false, 1 or 0",
        }
    }
}

/// How the elements of a row nest: the sizes of its dimensions, outermost first. Without dimensions, a row is one
/// element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nest {
    /// The number of elements in a list of each dimension, innermost first.
    elements: Vec<usize>,
}

impl Nest {
    /// One element, or a list of several.
    pub fn flat(columns: usize) -> Self {
        Self::of(if columns == 1 { &[] } else { &[1] }, columns)
    }

    /// Lists of these sizes; the outermost has what the inner ones leave of `columns`.
    fn of(sizes: &[usize], columns: usize) -> Self {
        let mut elements = Vec::with_capacity(sizes.len());
        let mut product = 1;
        for size in sizes.iter().skip(1).rev() {
            product *= size;
            elements.push(product);
        }
        if !sizes.is_empty() {
            elements.push(columns);
        }
        Self { elements }
    }

    /// Whether rows have at most one list around their elements.
    pub fn is_flat(&self) -> bool {
        self.elements.len() <= 1
    }

    /// Writes what stands before the first element.
    pub fn open(&self, out: &mut Buffer) -> Result<(), NoRoom> {
        self.elements.iter().try_for_each(|_| out.extend(b"["))
    }

    /// Writes what stands between the elements number `before` and the next.
    pub fn separate(&self, before: usize, out: &mut Buffer) -> Result<(), NoRoom> {
        let ends = self
            .elements
            .iter()
            .take_while(|&&n| before.is_multiple_of(n));
        let ends = ends.count();
        (0..ends).try_for_each(|_| out.extend(b"]"))?;
        out.extend(b",")?;
        (0..ends).try_for_each(|_| out.extend(b"["))
    }

    /// Writes what stands after the last element.
    pub fn close(&self, out: &mut Buffer) -> Result<(), NoRoom> {
        self.elements.iter().try_for_each(|_| out.extend(b"]"))
    }
}

/// An input and what its fields mean.
#[derive(Debug, Clone)]
pub struct Input {
    /// How its fields are read.
    pub reading: Reading,
    /// How they nest.
    pub nest: Nest,
    /// `input x is float32 of shape [-1, 4]`; empty if the input is not known.
    description: String,
}

impl Input {
    /// Fields of unknown type.
    pub fn unknown(columns: usize) -> Self {
        Self {
            reading: Reading::AsWritten,
            nest: Nest::flat(columns),
            description: String::new(),
        }
    }

    /// The input `tensor`, of which each row has `columns` elements.
    ///
    /// # Errors
    /// 400 if its shape takes another number of elements.
    pub fn of(tensor: &Tensor, columns: usize) -> Result<Self, RequestError> {
        let description = format!("input {} is {}", tensor.name, tensor.description());
        let Some(nest) = nest(tensor, columns) else {
            let hint = match tensor.dtype.kind() {
                Kind::String => {
                    " To send each row as one string, quote it, or set SAGEMAKER_TFS_CSV_ROW=string."
                }
                _ => "",
            };
            let fields = if columns == 1 { "field" } else { "fields" };
            return Err(RequestError::bad_request(format!(
                "CSV rows have {columns} {fields} for it, and {description}: they do not fit.{hint}"
            )));
        };
        Ok(Self {
            reading: Reading::of(tensor.dtype),
            nest,
            description,
        })
    }

    /// Writes a field of this row and column, both from 1, as JSON.
    ///
    /// # Errors
    /// 400 if the input does not take the field.
    pub fn write(
        &self,
        field: &Field,
        row: usize,
        column: usize,
        out: &mut Buffer,
    ) -> Result<(), RequestError> {
        if self.reading.write(field, out)? {
            return Ok(());
        }
        if !field.tail.is_empty() {
            return Err(RequestError::bad_request(format!(
                "CSV row {row}, column {column}: text follows the closing quote of {}; write each quote inside of a \
                 quoted field twice.",
                field.shortened()
            )));
        }
        let hint = match row {
            1 => " If the first line is a header, send Content-Type: text/csv; header=present.",
            _ => "",
        };
        Err(RequestError::bad_request(format!(
            "CSV row {row}, column {column}: {} is not {}, and {}.{hint}",
            field.shortened(),
            self.reading.expected(),
            self.description,
        )))
    }
}

/// How rows of `columns` elements nest for an input; `None` if they do not fit.
fn nest(tensor: &Tensor, columns: usize) -> Option<Nest> {
    let Some(sizes) = tensor.row_shape() else {
        return Some(Nest::flat(columns));
    };
    let known: Vec<usize> = sizes.iter().copied().flatten().collect();
    let product = known
        .iter()
        .try_fold(1_usize, |n, &size| n.checked_mul(size));
    let product = product.filter(|&n| n > 0 && columns.is_multiple_of(n));
    let fits = product.is_some_and(|n| match sizes.len() - known.len() {
        0 => n == columns,
        unknown => unknown == 1,
    });
    match product {
        // Graphs of TensorFlow 1 often take scalars where they list [-1, 1], and return scalars then.
        Some(1) if columns == 1 && !tensor.is_strict => Some(Nest::flat(1)),
        Some(product) if fits => {
            let rest = columns / product;
            let sizes: Vec<usize> = sizes.iter().map(|size| size.unwrap_or(rest)).collect();
            Some(Nest::of(&sizes, columns))
        }
        _ if tensor.is_strict => None,
        _ => Some(Nest::flat(columns)),
    }
}
