//! The types of elements that npy files have, and which of them requests can carry.

use crate::error::shown;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `b1`: false or true.
    Bool,
    /// `i1` to `i8`.
    Signed,
    /// `u1` to `u8`.
    Unsigned,
    /// `f2`, `f4` and `f8`.
    Float,
    /// `S`: bytes, filled up with zeros.
    Bytes,
    /// `U`: code points of 32 bits, filled up with zeros.
    Text,
}

/// The type of all elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementType {
    /// What an element is.
    pub class: Class,
    /// The size of an element in bytes, at least 1.
    pub width: usize,
    /// Whether the most significant byte comes first.
    pub is_big_endian: bool,
}

impl ElementType {
    /// The type that numpy describes with this text, such as `<f4`.
    ///
    /// # Errors
    /// A sentence without its subject, such as `has the dtype ...`, for types that requests cannot carry.
    pub fn of(description: &str) -> Result<Self, String> {
        let (order, code) = match description.as_bytes() {
            [order @ (b'<' | b'>' | b'=' | b'|'), ..] => (*order, &description[1..]),
            _ => (b'=', description),
        };
        // `=` is the order of the machine that wrote the file; numpy writes `<` or `>` instead.
        let is_big_endian = match order {
            b'<' => false,
            b'>' => true,
            _ => cfg!(target_endian = "big"),
        };
        let class_and_unit = |class| (class, if class == Class::Text { 4 } else { 1 });
        let (class, unit) = class_and_unit(match code.as_bytes() {
            b"b1" => Class::Bool,
            b"i1" | b"i2" | b"i4" | b"i8" => Class::Signed,
            b"u1" | b"u2" | b"u4" | b"u8" => Class::Unsigned,
            b"f2" | b"f4" | b"f8" => Class::Float,
            [b'S', ..] => Class::Bytes,
            [b'U', ..] => Class::Text,
            _ => return Err(refusal(description, code)),
        });
        let digits = &code[1..];
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let width = digits.parse::<usize>().ok().filter(|_| is_number);
        match width.and_then(|width| width.checked_mul(unit)) {
            // An array of them has no data, whatever its shape.
            Some(0) => Err(format!(
                "has the dtype {}, strings of length 0; convert it with astype(\"{}1\")",
                shown(description),
                &code[..1]
            )),
            Some(width) => Ok(Self {
                class,
                width,
                is_big_endian,
            }),
            None => Err(refusal(description, code)),
        }
    }

    /// How many bytes of text an element is likely to take.
    pub fn likely_text(self) -> usize {
        match (self.class, self.width) {
            (Class::Bool, _) => 6,
            (Class::Float, 2) => 10,
            (Class::Float, 4) => 13,
            (Class::Float, _) => 21,
            (Class::Signed | Class::Unsigned, 8) => 12,
            (Class::Signed | Class::Unsigned, width) => 3 + 2 * width,
            (Class::Bytes, width) => width + 3,
            (Class::Text, width) => width / 4 + 3,
        }
    }
}

/// Why a type cannot be carried, and what to do.
fn refusal(description: &str, code: &str) -> String {
    let description = shown(description);
    match code.as_bytes().first() {
        Some(b'O') => format!(
            "has the dtype {description}: pickled Python objects are refused; convert it with astype(), for example \
             astype(\"float32\") or astype(str)"
        ),
        Some(b'c') => format!(
            "has the complex dtype {description}, which JSON cannot carry; send real and imaginary parts as floats"
        ),
        Some(b'M' | b'm') => format!(
            "has the dtype {description}, a date or duration, which JSON cannot carry; convert it with astype(\"int64\")"
        ),
        Some(b'f') if matches!(code, "f10" | "f12" | "f16") => format!(
            "has the dtype {description}, a long double, which JSON cannot carry; convert it with astype(\"float64\")"
        ),
        Some(b'V') => format!(
            "has the dtype {description}, raw records, which JSON cannot carry; send each field as an array"
        ),
        _ => format!(
            "has the dtype {description}, which is not supported; supported: b1, i1 to i8, u1 to u8, f2 to f8, S and U"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_numpys_types() {
        for (description, class, width) in [
            ("|b1", Class::Bool, 1),
            ("<i1", Class::Signed, 1),
            ("<i8", Class::Signed, 8),
            ("|u1", Class::Unsigned, 1),
            ("<u4", Class::Unsigned, 4),
            ("<f2", Class::Float, 2),
            ("=f4", Class::Float, 4),
            ("f8", Class::Float, 8),
            ("|S7", Class::Bytes, 7),
            ("<U3", Class::Text, 12),
        ] {
            let found = ElementType::of(description).unwrap();
            assert_eq!((found.class, found.width), (class, width), "{description}");
            assert!(cfg!(target_endian = "big") || !found.is_big_endian);
        }
        assert!(ElementType::of(">f4").unwrap().is_big_endian);
    }

    #[test]
    fn refuses_other_types_and_says_what_to_do() {
        for (description, part) in [
            ("|O", "astype"),
            ("<c8", "complex"),
            ("<M8[ns]", "int64"),
            ("<m8", "int64"),
            ("<f16", "float64"),
            ("<f12", "float64"),
            ("|V8", "each field"),
            ("|V0", "each field"),
            ("|S0", "length 0"),
            ("<U0", "length 0"),
            ("|S", "not supported"),
            ("<U+4", "not supported"),
            ("<U99999999999999999999", "not supported"),
            ("<U9223372036854775807", "not supported"),
            ("<i3", "not supported"),
            ("<f4 ", "not supported"),
            ("<i", "not supported"),
            ("<", "not supported"),
            ("", "not supported"),
            ("\u{e9}", "not supported"),
            ("<\u{e9}", "not supported"),
            ("S\u{e9}", "not supported"),
            ("<<f4", "not supported"),
        ] {
            let refused = ElementType::of(description).unwrap_err();
            assert!(refused.contains(part), "{description}: {refused}");
        }
        let long = ElementType::of(&"x".repeat(5000)).unwrap_err();
        assert!(long.len() < 300, "{long}");
    }
}
