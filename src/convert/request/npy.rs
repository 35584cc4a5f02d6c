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
use crate::error::{RequestError, shown};

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// The most lists that an array without elements becomes. A header of a hundred bytes may announce any number of them.
const MAX_EMPTY_LISTS: usize = 10_000;
/// The most sizes or indices of dimensions that a message shows.
const MAX_SHOWN_DIMENSIONS: usize = 8;

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
        let lists = input.lists_around_element();
        if lists > 0 && self.shape.len() <= 1 {
            // Each element is a row.
            self.become_rows();
            self.shape.resize(1 + lists, 1);
            self.strides.resize(1 + lists, 0);
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
        let written = self
            .elements
            .write(start, &self.shape[1..], &self.strides[1..], out);
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

#[cfg(test)]
pub(super) mod testing {
    use super::MAGIC;

    /// A file in format version 1.0.
    pub fn npy(descr: &str, is_fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let order = if is_fortran { "True" } else { "False" };
        let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
        let text =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({sizes}), }}\n");
        let text = text.replace(", )", ",)");
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, text.as_bytes(), data].concat()
    }

    pub fn f32s(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{f32s, npy};
    use super::*;
    use crate::budget::Budget;
    use crate::convert::signature::Dtype;
    use crate::convert::signature::testing::{signature, tensor};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn target(input: Tensor) -> Target {
        Target {
            signature: Some(signature(vec![input], Vec::new())),
            ..Target::default()
        }
    }

    fn converted(file: &[u8], target: &Target) -> Result<String, String> {
        let out = to_tfs(&file.to_vec().into(), target);
        let out = out.map_err(|error| {
            assert_eq!(error.status, 400);
            assert!(error.text.len() < 500, "{error}");
            error.text
        });
        out.map(|out| String::from_utf8(out.to_vec()).unwrap())
    }

    #[track_caller]
    fn check(file: &[u8], target: &Target, instances: &str) {
        let expected = format!("{{\"instances\": {instances}}}");
        assert_eq!(converted(file, target).unwrap(), expected);
    }

    fn refusal(file: &[u8]) -> String {
        converted(file, &Target::default()).unwrap_err()
    }

    #[test]
    fn the_first_dimension_counts_the_rows() {
        let data = [1, 2, 3, 4, 5, 6];
        for (shape, is_fortran, instances) in [
            (&[6][..], false, "[1,2,3,4,5,6]"),
            (&[2, 3], false, "[[1,2,3],[4,5,6]]"),
            (&[2, 3], true, "[[1,3,5],[2,4,6]]"),
            (&[3, 2, 1], false, "[[[1],[2]],[[3],[4]],[[5],[6]]]"),
            (&[3, 1, 2], true, "[[[1,4]],[[2,5]],[[3,6]]]"),
            (&[1, 1, 6], true, "[[[1,2,3,4,5,6]]]"),
        ] {
            let file = npy("|u1", is_fortran, shape, &data);
            check(&file, &Target::default(), instances);
        }
        check(&npy("|u1", false, &[], &[7]), &Target::default(), "[7]");
        check(&npy("|u1", true, &[], &[7]), &Target::default(), "[7]");
        let named = Target {
            signature_name: Some("s\"".into()),
            ..Target::default()
        };
        let out = converted(&npy("|u1", false, &[1], &[7]), &named).unwrap();
        assert_eq!(out, r#"{"signature_name": "s\"", "instances": [7]}"#);
    }

    #[test]
    fn the_signature_tells_one_row_from_several() {
        let float = |shape: &[i64]| tensor("x", Dtype::Float, shape);
        let loose = |shape: &[i64]| Tensor {
            is_strict: false,
            ..float(shape)
        };
        let unknown = Tensor {
            shape: None,
            ..float(&[])
        };
        for (input, shape, instances) in [
            (float(&[-1, 2]), &[2][..], "[[1.0,2.0]]"),
            (loose(&[-1, 2]), &[2], "[[1.0,2.0]]"),
            (float(&[-1, -1]), &[2], "[[1.0,2.0]]"),
            (float(&[-1, 3]), &[2], "[1.0,2.0]"),
            (float(&[-1]), &[2], "[1.0,2.0]"),
            (float(&[-1, 1]), &[2], "[[1.0],[2.0]]"),
            (float(&[-1, 1, 1]), &[2], "[[[1.0]],[[2.0]]]"),
            (loose(&[-1, 1]), &[2], "[1.0,2.0]"),
            (float(&[-1, 1]), &[2, 1], "[[1.0],[2.0]]"),
            (float(&[-1, 1, 2]), &[1, 2], "[[[1.0,2.0]]]"),
            (float(&[-1, 2, 1]), &[2], "[1.0,2.0]"),
            (float(&[-1, 2]), &[1, 2], "[[1.0,2.0]]"),
            (float(&[]), &[2], "[1.0,2.0]"),
            (unknown, &[2], "[1.0,2.0]"),
        ] {
            let file = npy("<f4", false, shape, &f32s(&[1.0, 2.0]));
            check(&file, &target(input.clone()), instances);
            check(
                &npy("<f4", true, shape, &f32s(&[1.0, 2.0])),
                &target(input),
                instances,
            );
        }
        let single = npy("<f4", false, &[], &f32s(&[1.0]));
        for (input, instances) in [
            (float(&[-1]), "[1.0]"),
            (float(&[-1, 1]), "[[1.0]]"),
            (float(&[-1, 1, 1]), "[[[1.0]]]"),
            (float(&[-1, 2]), "[1.0]"),
            (float(&[]), "[1.0]"),
        ] {
            check(&single, &target(input), instances);
        }
    }

    #[test]
    fn arrays_without_elements_become_few_lists_or_are_refused() {
        for (shape, instances) in [
            (&[0][..], "[]"),
            (&[0, 1_000_000_000_000_000_000], "[]"),
            (&[0, usize::MAX, usize::MAX], "[]"),
            (&[2, 0], "[[],[]]"),
            (&[2, 1, 0, 9], "[[[]],[[]]]"),
        ] {
            for is_fortran in [false, true] {
                check(
                    &npy("<f8", is_fortran, shape, &[]),
                    &Target::default(),
                    instances,
                );
            }
        }
        let mut deep = vec![1; 253];
        deep.push(0);
        assert!(converted(&npy("<f8", false, &deep, &[]), &Target::default()).is_ok());
        deep[0] = 1000;
        for shape in [
            &[1_000_000_000, 0][..],
            &[10_000, 0],
            &[usize::MAX, usize::MAX, 0],
            &[1, usize::MAX, usize::MAX, 0],
            &deep,
        ] {
            let error = refusal(&npy("|u1", false, shape, &[]));
            assert!(error.contains("empty lists"), "{error}");
        }
        assert!(refusal(&npy("|u1", false, &[0], &[1])).contains("1 bytes of data"));
    }

    #[test]
    fn data_must_have_the_size_that_the_shape_needs() {
        for (shape, length) in [
            (&[3][..], 11),
            (&[3], 13),
            (&[3], 0),
            (&[], 0),
            (&[], 5),
            (&[1 << 62], 0),
            (&[1 << 63, 2], 0),
            (&[usize::MAX], 4),
            (&[1 << 32, 1 << 32], 0),
        ] {
            let error = refusal(&npy("<f4", false, shape, &vec![0; length]));
            assert!(
                error.contains(&format!("has {length} bytes of data")),
                "{error}"
            );
        }
        let error = refusal(&npy("|O", false, &[1], b"\x80\x04K\x01."));
        assert!(
            error.starts_with("The array has the dtype \"|O\": pickled"),
            "{error}"
        );
    }

    #[test]
    fn elements_that_do_not_fit_the_input_are_named() {
        let integers = target(tensor("x", Dtype::Int32, &[-1, 2]));
        let file = npy("<f4", false, &[2, 2], &f32s(&[1.0, 2.0, 3.0, 4.5]));
        assert_eq!(
            converted(&file, &integers).unwrap_err(),
            "The array has the element 4.5 at [1, 1], but the input \"x\" is int32; convert it with astype(\"int32\")."
        );
        let file = npy("<f4", true, &[2, 2], &f32s(&[1.0, f32::NAN, 3.0, 4.0]));
        let error = converted(&file, &integers).unwrap_err();
        assert!(error.contains("element NaN at [1, 0]"), "{error}");
        let deep = npy("<u4", false, &[1; 254], &7u32.to_le_bytes());
        let bools = target(tensor("x", Dtype::Bool, &[-1]));
        let error = converted(&deep, &bools).unwrap_err();
        assert!(
            error.contains("7 at [0, 0, 0, 0, 0, 0, 0, 0, ...]"),
            "{error}"
        );
        let error = refusal(&npy("<U1", false, &[2], &[97, 0, 0, 0, 0, 0xd8, 0, 0]));
        assert!(error.contains("code point at [1]"), "{error}");
    }

    #[test]
    fn classify_and_regress_need_names() {
        let examples = Target {
            rows: Rows::Examples,
            ..Target::default()
        };
        let error = converted(&npy("|u1", false, &[1], &[7]), &examples).unwrap_err();
        assert!(error.contains("header=present"), "{error}");
    }

    #[test]
    fn deep_arrays_need_no_stack() {
        let file = npy("|u1", false, &[1; 254], &[7]);
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let convert = move || converted(&file, &Target::default()).unwrap();
        let text = small.spawn(convert).unwrap().join().unwrap();
        let expected = format!("{}7{}", "[".repeat(254), "]".repeat(254));
        assert_eq!(text, format!("{{\"instances\": {expected}}}"));
    }

    #[test]
    fn the_budget_limits_the_text() {
        let budget = Budget::new(1 << 20);
        let mut body = budget.arriving(0);
        body.extend(&npy("<f4", false, &[50_000], &[1; 200_000]))
            .unwrap();
        assert!(to_tfs(&body, &Target::default()).is_ok());
        body.consume(body.len());
        body.extend(&npy("<f4", false, &[100_000], &[1; 400_000]))
            .unwrap();
        assert_eq!(to_tfs(&body, &Target::default()).unwrap_err().status, 413);
        // Short text is not refused because long text was likely.
        body.consume(body.len());
        body.extend(&npy("<f4", false, &[100_000], &[0; 400_000]))
            .unwrap();
        let out = to_tfs(&body, &Target::default()).unwrap();
        assert!(out.room() <= out.len() / 4);
        // Few elements in many lists.
        let mut shape = [1; 254];
        shape[0] = 10_000;
        body.consume(body.len());
        body.extend(&npy("|u1", false, &shape, &[0; 10_000]))
            .unwrap();
        assert_eq!(to_tfs(&body, &Target::default()).unwrap_err().status, 413);
    }

    /// The part of an array from `offset` on, as nested lists: a second definition.
    fn nested(values: &[u16], shape: &[usize], strides: &[usize], offset: usize) -> Value {
        match shape {
            [] => json!(values[offset]),
            [size, rest @ ..] => (0..*size)
                .map(|i| nested(values, rest, &strides[1..], offset + i * strides[0]))
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn nests_like_a_second_definition(
            shape in prop::collection::vec(0..5usize, 0..5),
            is_fortran: bool,
            is_big: bool,
        ) {
            let count: usize = shape.iter().product();
            let values: Vec<u16> = (0..count).map(|i| (i * 257) as u16).collect();
            let order = |value: &u16| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
            let data: Vec<u8> = values.iter().flat_map(order).collect();
            let file = npy(if is_big { ">u2" } else { "<u2" }, is_fortran, &shape, &data);
            let strides: Vec<usize> = (0..shape.len())
                .map(|level| match is_fortran {
                    true => shape[..level].iter().product(),
                    false => shape[level + 1..].iter().product(),
                })
                .collect();
            let expected = nested(&values, &shape, &strides, 0);
            let expected = if shape.is_empty() { json!([expected]) } else { expected };
            let text = converted(&file, &Target::default()).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["instances"].clone(), expected);
        }

        #[test]
        fn damaged_files_never_panic(
            at in 0..120usize,
            byte: u8,
            end in 0..200usize,
            descr in prop_oneof![Just("<f4"), Just("<U1"), Just("|S4"), Just("<i4")],
        ) {
            let mut file = npy(descr, false, &[2, 3], &[0xe1; 24]);
            file.truncate(end);
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            let inputs = [Dtype::Int32, Dtype::Float, Dtype::String];
            for dtype in inputs {
                if let Ok(text) = converted(&file, &target(tensor("x", dtype, &[-1, 3]))) {
                    let text = text.replace("NaN", "0").replace("-Infinity", "0").replace("Infinity", "0");
                    prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
                }
            }
        }
    }
}
