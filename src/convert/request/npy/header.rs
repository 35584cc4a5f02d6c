//! The head of an npy file: the magic bytes, a version, and a Python dictionary that describes the array.

use super::MAGIC;
use super::dtype::ElementType;
use crate::error::shown;

/// The most dimensions that a tensor of TensorFlow has.
const MAX_RANK: usize = 254;
/// The longest dictionary. Those of arrays that requests can carry have a few hundred bytes; only the many fields of a
/// structured dtype, which is refused, need more.
const MAX_BYTES: usize = 64 << 10;

/// What the head says.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the elements.
    pub element: ElementType,
    /// Whether the first index changes fastest.
    pub is_fortran: bool,
    /// The size of each dimension; empty for a single value.
    pub shape: Vec<usize>,
    /// The number of bytes up to the data.
    pub length: usize,
}

impl Header {
    /// Reads the head of a file in format version 1.0, 2.0 or 3.0.
    ///
    /// # Errors
    /// A sentence without its subject, such as `is cut off`.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let Some(rest) = file.strip_prefix(MAGIC) else {
            return Err("does not begin like an npy file; write it with numpy.save".to_owned());
        };
        let cut_off = || "is cut off in its header".to_owned();
        let (&[major, minor], rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let (length, rest) = match (major, minor) {
            (1, 0) => {
                let (bytes, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
                (usize::from(u16::from_le_bytes(*bytes)), rest)
            }
            (2 | 3, 0) => {
                let (bytes, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
                let length = usize::try_from(u32::from_le_bytes(*bytes));
                (length.unwrap_or(usize::MAX), rest)
            }
            _ => {
                return Err(format!(
                    "has format version {major}.{minor}; supported: 1.0, 2.0 and 3.0"
                ));
            }
        };
        if length > MAX_BYTES {
            return Err(format!(
                "has a header of {length} bytes, more than {MAX_BYTES}"
            ));
        }
        let text = rest.get(..length).ok_or_else(cut_off)?;
        let Dictionary {
            element,
            is_fortran,
            shape,
        } = Literal(text).dictionary()?;
        Ok(Self {
            element,
            is_fortran,
            shape,
            length: file.len() - rest.len() + length,
        })
    }
}

/// The values of the dictionary.
struct Dictionary {
    element: ElementType,
    is_fortran: bool,
    shape: Vec<usize>,
}

/// Reads the part of Python's literals that numpy writes. Contains the unread text.
struct Literal<'a>(&'a [u8]);

