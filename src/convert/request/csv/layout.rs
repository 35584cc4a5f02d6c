//! Decides, before rows are converted, how many fields a row has, which input each is for, and whether the first row is
//! a header.

use std::collections::BTreeMap;

use super::input::Input;
use super::reader::{Field, Reader};
use crate::budget::{Buffer, Reservation};
use crate::convert::request::target::{Header, Row, Rows, Target};
use crate::convert::signature::{Kind, Tensor};
use crate::error::RequestError;

/// Input names in a message, so that it stays short.
const MOST_NAMES: usize = 20;

/// How rows are converted.
#[derive(Debug)]
pub enum Layout {
    /// All fields of a row are for one input.
    One(Input),
    /// Each row is an object.
    Named(Named),
    /// Each line is one string, in this many lists.
    Line(usize),
}

/// The members of each row's object.
#[derive(Debug)]
pub struct Named {
    /// The members, in the order in which they are written.
    pub members: Vec<Member>,
    /// Memory for the members' columns and for the fields of a row.
    pub _memory: Option<Reservation>,
}

/// A member of each row's object.
#[derive(Debug)]
pub struct Member {
    /// The name.
    pub name: String,
    /// Its columns, from 0.
    pub columns: Vec<usize>,
    /// How they are read.
    pub input: Input,
}

/// How a body is converted.
#[derive(Debug)]
pub struct Plan {
    /// Fields in each row.
    pub columns: usize,
    /// How rows are converted.
    pub layout: Layout,
}

/// Plans the conversion. Leaves `reader` before the first row of data. `memory` belongs to the request.
///
/// # Errors
/// 400 if the rows or the header line do not fit the signature; 413 or 503 when no memory is left.
pub fn plan<'b>(
    reader: &mut Reader<'b>,
    header: Header,
    target: &Target,
    memory: &Buffer,
) -> Result<Plan, RequestError> {
    let mut first = reader.clone();
    if !first.next_row() {
        return Ok(unknown(1));
    }
    let inputs = match &target.signature {
        Some(signature) if target.csv_row != Row::Fields => signature.inputs.as_slice(),
        _ => &[],
    };
    let is_one_string = matches!(inputs, [input] if input.dtype.kind() == Kind::String);
    if target.csv_row == Row::String && is_one_string && target.rows == Rows::Instances {
        if header == Header::Present {
            first.line();
            *reader = first;
        }
        let lists = match &inputs[0] {
            input if input.is_strict => input.row_shape().map_or(0, <[_]>::len),
            _ => 0,
        };
        return Ok(Plan {
            columns: 1,
            layout: Layout::Line(lists),
        });
    }
    let mut after = first.clone();
    let columns = after.count_fields()?;
    let mut plan = Planner {
        columns,
        first_row_bytes: after.at - first.at,
        first,
        header,
        inputs,
        memory,
    };
    let planned = match (target.rows, inputs) {
        (Rows::Examples, _) => plan.examples()?,
        (_, []) => unknown(columns),
        (_, [input]) => plan.one(input)?,
        _ => plan.several()?,
    };
    if plan.header == Header::Present {
        *reader = after;
    }
    Ok(planned)
}

fn unknown(columns: usize) -> Plan {
    Plan {
        columns,
        layout: Layout::One(Input::unknown(columns)),
    }
}

struct Planner<'a, 'b> {
    /// At the first field of the first row.
    first: Reader<'b>,
    first_row_bytes: usize,
    columns: usize,
    /// No longer `Auto` once it has been decided.
    header: Header,
    inputs: &'a [Tensor],
    memory: &'a Buffer,
}

impl Planner<'_, '_> {
    fn one(&mut self, tensor: &Tensor) -> Result<Plan, RequestError> {
        let input = Input::of(tensor, self.columns)?;
        if self.header == Header::Auto {
            let is_data = self.first_row_is_data(|_| &input)?;
            self.decide(!is_data);
        }
        Ok(self.plan(Layout::One(input)))
    }

    fn several(&mut self) -> Result<Plan, RequestError> {
        if self.header == Header::Auto {
            let names_inputs = self.header_columns().is_ok();
            let is_header = names_inputs || !self.positions_are_data()?;
            self.decide(is_header);
        }
        let columns = match self.header {
            Header::Present => self.header_columns()?,
            _ => self.positions()?,
        };
        let members = self.inputs.iter().zip(columns).map(|(tensor, columns)| {
            let name = &tensor.name;
            if columns.is_empty() {
                return Err(RequestError::bad_request(format!(
                    "The CSV header has no column for input {name:?}; the inputs are {}.",
                    self.names()
                )));
            }
            Ok(Member {
                name: name.clone(),
                input: Input::of(tensor, columns.len())?,
                columns,
            })
        });
        let members = members.collect::<Result<Vec<_>, _>>()?;
        self.named(members)
    }

    /// Rows of classify and regress: objects with the features that the header names.
    fn examples(&mut self) -> Result<Plan, RequestError> {
        if self.header != Header::Present {
            return Err(RequestError::bad_request(
                "classify and regress take features by name: send Content-Type: text/csv; header=present, and a header \
                 line with the names of the features.",
            ));
        }
        let _memory = self.reserve_columns()?;
        let mut features: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut reader = self.first.clone();
        for column in 0..self.columns {
            let name = name(&reader.field()?);
            features.entry(name).or_default().push(column);
            reader.next_field();
        }
        let members = features.into_iter().map(|(name, columns)| Member {
            name,
            input: Input::unknown(columns.len()),
            columns,
        });
        let members = members.collect();
        self.named(members)
    }

