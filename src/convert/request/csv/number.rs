//! Numbers and truth values in the spellings that programs write, as JSON numbers and words that TensorFlow Serving
//! reads.

use crate::budget::{Buffer, NoRoom};

/// A float of 32 bits or less holds every whole number of up to 7 digits, one of 64 bits every one of up to 15.
/// TensorFlow Serving refuses larger whole numbers for floats, unless they have a fraction.
pub const SINGLE_DIGITS: usize = 7;
/// See [`SINGLE_DIGITS`].
pub const DOUBLE_DIGITS: usize = 15;
/// The most digits of an integer that is read: more than any type has, and few enough for `i128`.
const MAX_INTEGER_DIGITS: usize = 30;

/// The end of the field at `at` if the field is a valid JSON number. A whole number must have at most `digits` digits.
/// Without `FRACTIONS`, only whole numbers are valid; without `NEGATIVE`, only numbers without a sign.
#[inline(always)]
pub fn plain<const FRACTIONS: bool, const NEGATIVE: bool>(
    body: &[u8],
    mut at: usize,
    digits: usize,
) -> Option<usize> {
    let byte = |at: usize| body.get(at).copied();
    // Without a branch, because processors predict signs badly.
    at += usize::from(NEGATIVE && byte(at) == Some(b'-'));
    let integer = at;
    at = skip_digits(body, at);
    if at == integer || (byte(integer) == Some(b'0') && at > integer + 1) {
        return None;
    }
    let length = at - integer;
    let mut is_whole = true;
    if FRACTIONS && byte(at) == Some(b'.') {
        let fraction = at + 1;
        at = skip_digits(body, fraction);
        if at == fraction {
            return None;
        }
        is_whole = false;
    }
    if FRACTIONS && let Some(b'e' | b'E') = byte(at) {
        at += 1;
        if let Some(b'+' | b'-') = byte(at) {
            at += 1;
        }
        let exponent = at;
        at = skip_digits(body, exponent);
        if at == exponent {
            return None;
        }
        is_whole = false;
    }
    if is_whole && length > digits {
        return None;
    }
    matches!(byte(at), None | Some(b',' | b'\n' | b'\r')).then_some(at)
}

/// The end of the run of digits at `at`. Looks at eight bytes at a time, because most of a CSV body is numbers.
pub fn skip_digits(body: &[u8], mut at: usize) -> usize {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const TO_TOP_BIT: u64 = 0x7676_7676_7676_7676; // sets bit 7 of a byte that is 10 or more
    const TOP_BITS: u64 = 0x8080_8080_8080_8080;
    while let Some(eight) = body.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().expect("eight bytes")) ^ ZEROS;
        // Only a byte that is no digit carries into the next byte, so the first such byte is always right.
        let others = (word.wrapping_add(TO_TOP_BIT) | word) & TOP_BITS;
        if others != 0 {
            return at + (others.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while body.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// A number as it is written: sign, digits, fraction, exponent.
struct Parts<'a> {
    is_negative: bool,
    integer: &'a [u8],
    /// The digits after the point, if there is one.
    fraction: Option<&'a [u8]>,
    /// With its `e`; empty if there is none.
    exponent: &'a [u8],
}

impl<'a> Parts<'a> {
    /// The parts of a text without surrounding spaces; `None` if it is not a number in digits.
    fn of(text: &'a [u8]) -> Option<Self> {
        let (is_negative, text) = sign(text);
        let (integer, mut rest) = text.split_at(skip_digits(text, 0));
        let mut fraction = None;
        if let Some(after_point) = rest.strip_prefix(b".") {
            let (digits, after) = after_point.split_at(skip_digits(after_point, 0));
            fraction = Some(digits);
            rest = after;
        }
        if integer.is_empty() && fraction.is_none_or(<[u8]>::is_empty) {
            return None;
        }
        (rest.is_empty() || is_exponent(rest)).then_some(Self {
            is_negative,
            integer,
            fraction,
            exponent: rest,
        })
    }

    /// The digits before the point without leading zeros, but at least one.
    fn significant(&self) -> &'a [u8] {
        match self.integer.iter().position(|&digit| digit != b'0') {
            Some(first) => &self.integer[first..],
            None => b"0",
        }
    }

    /// The number if it is whole and has at most [`MAX_INTEGER_DIGITS`] digits.
    fn integer(&self) -> Option<i128> {
        let fraction = self.fraction.unwrap_or_default();
        let digits = || self.integer.iter().chain(fraction).copied();
        let all = self.integer.len() + fraction.len();
        let zeros = digits().take_while(|&digit| digit == b'0').count();
        if zeros == all {
            return Some(0);
        }
        let exponent = match self.exponent.get(1..) {
            Some(exponent) => std::str::from_utf8(exponent).ok()?.parse::<i64>().ok()?,
            None => 0,
        };
        // How many of the digits stand before the point.
        let before = i64::try_from(self.integer.len())
            .ok()?
            .checked_add(exponent)?;
        let before = usize::try_from(before)
            .ok()
            .filter(|&before| before > zeros)?;
        if before - zeros > MAX_INTEGER_DIGITS || digits().skip(before).any(|digit| digit != b'0') {
            return None;
        }
        let padded = digits().chain(std::iter::repeat(b'0'));
        let number = padded.skip(zeros).take(before - zeros);
        let number = number.fold(0, |number, digit| number * 10 + i128::from(digit - b'0'));
        Some(if self.is_negative { -number } else { number })
    }
}

