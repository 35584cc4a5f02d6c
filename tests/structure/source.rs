//! Reads as much of Rust source as the structure checks need: which text is production code, which paths it names,
//! where its functions begin and end. A full parser is not needed, because rustfmt has formatted the text and the
//! compiler has accepted it.

/// Replaces each byte of a literal.
const LITERAL: u8 = b'~';

/// The production code of a file: comments and everything under `#[cfg(test)]` are blanked out, literals are replaced,
/// and every line keeps its number.
pub fn production_code(text: &str) -> String {
    without_tests(&without_comments_and_literals(text))
}

fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(length) = comment_length(&bytes[at..]) {
            fill(&mut code[at..at + length], b' ');
            at += length;
        } else if let Some(length) = literal_length(bytes, at) {
            fill(&mut code[at..at + length], LITERAL);
            at += length;
        } else {
            at += 1;
        }
    }
    String::from_utf8(code).expect("whole characters are replaced")
}

fn fill(code: &mut [u8], with: u8) {
    for byte in code.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = with;
    }
}

fn comment_length(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"//") {
        let line = rest.iter().position(|&b| b == b'\n');
        Some(line.unwrap_or(rest.len()))
    } else if rest.starts_with(b"/*") {
        Some(block_comment_length(rest))
    } else {
        None
    }
}

fn literal_length(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let follows_word = at > 0 && is_word(bytes[at - 1]);
    match rest[0] {
        b'"' => Some(quoted_length(rest, b'"')),
        b'\'' if is_character(rest) => Some(quoted_length(rest, b'\'')),
        _ if !follows_word => raw_string_length(rest),
        _ => None,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    rest.len().min(at + 1)
}

/// The length of `r"…"`, `br#"…"#` and the like.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"r"[..], b"br", b"cr"].into_iter();
    let prefix = prefix
        .filter(|prefix| rest.starts_with(prefix))
        .max()?
        .len();
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    let begin = prefix + hashes;
    if rest.get(begin) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let inside = &rest[begin + 1..];
    let length = inside.windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| begin + 1 + length + end.len()))
}

/// Whether this is a character like `'a'` or `'\n'`, not a lifetime like `'a`.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) if first.is_ascii() => rest.get(2) == Some(&b'\''),
        // Lifetimes in this code are ASCII.
        Some(_) => true,
        None => false,
    }
}

/// Blanks out every item with the attribute `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut left = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(ATTRIBUTE) {
        let begin = from + found;
        let end = end_of_item(
            code.as_bytes(),
            begin + ATTRIBUTE.len(),
            begins_item(&code[begin + ATTRIBUTE.len()..]),
        );
        fill(&mut left[begin..end], b' ');
        from = end;
    }
    String::from_utf8(left).expect("whole characters are blanked out")
}

/// The position after the semicolon or closing brace of the item that begins here. A field or match arm ends at a
/// comma.
fn end_of_item(code: &[u8], begin: usize, is_item: bool) -> usize {
    let mut depth = 0;
    for (at, byte) in code.iter().enumerate().skip(begin) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 && *byte == b'}' {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            b',' if depth == 0 && !is_item => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether this is an item, whose generics may contain commas, and not a field or match arm.
fn begins_item(code: &str) -> bool {
    const WORDS: [&str; 11] = [
        "const", "enum", "extern", "fn", "impl", "mod", "static", "struct", "trait", "type", "use",
    ];
    let line = code.lines().map(str::trim_start);
    let mut lines = line.filter(|line| !line.is_empty() && !line.starts_with("#["));
    let line = lines.next().unwrap_or_default();
    line.split_whitespace().any(|word| WORDS.contains(&word))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The lines of a function, from the line of `fn` to the line of its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From 1.
    pub line: usize,
    pub lines: usize,
}

/// All functions with a body in this production code, including nested ones.
pub fn functions(code: &str) -> Vec<Function> {
    let tokens = tokens(code);
    let bytes = code.as_bytes();
    let line_of = |at: usize| 1 + bytes[..at].iter().filter(|&&b| b == b'\n').count();
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        let [word, name] = pair else { continue };
        // `fn(u32)` is a type.
        if word.text != "fn" || !is_word(name.text.as_bytes()[0]) {
            continue;
        }
        let end = end_of_item(bytes, word.at, true);
        if bytes[end - 1] == b'}' {
            let (first, last) = (line_of(word.at), line_of(end - 1));
            found.push(Function {
                name: name.text.to_owned(),
                line: first,
                lines: last - first + 1,
            });
        }
    }
    found
}

/// A path in code, for example `crate::http::head::Head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// From 1.
    pub line: usize,
    pub path: Vec<String>,
    /// The name under which `use` brings the path into scope; `None`: the path stands in other code.
    pub bound_as: Option<String>,
    /// Whether this is a `pub use`, of any visibility.
    pub is_reexport: bool,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    at: usize,
}

