//! npy: elements stand where a recursive definition of C and Fortran order finds them, and keep their values.
//!
//! Input: a file; and the same bytes as type, order and shape (six bytes) and data of an array.

use sagemaker_tfs::convert::request::{Target, npy};
use serde_json::Value;

pub fn check(data: &[u8]) {
    if let Ok(output) = convert(data) {
        rows(&output);
    }
    let Some((&[kind, order, first, second, third, rank], data)) = data.split_first_chunk() else {
        return;
    };
    let array = Array::new(kind, order, &[first, second, third], rank, data);
    let output = convert(&array.file()).expect("the array is valid");
    let expected = array.nested();
    let expected = if array.shape.is_empty() {
        vec![expected]
    } else {
        expected.into_list()
    };
    assert_eq!(rows(&output), Nested::List(expected), "{output}");
}

fn convert(file: &[u8]) -> Result<String, u16> {
    let converted = npy::to_tfs(&file.to_vec().into(), &Target::default());
    match converted {
        Ok(output) => Ok(String::from_utf8(output.to_vec()).expect("the output is UTF-8")),
        Err(error) => {
            assert_eq!(error.status, 400, "{error}");
            assert!(error.text.len() < 2048);
            Err(error.status)
        }
    }
}

/// The rows of a request. Reads `NaN` and the infinities as strings.
fn rows(output: &str) -> Nested {
    let mut text = output.to_owned();
    // Strings are the only other place for these letters, and stay strings.
    if !text.contains('"') || !text[15..].contains('"') {
        text = text.replace("NaN", "\"NaN\"");
        text = text.replace("-Infinity", "\"-I\"");
        text = text.replace("Infinity", "\"I\"");
    }
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(1));
    Nested::of(&value["instances"])
}

/// An array in nested lists, with elements that can be compared.
#[derive(Debug, PartialEq, Clone)]
pub enum Nested {
    List(Vec<Nested>),
    /// A float by its value, with all that are not numbers equal.
    Float(u64),
    Integer(i128),
    Other(String),
}

impl Nested {
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Number(number) if number.is_f64() => float(number.as_f64().expect("a float")),
            Value::Number(number) => {
                let integer = number.as_i128().expect("integers have 64 bits");
                Self::Integer(integer)
            }
            Value::String(text) if text == "NaN" => float(f64::NAN),
            Value::String(text) if text == "I" => float(f64::INFINITY),
            Value::String(text) if text == "-I" => float(f64::NEG_INFINITY),
            other => Self::Other(other.to_string()),
        }
    }

    fn into_list(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            other => panic!("{other:?} is no list"),
        }
    }
}

fn float(value: f64) -> Nested {
    let value = if value.is_nan() { f64::NAN } else { value };
    Nested::Float(value.to_bits())
}

/// A valid array of numbers.
pub struct Array {
    code: &'static str,
    is_big_endian: bool,
    is_fortran: bool,
    pub shape: Vec<usize>,
    data: Vec<u8>,
}

/// Numpy's codes of number types, and what they are.
const CODES: [&str; 10] = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f8"];

impl Array {
    /// The array with these sizes modulo 4, as far as the rank says, and this data, repeated.
    pub fn new(kind: u8, order: u8, sizes: &[u8; 3], rank: u8, data: &[u8]) -> Self {
        let code = CODES[usize::from(kind) % CODES.len()];
        let sizes = sizes.iter().map(|&size| usize::from(size % 4));
        let shape: Vec<_> = sizes.take(usize::from(rank % 4)).collect();
        let width = usize::from(code.as_bytes()[1] - b'0');
        let length = shape.iter().product::<usize>() * width;
        let data = data.iter().chain(&[0]).cycle().copied();
        Self {
            code,
            is_big_endian: order & 1 == 1,
            is_fortran: order & 2 == 2,
            shape,
            data: data.take(length).collect(),
        }
    }

    /// The npy file.
    pub fn file(&self) -> Vec<u8> {
        let order = if self.is_big_endian { '>' } else { '<' };
        let sizes: String = self.shape.iter().map(|size| format!("{size},")).collect();
        let fortran = if self.is_fortran { "True" } else { "False" };
        let head = format!(
            "{{'shape': ({sizes}), 'fortran_order': {fortran}, 'descr': '{order}{}'}}",
            self.code
        );
        let length = u16::try_from(head.len())
            .expect("heads are short")
            .to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], head.as_bytes(), &self.data].concat()
    }

    /// The whole array.
    pub fn nested(&self) -> Nested {
        self.part(&mut Vec::new())
    }

    /// The part with this index.
    pub fn part(&self, index: &mut Vec<usize>) -> Nested {
        if let Some(&size) = self.shape.get(index.len()) {
            let items = (0..size).map(|i| {
                index.push(i);
                let item = self.part(index);
                index.pop();
                item
            });
            return Nested::List(items.collect());
        }
        // The number of elements before the one with this index.
        let fold = |before: usize, (&i, &size): (&usize, &usize)| before * size + i;
        let levels = index.iter().zip(&self.shape);
        let position = match self.is_fortran {
            false => levels.fold(0, fold),
            true => levels.rev().fold(0, fold),
        };
        let width = usize::from(self.code.as_bytes()[1] - b'0');
        let bytes = self.data.iter().skip(position * width).take(width);
        let digits: Vec<u8> = match self.is_big_endian {
            true => bytes.copied().collect(),
            false => bytes.rev().copied().collect(),
        };
        let bits = digits
            .iter()
            .fold(0, |bits: u64, &byte| bits << 8 | u64::from(byte));
        let modulus = 1i128 << (8 * width);
        match self.code.as_bytes()[0] {
            b'b' => Nested::Other((bits != 0).to_string()),
            b'f' => float(f64::from_bits(bits)),
            b'i' if i128::from(bits) >= modulus / 2 => Nested::Integer(i128::from(bits) - modulus),
            _ => Nested::Integer(bits.into()),
        }
    }
}
