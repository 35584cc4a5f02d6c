//! Checks how deeply JSON is nested, because TensorFlow Serving crashes on JSON that is nested too deeply.

use memchr::memchr2;

/// The deepest nesting that is sent to TensorFlow Serving. Its JSON code recurses without a limit: about 18,000 levels
/// in `instances`, or 105,000 elsewhere, overflow its stack, and fewer on smaller stacks. No request needs 512 levels,
/// because TensorFlow's tensors have at most 254 dimensions.
pub const MAX_DEPTH: usize = 512;

/// Bytes that are counted at once; the compiler uses vector instructions for a block.
const BLOCK: usize = 32;

/// Whether a parser of this document has more than `limit` open brackets at some point. The check never misses a
/// bracket; after invalid JSON it may count brackets that a parser no longer reads. Text after the first value does not
/// count, because parsers stop there.
pub fn is_deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut at) = (0, 0);
    while at < json.len() {
        while let Some(block) = json.get(at..at + BLOCK) {
            // With bit 5 set, `[` becomes `{` and `]` becomes `}`.
            let openings = count(block, |byte| byte | 0x20 == b'{');
            let closings = count(block, |byte| byte | 0x20 == b'}');
            let has_strings = count(block, |byte| byte == b'"') > 0;
            // Otherwise, whatever the order of brackets, the block reaches neither the limit nor the end of the value.
            if has_strings || depth + openings > limit || depth <= closings {
                break;
            }
            depth = depth + openings - closings;
            at += BLOCK;
        }
        let end = json.len().min(at + BLOCK);
        while at < end {
            let byte = json[at];
            at += 1;
            match byte {
                b'"' => match end_of_string(json, at) {
                    Some(end) => at = end,
                    None => return false,
                },
                b'{' | b'[' if depth == limit => return true,
                b'{' | b'[' => depth += 1,
                // The end of the first value, or invalid JSON.
                b'}' | b']' if depth <= 1 => return false,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
    }
    false
}

fn count(block: &[u8], is_counted: impl Fn(u8) -> bool) -> usize {
    const { assert!(BLOCK <= u8::MAX as usize) };
    let counted = block.iter().map(|&byte| u8::from(is_counted(byte)));
    counted.sum::<u8>().into()
}

/// The position after the closing quote of a string whose content begins at `at`. `None` when the string does not end.
pub(super) fn end_of_string(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let found = at + memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// A recursive parser, like TensorFlow Serving's and no stricter, that notes its depth until the first error.
    struct Descent<'a> {
        json: &'a [u8],
        at: usize,
        deepest: usize,
    }

    impl Descent<'_> {
        fn deepest(json: &[u8]) -> usize {
            let mut descent = Descent {
                json,
                at: 0,
                deepest: 0,
            };
            let _ = descent.value(0);
            descent.deepest
        }

        fn peek(&mut self) -> Option<u8> {
            while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                self.at += 1;
            }
            self.json.get(self.at).copied()
        }

        fn take(&mut self, byte: u8) -> Option<()> {
            (self.peek()? == byte).then(|| self.at += 1)
        }

        fn value(&mut self, depth: usize) -> Option<()> {
            match self.peek()? {
                b'{' => self.members(b'}', depth + 1),
                b'[' => self.members(b']', depth + 1),
                b'"' => self.string(),
                _ => {
                    let start = self.at;
                    while matches!(
                        self.json.get(self.at),
                        Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
                    ) {
                        self.at += 1;
                    }
                    (self.at > start).then_some(())
                }
            }
        }

        fn members(&mut self, end: u8, depth: usize) -> Option<()> {
            self.at += 1;
            self.deepest = self.deepest.max(depth);
            if self.take(end).is_some() {
                return Some(());
            }
            loop {
                if end == b'}' {
                    self.peek()?;
                    self.string()?;
                    self.take(b':')?;
                }
                self.value(depth)?;
                if self.take(end).is_some() {
                    return Some(());
                }
                self.take(b',')?;
            }
        }

        fn string(&mut self) -> Option<()> {
            if *self.json.get(self.at)? != b'"' {
                return None;
            }
            self.at += 1;
            loop {
                let byte = *self.json.get(self.at)?;
                self.at += 1;
                match byte {
                    b'"' => return Some(()),
                    b'\\' => self.at += 1,
                    _ => {}
                }
            }
        }
    }

    fn depth_of(value: &Value) -> usize {
        let deepest = |depths: &mut dyn Iterator<Item = usize>| depths.max().unwrap_or(0);
        match value {
            Value::Array(items) => 1 + deepest(&mut items.iter().map(depth_of)),
            Value::Object(members) => 1 + deepest(&mut members.values().map(depth_of)),
            _ => 0,
        }
    }

    #[test]
    fn depth_equal_to_the_limit_is_not_deeper() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"\": [ ", "]}]")] {
            let depth = open.matches(['[', '{']).count();
            for times in [1, 20, 100] {
                let json = format!("{}1{}", open.repeat(times), close.repeat(times));
                for json in [&json, &open.repeat(times)] {
                    assert!(!is_deeper_than(json.as_bytes(), depth * times), "{json}");
                    assert!(is_deeper_than(json.as_bytes(), depth * times - 1), "{json}");
                }
            }
        }
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        for (json, depth) in [
            (r#"["[[[[\"[[[\\", "[["]"#, 1),
            (r#"["\\", [[]]]"#, 3),
            (r#"["\\\"", [[]]]"#, 3),
            (r#"["[[[[["#, 1),
            (r#"["[[[[[\"#, 1),
            (r#"{"]}]}]}": [1], "a": [[2]]}"#, 3),
        ] {
            assert!(is_deeper_than(json.as_bytes(), depth - 1), "{json}");
            assert!(!is_deeper_than(json.as_bytes(), depth), "{json}");
        }
    }

    #[test]
    fn brackets_after_the_first_value_do_not_count() {
        for json in ["[1] [[[[", "{}[[[[", "]][[[[", "[]]]][[[[[["] {
            assert!(!is_deeper_than(json.as_bytes(), 1), "{json}");
        }
    }

    #[test]
    fn brackets_count_at_any_offset() {
        for before in 0..70 {
            for inside in 0..70 {
                let (space, text) = (" ".repeat(before), "[".repeat(inside));
                let json = format!("{space}[[\"{text}\"],{space}[[[\"{text}\", []]]]]");
                assert!(is_deeper_than(json.as_bytes(), 4), "{json}");
                assert!(!is_deeper_than(json.as_bytes(), 5), "{json}");
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\[\\]{}\"\\\\]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(12, 200, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec(("[\\[{\"\\\\a]{0,40}", inner), 0..8)
                    .prop_map(|members| { Value::Object(members.into_iter().collect()) }),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_the_exact_depth_of_valid_documents(value in values(), pretty: bool) {
            let depth = depth_of(&value);
            let json = match pretty {
                true => serde_json::to_vec_pretty(&value),
                false => serde_json::to_vec(&value),
            };
            let json = json.unwrap();
            prop_assert!(!is_deeper_than(&json, depth));
            prop_assert!(depth == 0 || is_deeper_than(&json, depth - 1));
        }

        /// For any bytes, the check finds at least the depth that a recursive parser reaches.
        #[test]
        fn recursive_parser_gets_no_deeper(
            json in "([\\[\\]{}\",:\\\\ 1a\n\x00\u{e9}]|\\[\\[|\\{\"\":|\"\":|\",\"){0,120}",
            limit in 0..8usize,
        ) {
            let deepest = Descent::deepest(json.as_bytes());
            prop_assert!(deepest <= limit || is_deeper_than(json.as_bytes(), limit));
        }
    }
}
