//! The shape and the element type of an array, found by reading its values once.

use crate::convert::signature::{Dtype, Kind, Tensor};

use super::problem::Problem;
use super::reader::Reader;

/// The most dimensions that numpy reads.
const MAX_RANK: usize = 64;

/// A value that is no list, as it is written.
#[derive(Debug, Clone, Copy)]
pub enum Leaf<'a> {
    /// A number, or a word such as `true`.
    Word(&'a [u8]),
    /// The content of a string.
    Text(&'a [u8]),
    /// The base64 text of bytes.
    Bytes(&'a [u8]),
}

/// The sizes of an array's dimensions. Values are read one after another, and all must have the shape of the first.
#[derive(Debug, Default)]
pub struct Shape {
    /// `None` until the first list of this dimension has ended.
    sizes: Vec<Option<usize>>,
    /// Whether the number of dimensions is known.
    is_complete: bool,
    /// The elements so far of each open list.
    counts: Vec<usize>,
}

impl Shape {
    /// The sizes.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.sizes.iter().map(|size| size.unwrap_or(0))
    }

    /// Steps over a value and calls `see` with each of its leaves.
    ///
    /// # Errors
    /// For broken structure or another shape than before, and those of `see`.
    pub fn read<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        mut see: impl FnMut(Leaf<'a>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.counts.clear();
        loop {
            let is_list = reader.take(b'[')?;
            if is_list {
                self.open(reader)?;
                if !reader.take(b']')? {
                    continue;
                }
                self.is_complete = true;
                self.close(reader)?;
            } else {
                self.is_complete = true;
                if self.counts.len() != self.sizes.len() {
                    return reader.ragged();
                }
                see(leaf(reader)?)?;
            }
            // A value has ended, and with it perhaps some of the lists around it.
            loop {
                let Some(count) = self.counts.last_mut() else {
                    return Ok(());
                };
                *count += 1;
                if reader.take(b',')? {
                    break;
                }
                reader.expect(b']')?;
                self.close(reader)?;
            }
        }
    }

    fn open(&mut self, reader: &Reader) -> Result<(), Problem> {
        if self.counts.len() == self.sizes.len() {
            if self.is_complete {
                return reader.ragged();
            }
            if self.sizes.len() + 1 >= MAX_RANK {
                return Err(Problem::unfit(format!(
                    "An output has more than {MAX_RANK} dimensions, which numpy does not read. Send Accept: \
                     application/json."
                )));
            }
            self.sizes.push(None);
        }
        self.counts.push(0);
        Ok(())
    }

    fn close(&mut self, reader: &Reader) -> Result<(), Problem> {
        let count = self.counts.pop();
        match self.sizes.get_mut(self.counts.len()) {
            Some(size) if size.is_none() => *size = count,
            Some(size) if *size == count => {}
            _ => return reader.ragged(),
        }
        Ok(())
    }
}

fn leaf<'a>(reader: &mut Reader<'a>) -> Result<Leaf<'a>, Problem> {
    match reader.peek()? {
        b'"' => reader.string().map(Leaf::Text),
        b'{' => match reader.base64() {
            Some(content) => Ok(Leaf::Bytes(content)),
            None => reader.broken(),
        },
        _ => reader.word().map(Leaf::Word),
    }
}

/// What the leaves of an array are.
#[derive(Debug, Default)]
pub struct Survey {
    /// The number of leaves.
    pub count: usize,
    /// The kinds seen, by the constants below.
    kinds: u8,
    /// The least and the greatest whole number.
    lowest: i64,
    greatest: u64,
    /// The length of the longest string: in characters, or of bytes in bytes.
    longest: usize,
}

/// A whole number of at most 64 bits.
const WHOLE: u8 = 1;
/// Another number.
const REAL: u8 = 2;
const BOOL: u8 = 4;
const TEXT: u8 = 8;
const BYTES: u8 = 16;
const NULL: u8 = 32;

impl Survey {
    /// Notes a number or word. `None` if it is neither.
    pub fn see_word(&mut self, word: &[u8]) -> Option<()> {
        self.count += 1;
        self.kinds |= match word {
            [b'-' | b'0'..=b'9', ..] => match whole(word) {
                Some(number) => {
                    self.lowest = self.lowest.min(number.min(0) as i64);
                    self.greatest = self.greatest.max(number.max(0) as u64);
                    WHOLE
                }
                None => REAL,
            },
            b"true" | b"false" => BOOL,
            b"null" => NULL,
            b"NaN" | b"Infinity" => REAL,
            _ => return None,
        };
        Some(())
    }

