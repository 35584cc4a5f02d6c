//! Decides, before rows are converted, how many fields a row has, which input each is for, and whether the first row is
//! a header.

use std::collections::BTreeMap;

use super::input::Input;
use super::number::{is_missing, is_number};
use super::reader::{Field, Reader};
use crate::budget::{Buffer, Reservation};
use crate::convert::request::target::{Header, Row, Rows, Target};
use crate::convert::signature::{Kind, Tensor};
use crate::error::{RequestError, shown};

/// Input names in a message, so that it stays short.
const MOST_NAMES: usize = 10;
/// The most columns that are kept by name.
const MAX_NAMED_COLUMNS: usize = 100_000;
/// The most bytes of a name in a header, which every row of the result repeats.
const MAX_NAME_BYTES: usize = 200;
const INDEX_HINT: &str = " (pandas writes its index there unless index=False)";

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
        if header == Header::Auto && !after.clone().next_row() {
            return Err(RequestError::bad_request(
                "Only a CSV header is there, and no row: the fields of the only line name the model's inputs, or cannot \
                 be read as data (SAGEMAKER_TFS_CSV_HEADER is auto).",
            ));
        }
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
            let names_input = self.header_columns().is_ok();
            let is_header = names_input || self.cannot_be_data(|_| Some(&input))?;
            self.decide(is_header);
        }
        if self.header == Header::Present && self.columns > 1 {
            self.check_first_name()?;
        }
        Ok(self.plan(Layout::One(input)))
    }

    fn several(&mut self) -> Result<Plan, RequestError> {
        if self.header == Header::Auto {
            let names_inputs = self.header_columns().is_ok();
            let is_header = names_inputs || self.positions_cannot_be_data()?;
            self.decide(is_header);
        }
        let columns = match self.header {
            Header::Present => self.header_columns()?,
            _ => self.positions()?,
        };
        let members = self.inputs.iter().zip(columns).map(|(tensor, columns)| {
            Ok(Member {
                name: tensor.name.clone(),
                input: Input::of(tensor, columns.len())?,
                columns,
            })
        });
        let members = members.collect::<Result<Vec<_>, RequestError>>()?;
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
        self.check_columns()?;
        let _memory = self.reserve_columns()?;
        let mut features: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut reader = self.first.clone();
        for column in 0..self.columns {
            let name = name(&reader.field()?)?;
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

    /// Whether no field of the first row can be read as its column's input, apart from those that say nothing.
    fn cannot_be_data<'i>(
        &self,
        input: impl Fn(usize) -> Option<&'i Input>,
    ) -> Result<bool, RequestError> {
        let mut reader = self.first.clone();
        let mut scratch = self.memory.sibling();
        let mut unreadable = 0;
        for column in 0..self.columns {
            let field = reader.field()?;
            reader.next_field();
            scratch.consume(scratch.len());
            match input(column) {
                // It may stand in a header as well as in data.
                Some(_) if field.whole().is_some_and(is_missing) => {}
                // Wrong data, but no name.
                _ if !field.tail.is_empty() || is_number(field.text) => return Ok(false),
                Some(input) if !input.reading.write(&field, &mut scratch)? => unreadable += 1,
                _ => return Ok(false),
            }
        }
        Ok(unreadable > 0)
    }

    fn positions_cannot_be_data(&self) -> Result<bool, RequestError> {
        if self.columns != self.inputs.len() {
            return Ok(false); // `positions` says what is wrong
        }
        let inputs: Vec<_> = self.inputs.iter().map(|t| Input::of(t, 1).ok()).collect();
        self.cannot_be_data(|column| inputs[column].as_ref())
    }

    /// Refuses a header whose first column has no name: that column is an index, not a part of the input.
    fn check_first_name(&self) -> Result<(), RequestError> {
        match name(&self.first.clone().field()?)?.is_empty() {
            false => Ok(()),
            true => Err(RequestError::bad_request(format!(
                "The CSV header's column 1 has no name{INDEX_HINT}."
            ))),
        }
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
        self.check_columns()?;
        let _memory = self.reserve_columns()?;
        let names = self.inputs.iter().map(|tensor| tensor.name.as_str());
        let index: BTreeMap<&str, usize> = names.zip(0..).collect();
        let mut found: Vec<Vec<(Option<u64>, usize)>> = vec![Vec::new(); self.inputs.len()];
        let mut reader = self.first.clone();
        for column in 0..self.columns {
            let field = reader.field()?;
            let name = name(&field)?;
            let Some((input, number)) = input_of(&name, &index) else {
                let hint = if name.is_empty() { INDEX_HINT } else { "" };
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
        let columns = self.inputs.iter().zip(found).map(|(tensor, mut columns)| {
            columns.sort();
            let problem = match columns.as_slice() {
                [] => "no column",
                _ if !are_consecutive(&columns) => {
                    "columns whose numbers do not follow one another"
                }
                _ => return Ok(columns.into_iter().map(|(_, column)| column).collect()),
            };
            Err(RequestError::bad_request(format!(
                "The CSV header has {problem} for input {}; the inputs are {}.",
                shown(&tensor.name),
                self.names()
            )))
        });
        columns.collect()
    }

    /// Refuses more columns than are kept by name.
    fn check_columns(&self) -> Result<(), RequestError> {
        match self.columns <= MAX_NAMED_COLUMNS {
            true => Ok(()),
            false => Err(RequestError::bad_request(format!(
                "The CSV has {} columns; at most {MAX_NAMED_COLUMNS} are found by their names.",
                self.columns
            ))),
        }
    }

    fn names(&self) -> String {
        let names = self
            .inputs
            .iter()
            .map(|tensor| shortened_name(&tensor.name));
        let names: Vec<String> = names.take(MOST_NAMES).collect();
        let more = match self.inputs.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", names.join(", "))
    }
}

/// The name in a header's field.
///
/// # Errors
/// 400 for a name that is too long, because every row repeats it, or whose quotes are wrong.
fn name(field: &Field) -> Result<String, RequestError> {
    if field.text.len() > MAX_NAME_BYTES {
        return Err(RequestError::bad_request(format!(
            "The CSV header has a name of {} bytes, {}; the most is {MAX_NAME_BYTES}.",
            field.text.len(),
            field.shortened()
        )));
    }
    if !field.tail.is_empty() {
        return Err(RequestError::bad_request(format!(
            "CSV row 1: text follows the closing quote of {}; write each quote inside of a quoted field twice.",
            field.shortened()
        )));
    }
    let text = String::from_utf8_lossy(field.text);
    let text = if field.is_quoted {
        text.replace("\"\"", "\"")
    } else {
        text.into_owned()
    };
    Ok(text.trim().to_owned())
}

/// The input that a column's name means, and the column's number among those of the input, if the name has one.
fn input_of(name: &str, inputs: &BTreeMap<&str, usize>) -> Option<(usize, Option<u64>)> {
    if let Some(&input) = inputs.get(name) {
        return Some((input, None));
    }
    let (prefix, number) = name.rsplit_once(['_', '.'])?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number)?;
    Some((*inputs.get(prefix)?, Some(number)))
}

/// Whether sorted columns have no numbers, or 0, 1, 2, ..., where the first may have none (as pandas writes it), or
/// 1, 2, 3, ....
fn are_consecutive(columns: &[(Option<u64>, usize)]) -> bool {
    if columns.iter().all(|(number, _)| number.is_none()) {
        return true;
    }
    let first = match columns[0].0 {
        None | Some(0) => 0,
        Some(_) => 1,
    };
    let mut expected = first..;
    columns.iter().all(|(number, _)| {
        let expected = expected.next();
        number.or(Some(first)) == expected
    })
}

/// An input's name for a list of names.
fn shortened_name(name: &str) -> String {
    const MOST: usize = 60;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}