impl Literal<'_> {
    fn dictionary(mut self) -> Result<Dictionary, String> {
        let (mut element, mut is_fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let is_new = match key.as_str() {
                "descr" => element.replace(self.element()?).is_none(),
                "fortran_order" => is_fortran.replace(self.boolean()?).is_none(),
                "shape" => shape.replace(self.shape()?).is_none(),
                _ => return Err(format!("has the unknown key {} in its header", shown(&key))),
            };
            if !is_new {
                return Err(format!("has the key {key:?} twice in its header"));
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        if self.peek().is_some() {
            return Err(self.unexpected("the end of the header"));
        }
        match (element, is_fortran, shape) {
            (Some(element), Some(is_fortran), Some(shape)) => Ok(Dictionary {
                element,
                is_fortran,
                shape,
            }),
            _ => Err("lacks descr, fortran_order or shape in its header".to_owned()),
        }
    }

    /// The value of `descr`.
    fn element(&mut self) -> Result<ElementType, String> {
        if matches!(self.peek(), Some(b'[' | b'(' | b'{')) {
            return Err(
                "has a structured dtype, which JSON cannot carry; send each field as an array of its own, for example \
                 with numpy.savez as application/x-npz"
                    .to_owned(),
            );
        }
        ElementType::of(&self.string()?)
    }

    /// A string without escapes in either kind of quotes.
    fn string(&mut self) -> Result<String, String> {
        let quote = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            _ => return Err(self.unexpected("a string")),
        };
        let rest = &self.0[1..];
        match memchr::memchr3(quote, b'\\', b'\n', rest) {
            Some(end) if rest[end] == quote => {
                self.0 = &rest[end + 1..];
                Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
            }
            _ => Err(self.unexpected("a plain string")),
        }
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.peek();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    /// A tuple of numbers; one with a single number has a comma.
    fn shape(&mut self) -> Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.take(b')') {
            if shape.len() == MAX_RANK {
                return Err(format!(
                    "has more than {MAX_RANK} dimensions, the most that TensorFlow supports"
                ));
            }
            shape.push(self.size()?);
            if !self.take(b',') {
                if shape.len() == 1 {
                    return Err(self.unexpected("a comma in the shape"));
                }
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    /// A whole number; Python 2 wrote some with an `L` behind them.
    fn size(&mut self) -> Result<usize, String> {
        self.peek();
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        if count == 0 || (count > 1 && digits[0] == b'0') {
            return Err(self.unexpected("a size of a dimension"));
        }
        self.0 = rest.strip_prefix(b"L").unwrap_or(rest);
        let size = str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
        size.ok_or_else(|| "has a dimension that is larger than any memory".to_owned())
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.first().copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.0 = &self.0[1..];
        }
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) {
            return Ok(());
        }
        Err(self.unexpected(&format!("{:?}", char::from(byte))))
    }

    fn unexpected(&self, expected: &str) -> String {
        let rest = String::from_utf8_lossy(&self.0[..self.0.len().min(20)]).into_owned();
        format!(
            "has a broken header: expected {expected} at {}",
            shown(&rest)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::dtype::Class;
    use super::*;

    fn file(version: u8, text: &[u8]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend([version, 0]);
        match version {
            1 => file.extend(u16::try_from(text.len()).unwrap().to_le_bytes()),
            _ => file.extend(u32::try_from(text.len()).unwrap().to_le_bytes()),
        }
        file.extend(text);
        file
    }

    fn parsed(text: &str) -> Result<Header, String> {
        Header::parse(&file(1, text.as_bytes()))
    }

    #[test]
    fn reads_what_numpy_writes_in_any_spelling() {
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }          \n",
            "{\"shape\":(3,4,),\"descr\":\"<f4\",\"fortran_order\":False}",
            " {'shape' : ( 3L , 4L ) , 'fortran_order' : False , 'descr' : '<f4' }\t\r\n",
        ] {
            for version in 1..=3 {
                let file = file(version, text.as_bytes());
                let header = Header::parse(&file).unwrap();
                let class = header.element.class;
                assert_eq!((class, header.element.width), (Class::Float, 4));
                assert!(!header.is_fortran && !header.element.is_big_endian);
                assert_eq!(header.shape, [3, 4], "{text}");
                assert_eq!(header.length, file.len());
                for end in 0..file.len() {
                    assert!(Header::parse(&file[..end]).is_err(), "{end}");
                }
            }
        }
        for (text, shape) in [("()", &[][..]), ("(7,)", &[7]), ("(0, 1)", &[0, 1])] {
            let text = format!("{{'descr':'|b1','fortran_order':True,'shape':{text}}}");
            let header = parsed(&text).unwrap();
            assert_eq!(header.shape, shape);
            assert!(header.is_fortran);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let rest = "'fortran_order': False, 'shape': (1,)}";
        for (text, part) in [
            ("".to_owned(), "broken"),
            ("{".to_owned(), "broken"),
            ("{}".to_owned(), "lacks"),
            ("{,}".to_owned(), "broken"),
            ("{'descr': '<f4'}".to_owned(), "lacks"),
            (format!("{{'descr': '|O', {rest}"), "pickled"),
            (format!("{{'descr': [('a', '<f4')], {rest}"), "structured"),
            (format!("{{'descr': ('<f4', (2,)), {rest}"), "structured"),
            (format!("{{'descr': '<f4, {rest}"), "not supported"),
            ("{'descr': '<f4".to_owned(), "broken"),
            (format!("{{'descr': '\\x3cf4', {rest}"), "broken"),
            (format!("{{'descr': 4, {rest}"), "broken"),
            (format!("{{'descr': '<f4', 'descr': '<f4', {rest}"), "twice"),
            (
                format!("{{'descr': '<f4', 'more': 1, {rest}"),
                "unknown key",
            ),
            (format!("{{'descr': '<f4' {rest}"), "broken"),
            (format!("{{'descr': '<f4', {rest} x"), "end of the header"),
            (format!("{{'descr': '<f4', {rest}\0"), "end of the header"),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (shape, part) in [
            ("(3)", "comma"),
            ("3", "broken"),
            ("[3, 4]", "broken"),
            ("(-1,)", "broken"),
            ("(1.0,)", "broken"),
            ("(03,)", "broken"),
            ("(1_0,)", "broken"),
            ("(,)", "broken"),
            ("(1,,)", "broken"),
            ("(3, 4", "broken"),
            ("(99999999999999999999,)", "larger than any memory"),
        ] {
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}");
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(part), "{shape}: {error}");
        }
        for order in ["0", "true", "None", "'False'"] {
            let text = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': ()}}");
            assert!(parsed(&text).unwrap_err().contains("True or False"));
        }
        let mut other = file(1, b"{}");
        other[6] = 4;
        assert!(Header::parse(&other).unwrap_err().contains("version 4.0"));
        assert!(
            Header::parse(b"PK\x03\x04")
                .unwrap_err()
                .contains("numpy.save")
        );
    }

    #[test]
    fn limits_dimensions_and_length() {
        let with_rank = |rank: usize| {
            let shape = "1, ".repeat(rank);
            parsed(&format!(
                "{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape})}}"
            ))
        };
        assert_eq!(with_rank(MAX_RANK).unwrap().shape.len(), MAX_RANK);
        assert!(with_rank(MAX_RANK + 1).unwrap_err().contains("254"));
        let long = file(2, &vec![b' '; MAX_BYTES + 1]);
        assert!(Header::parse(&long).unwrap_err().contains("65537 bytes"));
        let mut huge = file(2, b"");
        huge[8..12].fill(0xff);
        assert!(Header::parse(&huge).unwrap_err().contains("more than"));
    }
}
