//! Scans the structure of JSON: strings, nesting, and the keys that make an object a request. Numbers and words are not
//! validated.

use std::ops::Range;

use crate::convert::depth::end_of_string;

/// The error for a body whose structure is not JSON.
#[derive(Debug)]
pub struct Broken;

/// A value.
pub struct Value<'a> {
    /// The position of the value in the body.
    pub range: Range<usize>,
    /// The role of the value.
    pub shape: Shape<'a>,
}

impl Value<'_> {
    /// The text of the value in `body`.
    pub fn text<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        &body[self.range.clone()]
    }
}

/// The role of a top-level value.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// An object that is a request to TensorFlow Serving.
    Request {
        /// The value of its first member `signature_name`, which TensorFlow Serving takes.
        signature_name: Option<&'a [u8]>,
    },
    /// A list of lists or a list of objects, which is the list of instances.
    Instances {
        /// Whether some object's first member is `features`.
        has_features: bool,
    },
    /// An object whose only member is `features`, with this value.
    Features(&'a [u8]),
    /// Any other value, which is one instance.
    Instance,
}

/// The member of a request that names the signature.
const SIGNATURE_NAME: &str = "signature_name";
/// The only member of a row in the JSON of SageMaker's own algorithms.
pub const FEATURES: &str = "features";

/// Whether a key, with its quotes, makes its object a request.
pub fn is_main_key(text: &[u8]) -> bool {
    let mut names = ["instances", "inputs", "examples"].iter();
    names.any(|name| is_key(text, name))
}

/// Whether a key, with its quotes and escapes, means `name`.
pub fn is_key(text: &[u8], name: &str) -> bool {
    /// The longest escape of a character: `\u0061`.
    const LONGEST_ESCAPE: usize = 6;
    let inner = &text[1..text.len() - 1];
    if inner.len() > LONGEST_ESCAPE * name.len() {
        return false;
    }
    if inner.contains(&b'\\') {
        serde_json::from_slice::<String>(text).is_ok_and(|key| key == name)
    } else {
        inner == name.as_bytes()
    }
}

/// Steps over the top-level values of a body.
pub struct Values<'a> {
    /// The whole body.
    pub body: &'a [u8],
    /// The current position in the body.
    pub at: usize,
}

