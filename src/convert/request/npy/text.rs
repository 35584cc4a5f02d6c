//! Elements and arrays as JSON text.

use super::dtype::{Class, ElementType};
use crate::budget::{Buffer, NoRoom};
use crate::convert::request::records::write_base64;
use crate::convert::request::target::escape;
use crate::convert::signature::{Dtype, Kind};

/// The longest text of a number, with a comma: 24 bytes for a float, 22 for an integer with `.0`.
const MAX_NUMBER: usize = 32;
/// The float32 values whose shortest text TensorFlow Serving does not read back, without their sign, and a text that it
/// does. It reads every number as a float64 and rounds that to float32; a test of all values found these two.
const UNSAFE_F32: [(u32, &str); 2] = [
    // Beyond the largest float32 as a float64, and refused though it would round to it.
    (0x7f7f_ffff, "3.4028234e+38"),
    // Rounds to the neighbor when it is rounded twice.
    (0x15ae_43fd, "7.0385307e-26"),
];

/// Below this number, every integer is exact as a float64.
const DOUBLE_EXACT: u64 = 1 << 53;

/// What TensorFlow Serving takes for the type of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// Each element as what it is.
    None,
    /// Numbers. Integers up to this one (exclusive) are exact in the type; TensorFlow Serving refuses larger ones unless
    /// they are written as floats.
    ToFloat(u64),
    /// Whole numbers from the first to the second.
    ToInteger(i128, i128),
    /// `true` and `false` only.
    ToBool,
}

impl Conversion {
    /// The conversion for an input of this type, or for one whose type is not known.
    pub fn to(dtype: Option<Dtype>) -> Self {
        match dtype.map(|dtype| (dtype, dtype.kind())) {
            Some((Dtype::Double, _)) => Self::ToFloat(DOUBLE_EXACT),
            Some((_, Kind::Float)) => Self::ToFloat(1 << 24),
            Some((dtype, Kind::Integer)) => {
                let (low, high) = dtype.integer_range().unwrap_or((i128::MIN, i128::MAX));
                Self::ToInteger(low, high)
            }
            Some((_, Kind::Bool)) => Self::ToBool,
            Some((_, Kind::String | Kind::Other)) | None => Self::None,
        }
    }
}

/// The elements of an array and how to write them.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a> {
    /// The bytes of all elements.
    pub data: &'a [u8],
    /// Their type.
    pub element: ElementType,
    /// What becomes of them.
    pub conversion: Conversion,
}

/// Why an array cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// No memory is left for the text.
    NoRoom(NoRoom),
    /// The conversion does not allow this element: its index in the part that is written, and the position of its
    /// first byte.
    Element(Vec<usize>, usize),
}

impl From<NoRoom> for Unwritable {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

impl Elements<'_> {
    /// Writes a part of an array as nested lists. The part begins with the byte at `start`; `strides` are the distances
    /// between neighbors in each dimension, in bytes.
    ///
    /// The time is linear in the length of the text.
    ///
    /// # Errors
    /// When no memory is left, or the conversion does not allow an element.
    pub fn write(
        &self,
        start: usize,
        shape: &[usize],
        strides: &[usize],
        out: &mut Buffer,
    ) -> Result<(), Unwritable> {
        // A list without elements does not show the dimensions behind it.
        let levels = shape.iter().position(|&size| size == 0);
        let levels = levels.map_or(shape.len(), |level| level + 1);
        let (Some((&length, outer)), Some((&step, outer_steps))) =
            (shape[..levels].split_last(), strides[..levels].split_last())
        else {
            return self.write_element(start, out, Vec::new);
        };
        let mut index = vec![0; outer.len()];
        let mut at = start;
        make_room(out, 2 * levels)?;
        out.bytes_mut().extend(std::iter::repeat_n(b'[', levels));
        loop {
            for last in 0..length {
                if last > 0 {
                    out.bytes_mut().push(b',');
                }
                let position = || [&index[..], &[last]].concat();
                self.write_element(at + last * step, out, position)?;
            }
            // The next list begins where the last dimension that is not at its end advances.
            make_room(out, 2 * levels)?;
            let text = out.bytes_mut();
            text.push(b']');
            let mut level = outer.len();
            loop {
                if level == 0 {
                    return Ok(());
                }
                level -= 1;
                index[level] += 1;
                at += outer_steps[level];
                if index[level] < outer[level] {
                    break;
                }
                at -= index[level] * outer_steps[level];
                index[level] = 0;
                text.push(b']');
            }
            text.push(b',');
            text.extend(std::iter::repeat_n(b'[', levels - 1 - level));
        }
    }

