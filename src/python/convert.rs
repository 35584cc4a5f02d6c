//! The module `convert` of handler scripts: `convert.py`, with the server's conversions as its functions.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyTuple};
use sagemaker_tfs::budget::{Budget, Buffer, NoRoom};
use sagemaker_tfs::convert::request::{Format, json};
use sagemaker_tfs::convert::response::{self, Accepted};
use sagemaker_tfs::convert::settings::Settings;
use sagemaker_tfs::error::RequestError;

use crate::source;

const SOURCE: &str = include_str!("convert.py");

/// The keywords of a call, which none of these functions has.
type Keywords<'a, 'py> = Option<&'a Bound<'py, PyDict>>;

/// A function without arguments that makes the module.
///
/// # Errors
/// Python's, when memory is used up.
pub fn maker(py: Python) -> PyResult<Bound<PyCFunction>> {
    let make = |arguments: &Bound<PyTuple>, _: Keywords| module(arguments.py()).map(Bound::unbind);
    PyCFunction::new_closure(py, None, None, make)
}

fn module(py: Python) -> PyResult<Bound<PyModule>> {
    let module = source::run(py, SOURCE, c"sagemaker_tfs.convert")?;
    let request = |arguments: &Bound<PyTuple>, _: Keywords| {
        let py = arguments.py();
        let (body, content_type, settings): (_, Option<String>, Option<String>) =
            arguments.extract()?;
        let converted = py.detach(|| request(body, content_type.as_deref(), settings.as_deref()));
        let (body, signature_name) = raised(py, converted)?;
        PyResult::Ok((PyBytes::new(py, &body).unbind(), signature_name))
    };
    let response = |arguments: &Bound<PyTuple>, _: Keywords| {
        let py = arguments.py();
        let (body, accept, settings, signature_name): (
            _,
            Option<String>,
            Option<String>,
            Option<String>,
        ) = arguments.extract()?;
        let converted = py.detach(|| {
            let settings = Settings::of(settings.as_deref());
            response(body, accept.as_deref(), settings, signature_name.as_deref())
        });
        let (body, content_type) = raised(py, converted)?;
        PyResult::Ok((PyBytes::new(py, &body).unbind(), content_type))
    };
    for (name, function) in [
        (
            "_request",
            PyCFunction::new_closure(py, None, None, request)?,
        ),
        (
            "_response",
            PyCFunction::new_closure(py, None, None, response)?,
        ),
    ] {
        module.setattr(name, function)?;
    }
    Ok(module)
}

/// A copy of the body whose conversions may use as much memory as the server allows for all requests.
fn counted(body: PyBackedBytes, settings: &Settings) -> Result<Buffer, NoRoom> {
    let budget: Arc<Budget> = Budget::new(settings.memory);
    let mut buffer = budget.arriving(0);
    buffer.reserve_exact(body.len())?;
    buffer.extend(&body)?;
    Ok(buffer)
}

/// Converts a request. Returns the name of a signature that the body names itself, too.
fn request(
    body: PyBackedBytes,
    content_type: Option<&str>,
    settings: Option<&str>,
) -> Result<(Buffer, Option<String>), RequestError> {
    let settings = Settings::of(settings);
    let mut body = counted(body, &settings)?;
    // The signature has been looked up, so the conversion cannot ask for it.
    let _ = Format::of(content_type)?.to_tfs(&mut body, &settings.target())?;
    let signature_name = json::signature_name(&body);
    Ok((body, signature_name))
}

/// Converts a response to a request that named this signature.
fn response(
    body: PyBackedBytes,
    accept: Option<&str>,
    settings: Settings,
    signature_name: Option<&str>,
) -> Result<(Buffer, &'static str), RequestError> {
    let body = counted(body, &settings).map_err(NoRoom::for_response)?;
    let default = Accepted::default_of(settings.default_accept.as_deref());
    let accepted = Accepted::negotiate(accept, default)?;
    let signature = settings.target().signature;
    // Of other signatures, nothing is known here.
    let signature = signature.filter(|known| signature_name.is_none_or(|name| name == known.name));
    response::lay_out(200, body, accepted, signature.as_deref())
}

/// Raises `convert.Error` for an error.
fn raised<T>(py: Python, result: Result<T, RequestError>) -> PyResult<T> {
    result.map_err(|error| {
        let module = py.import("sagemaker_tfs");
        let class = module.and_then(|module| module.getattr("convert")?.getattr("Error"));
        match class.and_then(|class| class.call1((error.status, error.text))) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    })
}