/// Words, `::`, and all other visible characters one by one.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = if is_word(bytes[at]) {
            bytes[at..].iter().take_while(|&&b| is_word(b)).count()
        } else if bytes[at..].starts_with(b"::") {
            2
        } else {
            1
        };
        if !bytes[at].is_ascii_whitespace()
            && let Some(text) = code.get(at..at + length)
        {
            found.push(Token { text, at });
        }
        at += length;
    }
    found
}

/// All paths with more than one segment in this production code, and all names that it brings into scope with `use`.
pub fn named_paths(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let line_of = |at: usize| 1 + code[..at].matches('\n').count();
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let before = index
            .checked_sub(1)
            .map_or("", |before| tokens[before].text);
        let first = tokens[index];
        let next = tokens.get(index + 1).map_or("", |next| next.text);
        // `use<'a>` is part of a type.
        if first.text == "use" && next != "<" {
            let visibility = ["pub", ")"].contains(&before);
            let mut paths = Vec::new();
            let mut after = index + 1;
            read_tree(&tokens, &mut after, &[], &mut paths);
            for (path, name) in paths {
                found.push(Named {
                    line: line_of(first.at),
                    path,
                    bound_as: Some(name),
                    is_reexport: visibility,
                });
            }
            index = after;
            continue;
        }
        let begins = is_word(first.text.as_bytes()[0]) && !["::", ".", "in"].contains(&before);
        let mut path = vec![first.text.to_owned()];
        while begins
            && let [colons, word] =
                &tokens[(index + 1).min(tokens.len())..(index + 3).min(tokens.len())]
            && colons.text == "::"
            && is_word(word.text.as_bytes()[0])
        {
            path.push(word.text.to_owned());
            index += 2;
        }
        if path.len() > 1 {
            found.push(Named {
                line: line_of(first.at),
                path,
                bound_as: None,
                is_reexport: false,
            });
        }
        index += 1;
    }
    found
}

/// Reads one branch of a `use` declaration: `a::b`, `a::{b, c as d}`, `a::*`. Each path comes with the name it binds.
fn read_tree(
    tokens: &[Token],
    index: &mut usize,
    stem: &[String],
    found: &mut Vec<(Vec<String>, String)>,
) {
    let mut path = stem.to_vec();
    let mut name = None;
    while let Some(token) = tokens.get(*index) {
        match token.text {
            "{" => {
                *index += 1;
                while tokens.get(*index).is_some_and(|token| token.text != "}") {
                    read_tree(tokens, index, &path, found);
                    if tokens.get(*index).is_some_and(|token| token.text == ",") {
                        *index += 1;
                    }
                }
                *index += 1;
                return;
            }
            "as" => {
                name = tokens.get(*index + 1).map(|token| token.text.to_owned());
                *index += 1;
            }
            // `a::{self}` is `a`.
            "self" if !path.is_empty() => {}
            "," | "}" | ";" => break,
            "::" => {}
            segment => path.push(segment.to_owned()),
        }
        *index += 1;
    }
    if let Some(last) = path.last() {
        let name = name.unwrap_or_else(|| last.clone());
        found.push((path, name));
    }
}