    /// Writes one element and leaves room for a comma.
    fn write_element(
        &self,
        at: usize,
        out: &mut Buffer,
        position: impl Fn() -> Vec<usize>,
    ) -> Result<(), Unwritable> {
        let bytes = &self.data[at..at + self.element.width];
        make_room(out, MAX_NUMBER)?;
        let is_written = match self.element.class {
            Class::Bytes => return write_bytes(bytes, out).map_err(Unwritable::NoRoom),
            Class::Text => write_text(bytes, self.element.is_big_endian, out)?,
            _ => write_number(bytes, self.element, self.conversion, out.bytes_mut()),
        };
        if is_written {
            return Ok(());
        }
        Err(Unwritable::Element(position(), at))
    }
}

/// Makes room for `least` bytes. Grows by a half at least, and by a sixteenth when memory is short, so that few
/// reallocations copy the text.
#[inline]
pub fn make_room(out: &mut Buffer, least: usize) -> Result<(), NoRoom> {
    if out.room() >= least {
        return Ok(());
    }
    let length = out.len();
    out.reserve_likely(least.max(length / 2), least.max(length / 16))
}

/// Writes a number or bool of at most `MAX_NUMBER - 1` bytes. `false`: the conversion does not allow it.
pub fn write_number(
    bytes: &[u8],
    element: ElementType,
    conversion: Conversion,
    text: &mut Vec<u8>,
) -> bool {
    let big = element.is_big_endian;
    match (element.class, element.width) {
        (Class::Bool, _) => {
            write_bool(bytes != [0], conversion, text);
            true
        }
        (Class::Float, 2 | 4) => {
            let value = match element.width {
                2 => f32_of_half(bits(bytes, big) as u16),
                _ => f32::from_bits(bits(bytes, big) as u32),
            };
            match conversion {
                // The shortest text of a float32 is another number as a float64.
                Conversion::ToFloat(DOUBLE_EXACT) => write_f64(value.into(), conversion, text),
                _ => write_f32(value, conversion, text),
            }
        }
        (Class::Float, _) => write_f64(f64::from_bits(bits(bytes, big)), conversion, text),
        (Class::Signed, width) => {
            let unused = 64 - 8 * u32::try_from(width).unwrap_or(8);
            let number = ((bits(bytes, big) << unused) as i64) >> unused;
            write_integer(number < 0, number.unsigned_abs(), conversion, text)
        }
        _ => write_integer(false, bits(bytes, big), conversion, text),
    }
}

/// Up to eight bytes as an unsigned number.
fn bits(bytes: &[u8], is_big_endian: bool) -> u64 {
    // Separate cases, because copies of fixed size take one instruction.
    let number = match *bytes {
        [a] => return u64::from(a),
        [a, b] if is_big_endian => return u64::from(u16::from_be_bytes([a, b])),
        [a, b] => return u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] if is_big_endian => return u64::from(u32::from_be_bytes([a, b, c, d])),
        [a, b, c, d] => return u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0, // no number has another width
    };
    if is_big_endian {
        number.swap_bytes()
    } else {
        number
    }
}