    fn plan(&self, layout: Layout) -> Plan {
        Plan {
            columns: self.columns,
            layout,
        }
    }

    fn named(&self, members: Vec<Member>) -> Result<Plan, RequestError> {
        let memory = self.reserve_columns()?;
        Ok(self.plan(Layout::Named(Named {
            members,
            _memory: memory,
        })))
    }

    /// Reserves memory for what is kept for each column: its number, its name if it has one, and a field.
    fn reserve_columns(&self) -> Result<Option<Reservation>, RequestError> {
        const FOR_COLUMN: usize = 2 * size_of::<usize>() + size_of::<Field>();
        const FOR_NAME: usize = 2 * size_of::<(String, Vec<usize>)>();
        let names = match self.header {
            Header::Absent => 0,
            Header::Present | Header::Auto => FOR_NAME * self.columns + 2 * self.first_row_bytes,
        };
        let bytes = self
            .columns
            .saturating_mul(FOR_COLUMN)
            .saturating_add(names);
        Ok(self.memory.reserve_outside(bytes)?)
    }

    fn decide(&mut self, is_header: bool) {
        self.header = match is_header {
            true => Header::Present,
            false => Header::Absent,
        };
    }

    /// Whether every field of the first row can be read as its column's input.
    fn first_row_is_data<'i>(
        &self,
        input: impl Fn(usize) -> &'i Input,
    ) -> Result<bool, RequestError> {
        let mut reader = self.first.clone();
        let mut scratch = self.memory.sibling();
        for column in 0..self.columns {
            let field = reader.field()?;
            scratch.consume(scratch.len());
            if !input(column).reading.write(&field, &mut scratch)? {
                return Ok(false);
            }
            reader.next_field();
        }
        Ok(true)
    }

    fn positions_are_data(&self) -> Result<bool, RequestError> {
        if self.columns != self.inputs.len() {
            return Ok(true); // neither; `positions` says why
        }
        let inputs: Result<Vec<_>, _> = self.inputs.iter().map(|t| Input::of(t, 1)).collect();
        let Ok(inputs) = inputs else {
            return Ok(true);
        };
        self.first_row_is_data(|column| &inputs[column])
    }

    /// The column of each input by position.
    fn positions(&self) -> Result<Vec<Vec<usize>>, RequestError> {
        let takes_one = |tensor: &Tensor| match tensor.row_shape() {
            Some(_) => tensor.row_size() == Some(1),
            None => true,
        };
        let (columns, inputs) = (self.columns, self.inputs.len());
        if columns == inputs && self.inputs.iter().all(takes_one) {
            return Ok((0..columns).map(|column| vec![column]).collect());
        }
        let fields = if columns == 1 { "field" } else { "fields" };
        Err(RequestError::bad_request(format!(
            "The model has several inputs: {}. CSV rows of one field for each input, in this order, need no header; these \
             have {columns} {fields}. Otherwise send Content-Type: text/csv; header=present, and a header line with the \
             names of the inputs (NAME_0, NAME_1, ... for one that takes several fields).",
            self.names()
        )))
    }

    /// The columns of each input by the header line. An input of several fields has columns of its name with `_0`,
    /// `_1`, ... or `.1`, `.2`, ..., or several of its name.
    fn header_columns(&self) -> Result<Vec<Vec<usize>>, RequestError> {
        let _memory = self.reserve_columns()?;
        let names = self.inputs.iter().map(|tensor| tensor.name.as_str());
        let index: BTreeMap<&str, usize> = names.zip(0..).collect();
        let mut found: Vec<Vec<(u64, usize)>> = vec![Vec::new(); self.inputs.len()];
        let mut reader = self.first.clone();
        for column in 0..self.columns {
            let field = reader.field()?;
            let name = name(&field);
            let Some((input, number)) = input_of(&name, &index) else {
                let hint = if name.is_empty() {
                    " (pandas writes its index there unless index=False)"
                } else {
                    ""
                };
                return Err(RequestError::bad_request(format!(
                    "The CSV header's column {}, {}{hint}, is no input of the model; the inputs are {}.",
                    column + 1,
                    field.shortened(),
                    self.names()
                )));
            };
            found[input].push((number, column));
            reader.next_field();
        }
        let columns = found.into_iter().map(|mut columns| {
            columns.sort();
            columns.into_iter().map(|(_, column)| column).collect()
        });
        Ok(columns.collect())
    }

    fn names(&self) -> String {
        let names = self.inputs.iter().map(|tensor| tensor.name.as_str());
        let names: Vec<&str> = names.take(MOST_NAMES).collect();
        let more = match self.inputs.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", names.join(", "))
    }
}

/// The name in a header's field.
fn name(field: &Field) -> String {
    let text = String::from_utf8_lossy(field.text);
    let text = if field.is_quoted {
        text.replace("\"\"", "\"")
    } else {
        text.into_owned()
    };
    text.trim().to_owned()
}

/// The input that a column's name means, and the column's number among those of the input.
fn input_of(name: &str, inputs: &BTreeMap<&str, usize>) -> Option<(usize, u64)> {
    if let Some(&input) = inputs.get(name) {
        return Some((input, 0));
    }
    let (prefix, number) = name.rsplit_once(['_', '.'])?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number)?;
    Some((*inputs.get(prefix)?, number))
}