impl<'a> Values<'a> {
    /// Steps over the next top-level value and returns it; `None` at the end.
    ///
    /// # Errors
    /// For broken structure.
    pub fn next_value(&mut self) -> Result<Option<Value<'a>>, Broken> {
        self.skip_space();
        let start = self.at;
        let shape = match self.peek() {
            None => return Ok(None),
            Some(b'{') => self.object()?,
            Some(b'[') => self.list()?,
            Some(_) => {
                self.skip_value()?;
                Shape::Instance
            }
        };
        Ok(Some(Value {
            range: start..self.at,
            shape,
        }))
    }

    /// Steps over white space and a comma between top-level values; `false` if there is none.
    pub fn skip_comma(&mut self) -> bool {
        self.skip_space();
        let is_comma = self.peek() == Some(b',');
        self.at += usize::from(is_comma);
        is_comma
    }

    fn object(&mut self) -> Result<Shape<'a>, Broken> {
        let (mut is_request, mut signature_name) = (false, None);
        let (mut members, mut features) = (0_usize, None);
        self.each_member(|key, value| {
            members += 1;
            is_request |= is_main_key(key);
            if is_key(key, SIGNATURE_NAME) {
                signature_name.get_or_insert(value);
            }
            if is_key(key, FEATURES) {
                features = Some(value);
            }
            Ok::<_, Broken>(())
        })?;
        Ok(match features {
            _ if is_request => Shape::Request { signature_name },
            Some(features) if members == 1 => Shape::Features(features),
            _ => Shape::Instance,
        })
    }

    /// Steps over an object, and calls `see` with the key (with its quotes) and value of each member.
    ///
    /// # Errors
    /// For broken structure, and those of `see`.
    pub fn each_member<E: From<Broken>>(
        &mut self,
        mut see: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(Broken.into());
            }
            let key = self.value_text()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value_text()?;
            see(key, value)?;
            self.skip_space();
            match self.next_byte()? {
                b',' => {}
                b'}' => return Ok(()),
                _ => return Err(Broken.into()),
            }
        }
    }

    /// Steps over a list, element by element while it can still be the list of instances, then at once.
    fn list(&mut self) -> Result<Shape<'a>, Broken> {
        self.at += 1;
        let mut opening = None;
        let mut has_features = false;
        loop {
            self.skip_space();
            let first = self.peek().ok_or(Broken)?;
            let nested = matches!(first, b'[' | b'{');
            if !nested || opening.is_some_and(|o| o != first) {
                self.skip_nested(1)?;
                return Ok(Shape::Instance);
            }
            opening = Some(first);
            has_features |= self.begins_with_features();
            self.skip_value()?;
            self.skip_space();
            match self.next_byte()? {
                b',' => {}
                b']' => return Ok(Shape::Instances { has_features }),
                _ => return Err(Broken),
            }
        }
    }

    /// Whether the value here is an object whose first key is `features`, written without escapes.
    fn begins_with_features(&self) -> bool {
        let object = self.body[self.at..].strip_prefix(b"{");
        object.is_some_and(|members| trim_start(members).starts_with(b"\"features\""))
    }

    /// Steps over the next element of a list whose opening bracket has been passed; `None` at its end.
    ///
    /// # Errors
    /// For broken structure.
    pub fn next_element(&mut self) -> Result<Option<Value<'a>>, Broken> {
        self.skip_comma();
        self.skip_space();
        if self.peek() == Some(b']') {
            return Ok(None);
        }
        self.next_value()
    }

    fn value_text(&mut self) -> Result<&'a [u8], Broken> {
        let start = self.at;
        self.skip_value()?;
        Ok(&self.body[start..self.at])
    }

    /// Steps over one value.
    fn skip_value(&mut self) -> Result<(), Broken> {
        match self.peek().ok_or(Broken)? {
            b'"' => self.skip_string(),
            b'{' | b'[' => {
                self.at += 1;
                self.skip_nested(1)
            }
            b'}' | b']' | b',' | b':' => Err(Broken),
            _ => {
                let rest = &self.body[self.at..];
                let end = rest.iter().position(|&b| {
                    is_space(b) || matches!(b, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"')
                });
                self.at += end.unwrap_or(rest.len());
                Ok(())
            }
        }
    }

    /// Steps over the rest of `depth` open brackets, to the position after the bracket that closes the outermost.
    fn skip_nested(&mut self, mut depth: usize) -> Result<(), Broken> {
        /// Bytes that are tested at once in long runs of numbers; the compiler uses vector instructions for a block.
        const BLOCK: usize = 32;
        loop {
            while let Some(block) = self.body.get(self.at..self.at + BLOCK) {
                if block.iter().fold(false, |any, &b| any | is_structural(b)) {
                    break;
                }
                self.at += BLOCK;
            }
            let end = self.body.len().min(self.at + BLOCK);
            while self.at < end {
                match self.body[self.at] {
                    b'"' => {
                        self.skip_string()?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                self.at += 1;
                if depth == 0 {
                    return Ok(());
                }
            }
            if self.at >= self.body.len() {
                return Err(Broken);
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), Broken> {
        self.at = end_of_string(self.body, self.at + 1).ok_or(Broken)?;
        Ok(())
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Broken> {
        if self.next_byte()? == byte {
            Ok(())
        } else {
            Err(Broken)
        }
    }

    fn next_byte(&mut self) -> Result<u8, Broken> {
        let byte = self.peek().ok_or(Broken)?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }
}

/// Removes JSON's white space from both ends.
pub fn trim_space(text: &[u8]) -> &[u8] {
    let mut text = trim_start(text);
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    text
}

/// Whether JSON counts the byte as white space (RFC 8259, section 2), which does not include a form feed.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether the byte is a quote or a bracket. With bit 5 set, `[` becomes `{` and `]` becomes `}`.
fn is_structural(byte: u8) -> bool {
    let folded = byte | 0x20;
    (byte == b'"') | (folded == b'{') | (folded == b'}')
}
