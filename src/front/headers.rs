//! Looking headers up.

use std::borrow::Cow;

use tiny_http::Request;

/// The values of all headers of this name, trimmed.
pub fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    let headers = request.headers().iter();
    headers
        .filter(move |h| h.field.equiv(name))
        .map(|h| h.value.as_str().trim())
}

/// Bytes of all names and values.
pub fn size(request: &Request) -> usize {
    let headers = request.headers().iter();
    headers
        .map(|h| h.field.as_str().as_str().len() + h.value.as_str().len())
        .sum()
}

/// The first value.
pub fn first<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    values(request, name).next()
}

/// The value of a header that is a list; several of one name are one list.
pub fn list<'a>(request: &'a Request, name: &'static str) -> Option<Cow<'a, str>> {
    let mut values = values(request, name);
    let first = Cow::Borrowed(values.next()?);
    Some(values.fold(first, |list, value| Cow::Owned(format!("{list},{value}"))))
}

/// Whether `Connection` asks for this. Only its first header counts, as for tiny_http.
pub fn connection_asks(request: &Request, word: &str) -> bool {
    first(request, "Connection").is_some_and(|value| value.to_ascii_lowercase().contains(word))
}
