//! From TensorFlow Serving's response to the format that the client accepts.
//!
//! Nothing is parsed when the response stays JSON. Strings in a response may echo what a client sent, so the other
//! conversions trust neither their content nor the structure around them.

pub mod accept;
mod answer;
mod array;
mod csv;
mod layout;
mod lines;
mod npy;
mod npz;
mod problem;
mod reader;

use crate::budget::Buffer;
use crate::convert::signature::Signature;
use crate::error::RequestError;

pub use accept::{ACCEPTED, Accepted};

use problem::Problem;

/// Lays out the body of TensorFlow Serving's response. Returns the body and its content type. Errors of TensorFlow
/// Serving stay JSON, whatever is accepted.
///
/// # Errors
/// 406 if the format cannot express the response, 502 if the response is not what TensorFlow Serving sends, 507 or 503
/// when no memory is left for the result.
pub fn lay_out(
    status: u16,
    mut body: Buffer,
    accepted: Accepted,
    signature: Option<&Signature>,
) -> Result<(Buffer, &'static str), RequestError> {
    if status != 200 || matches!(accepted, Accepted::Json { .. }) {
        if status == 400 {
            layout::unescape_instances(body.bytes_mut());
        }
        if accepted != (Accepted::Json { one_line: false }) {
            layout::remove_newlines(body.bytes_mut());
        }
        return Ok((body, "application/json"));
    }
    let content_type = accepted.content_type();
    let converted = convert(body, accepted, signature);
    let converted = converted.and_then(|(mut body, content_type)| {
        // Results are often shorter than the room that was made for them.
        body.settle(0)?;
        Ok((body, content_type))
    });
    converted.map_err(|problem| problem.into_error(content_type))
}

fn convert(
    body: Buffer,
    accepted: Accepted,
    signature: Option<&Signature>,
) -> Result<(Buffer, &'static str), Problem> {
    let converted = match accepted {
        Accepted::Json { .. } => body,
        Accepted::JsonLines { .. } => lines::convert(&body)?,
        Accepted::Csv { header } => csv::convert(&body, header, signature)?,
        Accepted::Npy | Accepted::Npz => {
            let mut arrays = npy::convert(&body, signature)?;
            let out = body.sibling();
            drop(body);
            if accepted == Accepted::Npz || arrays.are_named {
                let archive = npz::pack(arrays, out)?;
                return Ok((archive, Accepted::Npz.content_type()));
            }
            arrays.list.pop().map_or(out, |array| array.file)
        }
    };
    Ok((converted, accepted.content_type()))
}

#[cfg(test)]
mod tests;