    /// Notes a text of this many characters.
    pub fn see_text(&mut self, characters: usize) {
        self.count += 1;
        self.kinds |= TEXT;
        self.longest = self.longest.max(characters);
    }

    /// Notes a string of this many bytes.
    pub fn see_bytes(&mut self, bytes: usize) {
        self.count += 1;
        self.kinds |= BYTES;
        self.longest = self.longest.max(bytes);
    }

    /// The type of the array: as the signature says, if all values fit that, otherwise as the values need. `None` if no
    /// type fits all of them.
    pub fn element(&self, output: Option<&Tensor>) -> Option<Element> {
        let are_only = |kinds: u8| self.kinds & !kinds == 0;
        if let Some(output) = output {
            match (output.dtype, output.dtype.kind()) {
                (Dtype::Double, _) if are_only(WHOLE | REAL) => return Some(Element::F8),
                (_, Kind::Float) if are_only(WHOLE | REAL) => return Some(Element::F4),
                (dtype, Kind::Integer) if are_only(WHOLE) => {
                    let element = integer(dtype);
                    if self.fits(element) {
                        return Some(element);
                    }
                }
                (_, Kind::Bool) if are_only(BOOL) => return Some(Element::Bool),
                (_, Kind::String) if self.kinds == 0 => return Some(Element::Text(1)),
                _ => {}
            }
        }
        let long = Element::Integer {
            bytes: 8,
            is_signed: true,
        };
        let unsigned = Element::Integer {
            bytes: 8,
            is_signed: false,
        };
        // numpy has no strings of length 0.
        let longest = self.longest.max(1);
        match self.kinds {
            0 => Some(Element::F8),
            WHOLE if self.fits(long) => Some(long),
            WHOLE if self.fits(unsigned) => Some(unsigned),
            BOOL => Some(Element::Bool),
            TEXT => Some(Element::Text(longest)),
            BYTES => Some(Element::Bytes(longest)),
            _ if are_only(WHOLE | REAL) => Some(Element::F8),
            _ => None,
        }
    }

    /// Whether all whole numbers fit.
    fn fits(&self, element: Element) -> bool {
        let Element::Integer { bytes, is_signed } = element else {
            return false;
        };
        let unused = 64 - 8 * u32::from(bytes);
        match is_signed {
            true => {
                self.lowest >= i64::MIN >> unused && self.greatest <= (i64::MAX >> unused) as u64
            }
            false => self.lowest >= 0 && self.greatest <= u64::MAX >> unused,
        }
    }
}

/// The number, if the word is a whole one that fits a signed or an unsigned number of 64 bits.
pub fn whole(word: &[u8]) -> Option<i128> {
    let (is_negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    let number = i128::from(number);
    let number = if is_negative { -number } else { number };
    (number >= i64::MIN.into()).then_some(number)
}

fn integer(dtype: Dtype) -> Element {
    let (bytes, is_signed) = match dtype {
        Dtype::Int8 => (1, true),
        Dtype::Int16 => (2, true),
        Dtype::Int32 => (4, true),
        Dtype::Uint8 => (1, false),
        Dtype::Uint16 => (2, false),
        Dtype::Uint32 => (4, false),
        Dtype::Uint64 => (8, false),
        _ => (8, true),
    };
    Element::Integer { bytes, is_signed }
}

/// The type of an array's elements in numpy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `float32`.
    F4,
    /// `float64`.
    F8,
    /// `int8` to `uint64`.
    Integer {
        /// 1, 2, 4 or 8.
        bytes: u8,
        /// Whether there are negative ones.
        is_signed: bool,
    },
    /// `bool`.
    Bool,
    /// Text of up to this many characters, each as 4 bytes.
    Text(usize),
    /// Up to this many bytes.
    Bytes(usize),
}

impl Element {
    /// Bytes of one element. `None` if there is no such number.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::F4 => Some(4),
            Self::F8 => Some(8),
            Self::Integer { bytes, .. } => Some(bytes.into()),
            Self::Bool => Some(1),
            Self::Text(length) => length.checked_mul(4),
            Self::Bytes(length) => Some(length),
        }
    }

    /// The type as files have it: little-endian.
    pub fn descr(self) -> String {
        match self {
            Self::F4 => "<f4".into(),
            Self::F8 => "<f8".into(),
            Self::Integer { bytes, is_signed } => {
                let order = if bytes == 1 { '|' } else { '<' };
                let kind = if is_signed { 'i' } else { 'u' };
                format!("{order}{kind}{bytes}")
            }
            Self::Bool => "|b1".into(),
            Self::Text(length) => format!("<U{length}"),
            Self::Bytes(length) => format!("|S{length}"),
        }
    }
}