/// Writes `field` as a JSON number if it is a number in a common spelling: `.5`, `+1`, `1.`, `007`, ` 1e5`, or `NaN`,
/// `inf` or `infinity` in any case, which become the spellings that TensorFlow Serving reads. A whole number of more
/// than `digits` digits gets a fraction. `false`: the field is no number.
pub fn write_number(field: &[u8], digits: usize, out: &mut Buffer) -> Result<bool, NoRoom> {
    let text = field.trim_ascii();
    if let Some(word) = number_word(text) {
        out.extend(word.as_bytes())?;
        return Ok(true);
    }
    let Some(parts) = Parts::of(text) else {
        return Ok(false);
    };
    out.extend(if parts.is_negative { b"-" } else { b"" })?;
    let integer = parts.significant();
    out.extend(integer)?;
    match parts.fraction {
        Some(b"") => out.extend(b".0")?,
        Some(fraction) => {
            out.extend(b".")?;
            out.extend(fraction)?;
        }
        None if parts.exponent.is_empty() && integer.len() > digits => out.extend(b".0")?,
        None => {}
    }
    out.extend(parts.exponent)?;
    Ok(true)
}

/// Writes `field` as a whole JSON number if it is one in a common spelling, such as `+1`, `007`, `1.0` or `1e3`, and
/// lies between `low` and `high`. `false`: it does not.
pub fn write_integer(
    field: &[u8],
    (low, high): (i128, i128),
    out: &mut Buffer,
) -> Result<bool, NoRoom> {
    let parts = Parts::of(field.trim_ascii());
    let number = parts.and_then(|parts| parts.integer());
    match number.filter(|number| (low..=high).contains(number)) {
        Some(number) => {
            out.extend(itoa::Buffer::new().format(number).as_bytes())?;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// Writes a truth value as 1 or 0 if `field` is one. pandas and R write columns of these as words.
pub fn write_bool_as_number(field: &[u8], out: &mut Buffer) -> Result<bool, NoRoom> {
    let text = field.trim_ascii();
    let digit: &[u8] = match () {
        () if text.eq_ignore_ascii_case(b"true") => b"1",
        () if text.eq_ignore_ascii_case(b"false") => b"0",
        () => return Ok(false),
    };
    out.extend(digit)?;
    Ok(true)
}

/// Writes `field` as `true` or `false` if it is one of these in any case, or the number 1 or 0. `false`: it is not.
pub fn write_bool(field: &[u8], out: &mut Buffer) -> Result<bool, NoRoom> {
    let text = field.trim_ascii();
    let is = |word: &[u8]| text.eq_ignore_ascii_case(word);
    let word: &[u8] = match () {
        () if is(b"true") => b"true",
        () if is(b"false") => b"false",
        () => match Parts::of(text).and_then(|parts| parts.integer()) {
            Some(1) => b"true",
            Some(0) => b"false",
            _ => return Ok(false),
        },
    };
    out.extend(word)?;
    Ok(true)
}

/// Whether `field` is a number in a common spelling, of any size.
pub fn is_number(field: &[u8]) -> bool {
    let text = field.trim_ascii();
    number_word(text).is_some() || Parts::of(text).is_some()
}

/// Whether `field` is one of the ways in which programs write a missing value.
pub fn is_missing(field: &[u8]) -> bool {
    let text = field.trim_ascii();
    let words: [&[u8]; 8] = [
        b"", br"\N", b"na", b"null", b"<na>", b"none", b"n/a", b"#n/a",
    ];
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// TensorFlow Serving's spelling of a number that is written as a word.
fn number_word(text: &[u8]) -> Option<&'static str> {
    let (is_negative, text) = sign(text);
    let is = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    if is("nan") {
        Some("NaN")
    } else if is("inf") || is("infinity") {
        Some(if is_negative { "-Infinity" } else { "Infinity" })
    } else {
        None
    }
}

fn is_exponent(text: &[u8]) -> bool {
    let digits = match text {
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        _ => return false,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
