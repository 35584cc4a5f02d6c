//! Steps over many numbers at once: 64 bytes of CSV become bit masks, and a few operations on these check all numbers
//! in the block.
//!
//! Only the most common spelling counts: a sign, digits, a point and digits. Anything else, such as an exponent, is
//! left to the caller, which looks at one field at a time.

/// Which numbers are stepped over.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Whether they may have a fraction.
    pub fractions: bool,
    /// Whether they may have a sign.
    pub negative: bool,
    /// The most digits before the point.
    pub digits: usize,
}

/// Bytes in a block: one for each bit of a mask.
const BLOCK: usize = 64;

/// Which bytes of a block are of which kind; bit 0 is the first byte.
#[derive(Debug, Default)]
struct Masks {
    digit: u64,
    zero: u64,
    comma: u64,
    minus: u64,
    point: u64,
}

/// Steps over fields that are numbers in JSON, each with the comma behind it. `at` is the start of a field. Returns the
/// start of the first field that was not stepped over, and how many were.
pub fn skip(body: &[u8], mut at: usize, numbers: Numbers) -> (usize, usize) {
    let mut fields = 0;
    while let Some(block) = body.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        let commas = numbers.commas(&Masks::of(block));
        let Some(last) = commas.checked_ilog2() else {
            break;
        };
        at += last as usize + 1;
        fields += commas.count_ones() as usize;
    }
    (at, fields)
}

impl Numbers {
    /// The commas of the fields that can be stepped over: of all fields up to the first byte that no number has, or of
    /// none.
    fn commas(self, masks: &Masks) -> u64 {
        let Masks {
            digit,
            zero,
            minus,
            point,
            comma,
        } = *masks;
        let known = digit | minus | point | comma;
        // All bits below the first byte that is not known.
        let before = !known & known.wrapping_add(1);
        let before = before.wrapping_sub(1);
        let commas = comma & before;
        let Some(last) = commas.checked_ilog2() else {
            return 0;
        };
        let region = u64::MAX >> (63 - last);
        let (minus, point) = (minus & region, point & region);
        let starts = ((commas << 1) | 1) & region;
        // Where the digits before the point begin. Adding these bits carries each through its run of digits, to the
        // byte behind it.
        let integers = (starts & !minus) | ((starts & minus) << 1);
        let integer_ends = integers.wrapping_add(digit) & !digit & region;
        let fractions = point << 1;
        let fraction_ends = fractions.wrapping_add(digit) & !digit & region;
        let wrong = (minus & !starts)
            | (integers & !digit)
            | ((integers & zero) << 1 & digit)
            | (integer_ends & !(commas | point))
            | (point & !integer_ends)
            | (fractions & !digit)
            | (fraction_ends & !commas)
            | (if self.negative { 0 } else { minus })
            | (if self.fractions { 0 } else { point })
            | (integers & longer_than(self.digits, digit));
        if wrong == 0 { commas } else { 0 }
    }
}

/// The first bits of all places with more than `length` set bits in a row.
fn longer_than(length: usize, mut bits: u64) -> u64 {
    if length >= BLOCK {
        return 0;
    }
    let mut found = 1;
    while found <= length {
        let step = found.min(length + 1 - found);
        bits &= bits >> step;
        found += step;
    }
    bits
}

impl Masks {
    fn of(block: &[u8; BLOCK]) -> Self {
        let mut masks = Self::default();
        for (index, eight) in block.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*eight);
            let shift = 8 * index;
            masks.digit |= to_bits(digits(word)) << shift;
            masks.zero |= to_bits(equal(word, b'0')) << shift;
            masks.comma |= to_bits(equal(word, b',')) << shift;
            masks.minus |= to_bits(equal(word, b'-')) << shift;
            masks.point |= to_bits(equal(word, b'.')) << shift;
        }
        masks
    }
}