fn f32_of_half(half: u16) -> f32 {
    /// The value of the last bit of the smallest numbers: 2 to the power of -24.
    const STEP: f32 = 1.0 / 16_777_216.0;
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 31;
    let fraction = u32::from(half & 0x3ff);
    let magnitude = match exponent {
        0 => (fraction as f32 * STEP).to_bits(),
        31 => f32::INFINITY.to_bits() | (fraction << 13),
        _ => ((exponent + (127 - 15)) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

fn write_bool(value: bool, conversion: Conversion, text: &mut Vec<u8>) {
    let word: &[u8] = match (conversion, value) {
        (Conversion::None | Conversion::ToBool, true) => b"true",
        (Conversion::None | Conversion::ToBool, false) => b"false",
        (Conversion::ToFloat(_) | Conversion::ToInteger(..), true) => b"1",
        (Conversion::ToFloat(_) | Conversion::ToInteger(..), false) => b"0",
    };
    text.extend_from_slice(word);
}

fn write_integer(
    is_negative: bool,
    magnitude: u64,
    conversion: Conversion,
    text: &mut Vec<u8>,
) -> bool {
    if conversion == Conversion::ToBool {
        if magnitude > 1 || is_negative {
            return false;
        }
        write_bool(magnitude == 1, conversion, text);
        return true;
    }
    if let Conversion::ToInteger(low, high) = conversion {
        let magnitude = i128::from(magnitude);
        let number = if is_negative { -magnitude } else { magnitude };
        if !(low..=high).contains(&number) {
            return false;
        }
    }
    if is_negative {
        text.push(b'-');
    }
    text.extend_from_slice(itoa::Buffer::new().format(magnitude).as_bytes());
    if matches!(conversion, Conversion::ToFloat(inexact) if magnitude >= inexact) {
        text.extend_from_slice(b".0");
    }
    true
}

fn write_f32(value: f32, conversion: Conversion, text: &mut Vec<u8>) -> bool {
    let is_plain = matches!(conversion, Conversion::None | Conversion::ToFloat(_));
    if !is_plain || !value.is_finite() {
        return write_f64(value.into(), conversion, text);
    }
    let magnitude = value.abs().to_bits();
    for (bits, safe) in UNSAFE_F32 {
        if magnitude == bits {
            text.extend_from_slice(if value < 0.0 { b"-" } else { b"" });
            text.extend_from_slice(safe.as_bytes());
            return true;
        }
    }
    text.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    true
}

fn write_f64(value: f64, conversion: Conversion, text: &mut Vec<u8>) -> bool {
    /// 2 to the power of 63 and 64: the ends of the integer types.
    const END_SIGNED: f64 = 9_223_372_036_854_775_808.0;
    const END_UNSIGNED: f64 = 2.0 * END_SIGNED;
    match conversion {
        Conversion::ToInteger(..) => {
            let is_whole = value.trunc() == value && (-END_SIGNED..END_UNSIGNED).contains(&value);
            // The cast is exact for whole numbers in this range.
            is_whole && write_integer(value < 0.0, value.abs() as u64, conversion, text)
        }
        Conversion::ToBool => {
            let is_bool = value == 0.0 || value == 1.0;
            is_bool && write_integer(false, value as u64, conversion, text)
        }
        Conversion::None | Conversion::ToFloat(_) => {
            if value.is_nan() {
                text.extend_from_slice(b"NaN");
            } else if value.is_infinite() {
                let word: &[u8] = if value < 0.0 {
                    b"-Infinity"
                } else {
                    b"Infinity"
                };
                text.extend_from_slice(word);
            } else {
                text.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
            }
            true
        }
    }
}

/// Writes bytes as a string if they are UTF-8, and as base64 otherwise. numpy does not count zeros at the end.
fn write_bytes(bytes: &[u8], out: &mut Buffer) -> Result<(), NoRoom> {
    let length = bytes.iter().rposition(|&byte| byte != 0);
    let bytes = &bytes[..length.map_or(0, |last| last + 1)];
    if str::from_utf8(bytes).is_ok() {
        make_room(out, bytes.len() + MAX_NUMBER)?;
        out.extend(b"\"")?;
        escape(bytes, out)?;
        out.extend(b"\"")?;
    } else {
        make_room(out, bytes.len().div_ceil(3) * 4 + MAX_NUMBER)?;
        out.extend(b"{\"b64\": \"")?;
        write_base64(bytes, out)?;
        out.extend(b"\"}")?;
    }
    make_room(out, 1)
}

/// Writes code points as a string. numpy does not count zeros at the end. `false`: one of them is not a character.
fn write_text(bytes: &[u8], is_big_endian: bool, out: &mut Buffer) -> Result<bool, NoRoom> {
    let length = bytes.iter().rposition(|&byte| byte != 0);
    let length = length.map_or(0, |last| last / 4 + 1);
    out.extend(b"\"")?;
    for point in bytes.chunks_exact(4).take(length) {
        let Some(character) = char::from_u32(bits(point, is_big_endian) as u32) else {
            return Ok(false);
        };
        make_room(out, MAX_NUMBER)?;
        escape(character.encode_utf8(&mut [0; 4]).as_bytes(), out)?;
    }
    make_room(out, 2)?;
    out.extend(b"\"")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(description: &str, bytes: &[u8], dtype: Option<Dtype>) -> Option<String> {
        let element = ElementType::of(description).unwrap();
        let mut text = Vec::new();
        let is_written = write_number(bytes, element, Conversion::to(dtype), &mut text);
        is_written.then(|| String::from_utf8(text).unwrap())
    }

    #[test]
    fn reads_numbers_of_all_widths_and_orders() {
        for (description, bytes, expected) in [
            ("|i1", &[0x80][..], "-128"),
            ("|u1", &[0x80], "128"),
            ("<i2", &[0xff, 0xff], "-1"),
            (">i2", &[0x01, 0x02], "258"),
            ("<u2", &[0x01, 0x02], "513"),
            (">u4", &[0xff, 0, 0, 1], "4278190081"),
            ("<i4", &[0, 0, 0, 0x80], "-2147483648"),
            (">i8", &[0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
            ("<u8", &[0xff; 8], "18446744073709551615"),
            ("<f2", &[0x00, 0x3c], "1.0"),
            (">f2", &[0xc0, 0x00], "-2.0"),
            ("<f4", &0.1f32.to_le_bytes(), "0.1"),
            (">f4", &1e10f32.to_be_bytes(), "10000000000.0"),
            ("<f8", &(-0.1f64).to_le_bytes(), "-0.1"),
            (">f8", &1e300f64.to_be_bytes(), "1e+300"),
            ("|b1", &[0], "false"),
            ("|b1", &[1], "true"),
            ("|b1", &[2], "true"),
        ] {
            let found = number(description, bytes, None);
            assert_eq!(found.as_deref(), Some(expected), "{description} {bytes:?}");
        }
    }

    #[test]
    fn halves_are_exact() {
        for half in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
            };
            let expected = if half >> 15 == 1 {
                -magnitude
            } else {
                magnitude
            };
            let found = f64::from(f32_of_half(half));
            assert!(
                found == expected || (found.is_nan() && expected.is_nan()),
                "{half:04x}"
            );
        }
    }

    #[test]
    fn values_whose_shortest_text_is_not_read_back_get_another() {
        for (value, expected) in [
            (f32::MAX, "3.4028234e+38"),
            (f32::MIN, "-3.4028234e+38"),
            (f32::MAX.next_down(), "3.4028233e+38"),
            (f32::from_bits(0x15ae_43fd), "7.0385307e-26"),
            (-f32::from_bits(0x15ae_43fd), "-7.0385307e-26"),
            (f32::from_bits(1), "1e-45"),
        ] {
            let text = number("<f4", &value.to_le_bytes(), Some(Dtype::Float)).unwrap();
            assert_eq!(text, expected);
            let double: f64 = text.parse().unwrap();
            assert_eq!(double as f32, value);
            assert!(double.abs() <= f64::from(f32::MAX), "{text} is refused");
        }
    }

    #[test]
    fn converts_to_the_type_of_the_input() {
        let f64s = |value: f64| value.to_le_bytes();
        let i64s = |value: i64| value.to_le_bytes();
        let (float, double) = (Some(Dtype::Float), Some(Dtype::Double));
        let (integer, boolean) = (Some(Dtype::Int64), Some(Dtype::Bool));
        let (small, unsigned) = (Some(Dtype::Uint8), Some(Dtype::Uint64));
        for (description, bytes, dtype, expected) in [
            ("<i8", i64s((1 << 24) - 1), float, Some("16777215")),
            ("<i8", i64s(1 << 24), float, Some("16777216.0")),
            (
                "<i8",
                i64s(-(1 << 24)),
                Some(Dtype::Half),
                Some("-16777216.0"),
            ),
            ("<i8", i64s(1 << 24), double, Some("16777216")),
            ("<i8", i64s(1 << 53), double, Some("9007199254740992.0")),
            ("<u8", [0xff; 8], double, Some("18446744073709551615.0")),
            (
                "<i8",
                i64s(1 << 53),
                Some(Dtype::String),
                Some("9007199254740992"),
            ),
            ("<i8", i64s(1), boolean, Some("true")),
            ("<i8", i64s(0), boolean, Some("false")),
            ("<i8", i64s(-1), boolean, None),
            ("<i8", i64s(2), boolean, None),
            ("<f8", f64s(2.0), integer, Some("2")),
            ("<f8", f64s(-0.0), integer, Some("0")),
            ("<f8", f64s(-3e9), integer, Some("-3000000000")),
            (
                "<f8",
                f64s(-9_223_372_036_854_775_808.0),
                integer,
                Some("-9223372036854775808"),
            ),
            (
                "<f8",
                f64s(18_446_744_073_709_549_568.0),
                unsigned,
                Some("18446744073709549568"),
            ),
            ("<f8", f64s(18_446_744_073_709_551_616.0), unsigned, None),
            ("<f8", f64s(18_446_744_073_709_549_568.0), integer, None),
            ("<f8", f64s(255.0), small, Some("255")),
            ("<f8", f64s(256.0), small, None),
            ("<f8", f64s(-1.0), small, None),
            ("<i8", i64s(255), small, Some("255")),
            ("<i8", i64s(300), small, None),
            ("<i8", i64s(-1), small, None),
            ("<i8", i64s(-1), unsigned, None),
            ("<u8", [0xff; 8], integer, None),
            ("<f8", f64s(-9_223_372_036_854_777_856.0), integer, None),
            ("<f8", f64s(0.5), integer, None),
            ("<f8", f64s(f64::NAN), integer, None),
            ("<f8", f64s(f64::INFINITY), integer, None),
            ("<f8", f64s(1.0), boolean, Some("true")),
            ("<f8", f64s(-0.0), boolean, Some("false")),
            ("<f8", f64s(0.5), boolean, None),
            ("<f8", f64s(f64::NAN), boolean, None),
            ("<f8", f64s(f64::NAN), float, Some("NaN")),
            ("<f8", f64s(f64::INFINITY), float, Some("Infinity")),
            ("<f8", f64s(f64::NEG_INFINITY), None, Some("-Infinity")),
        ] {
            let found = number(description, &bytes, dtype);
            assert_eq!(
                found.as_deref(),
                expected,
                "{description} {bytes:?} {dtype:?}"
            );
        }
        for (dtype, expected) in [
            (None, ["false", "true"]),
            (Some(Dtype::String), ["false", "true"]),
            (boolean, ["false", "true"]),
            (integer, ["0", "1"]),
            (float, ["0", "1"]),
        ] {
            let found = [0, 1].map(|byte| number("|b1", &[byte], dtype).unwrap());
            assert_eq!(found, expected, "{dtype:?}");
        }
        assert_eq!(number("<f4", &2f32.to_le_bytes(), integer).unwrap(), "2");
        assert_eq!(number("<f4", &f32::NAN.to_le_bytes(), None).unwrap(), "NaN");
        assert_eq!(number("<f2", &[0, 0xfc], None).unwrap(), "-Infinity");
    }

    fn written(description: &str, bytes: &[u8]) -> Option<String> {
        let element = ElementType::of(description).unwrap();
        let mut out = Buffer::default();
        let conversion = Conversion::None;
        let elements = Elements {
            data: bytes,
            element,
            conversion,
        };
        let result = elements.write(0, &[], &[], &mut out);
        result
            .ok()
            .map(|()| String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn writes_strings() {
        for (description, bytes, expected) in [
            ("|S4", &b"ab\0\0"[..], r#""ab""#),
            ("|S4", b"\0\0\0\0", r#""""#),
            ("|S4", b"a\0b\0", r#""a\u0000b""#),
            ("|S3", b"\"\\\n", r#""\"\\\n""#),
            ("|S2", b"\xc3\xa9", "\"\u{e9}\""),
            ("|S2", b"\xff\0", r#"{"b64": "/w=="}"#),
            ("<U2", b"a\0\0\0\0\0\0\0", r#""a""#),
            (">U2", b"\0\0\0a\0\0\0\0", r#""a""#),
            ("<U2", b"\0\0\0\0a\0\0\0", r#""\u0000a""#),
            ("<U1", b"\0\xf6\x01\0", "\"\u{1f600}\""),
            ("<U1", b"\0\x01\0\0", "\"\u{100}\""),
            ("<U1", b"\"\0\0\0", r#""\"""#),
        ] {
            let found = written(description, bytes);
            assert_eq!(found.as_deref(), Some(expected), "{description} {bytes:?}");
        }
        for point in [0xd800u32, 0x11_0000, u32::MAX] {
            assert_eq!(written("<U1", &point.to_le_bytes()), None);
        }
    }

    proptest! {
        /// JSON parsers read every finite number back, and see that it is a float.
        #[test]
        fn floats_are_json_numbers(double: f64, single: f32) {
            let texts = [
                number("<f8", &double.to_le_bytes(), None).unwrap(),
                number("<f4", &single.to_le_bytes(), None).unwrap(),
            ];
            let [double_text, single_text] = &texts;
            if double.is_finite() {
                prop_assert_eq!(serde_json::from_str::<f64>(double_text).unwrap(), double);
            }
            if single.is_finite() {
                prop_assert_eq!(serde_json::from_str::<f64>(single_text).unwrap() as f32, single);
            }
            for text in texts {
                prop_assert!(text.len() < MAX_NUMBER && text.contains(['.', 'e', 'N', 'I']), "{}", text);
            }
        }
    }
}