const TOP_BITS: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Sets the top bit of each byte that is a digit, and no other bit.
fn digits(word: u64) -> u64 {
    let word = word ^ (ONES * b'0' as u64);
    // Without the top bit, so that no byte carries into the next.
    let too_large = (word & !TOP_BITS) + ONES * (0x80 - 10);
    !(too_large | word) & TOP_BITS
}

/// Sets the top bit of each byte that equals `byte`, and no other bit.
fn equal(word: u64, byte: u8) -> u64 {
    let word = word ^ (ONES * byte as u64);
    let not_zero = (word & !TOP_BITS) + !TOP_BITS;
    !(not_zero | word) & TOP_BITS
}

/// Gathers the top bits of eight bytes in the lowest byte.
fn to_bits(top_bits: u64) -> u64 {
    (top_bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(test)]
mod tests {
    use super::super::number::plain;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gathers_bits_in_order() {
        for (text, digit, comma) in [
            (&b"0,9/:-.\xb0"[..], 0b0000_0101, 0b0000_0010),
            (b",,,,0000", 0b1111_0000, 0b0000_1111),
        ] {
            let word = u64::from_le_bytes(text.try_into().unwrap());
            assert_eq!(to_bits(digits(word)), digit);
            assert_eq!(to_bits(equal(word, b',')), comma);
        }
    }

    #[test]
    fn runs_longer_than_a_length() {
        assert_eq!(longer_than(0, 0b1101), 0b1101);
        assert_eq!(longer_than(1, 0b1101), 0b0100);
        assert_eq!(longer_than(7, 0x1ff), 0b11);
        assert_eq!(longer_than(8, 0x1ff), 0b1);
        assert_eq!(longer_than(9, 0x1ff), 0);
        assert_eq!(longer_than(usize::MAX, u64::MAX), 0);
    }

    /// Steps over fields one by one, as far as they are of the common spelling.
    fn one_by_one(body: &[u8], numbers: Numbers) -> Vec<usize> {
        let mut at = 0;
        let mut starts = vec![0];
        loop {
            let end = match (numbers.fractions, numbers.negative) {
                (true, true) => plain::<true, true>(body, at, usize::MAX),
                (true, false) => plain::<true, false>(body, at, usize::MAX),
                (false, true) => plain::<false, true>(body, at, usize::MAX),
                (false, false) => plain::<false, false>(body, at, usize::MAX),
            };
            let Some(end) = end.filter(|&end| body.get(end) == Some(&b',')) else {
                return starts;
            };
            let digits = body[at..end].split(|&b| b == b'.').next().unwrap();
            let digits = digits.iter().filter(|b| b.is_ascii_digit()).count();
            if digits > numbers.digits || body[at..end].contains(&b'e') {
                return starts;
            }
            at = end + 1;
            starts.push(at);
        }
    }

    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            20 => any::<i16>().prop_map(|n| n.to_string()),
            20 => any::<i32>().prop_map(|n| (f64::from(n) / 1000.0).to_string()),
            1 => "[-0.e]{0,4}[0-9.]{0,12}",
            1 => "[0-9]{0,40}",
            1 => "[-.,\na\"\u{e9}]{0,3}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn never_steps_over_more_than_a_loop_over_fields(
            fields in prop::collection::vec(field(), 0..60),
            fractions: bool,
            negative: bool,
            digits in prop::sample::select(vec![2, 4, 7, 9, 15, 18, usize::MAX]),
        ) {
            let body = fields.join(",").into_bytes();
            let numbers = Numbers { fractions, negative, digits };
            let starts = one_by_one(&body, numbers);
            let (at, count) = skip(&body, 0, numbers);
            prop_assert_eq!(starts.get(count), Some(&at));
            // Short of a block's end, only a field that is not of the common spelling stops it.
            if starts.len() == fields.len() {
                prop_assert!(body.len() - at < 2 * BLOCK, "{} of {}", at, body.len());
            }
        }
    }
}
