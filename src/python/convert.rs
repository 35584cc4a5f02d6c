//! The module `convert` of handler scripts: `convert.py`, with the server's conversions as its functions.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyTuple};
use sagemaker_tfs::budget::Buffer;
use sagemaker_tfs::convert::request::Format;
use sagemaker_tfs::convert::response::{self, Accepted};
use sagemaker_tfs::convert::settings::Settings;
use sagemaker_tfs::error::RequestError;

use crate::source;

const SOURCE: &str = include_str!("convert.py");

/// A function without arguments that makes the module.
///
/// # Errors
/// Python's, when memory is used up.
pub fn maker(py: Python) -> PyResult<Bound<PyCFunction>> {
    PyCFunction::new_closure(
        py,
        None,
        None,
        |arguments: &Bound<PyTuple>, _: Option<&Bound<PyDict>>| {
            module(arguments.py()).map(Bound::unbind)
        },
    )
}

fn module(py: Python) -> PyResult<Bound<PyModule>> {
    let module = source::run(py, SOURCE, c"sagemaker_tfs.convert")?;
    let request =
        |arguments: &Bound<PyTuple>, _: Option<&Bound<PyDict>>| -> PyResult<Py<PyBytes>> {
            let (body, content_type, settings) = arguments.extract()?;
            let converted = request(arguments.py(), body, content_type, settings);
            let converted = raised(arguments.py(), converted)?;
            Ok(PyBytes::new(arguments.py(), &converted).unbind())
        };
    let response = |arguments: &Bound<PyTuple>,
                    _: Option<&Bound<PyDict>>|
     -> PyResult<(Py<PyBytes>, &'static str)> {
        let (body, accept, settings) = arguments.extract()?;
        let converted = response(arguments.py(), body, accept, settings);
        let (body, content_type) = raised(arguments.py(), converted)?;
        Ok((PyBytes::new(arguments.py(), &body).unbind(), content_type))
    };
    module.setattr(
        "_request",
        PyCFunction::new_closure(py, None, None, request)?,
    )?;
    module.setattr(
        "_response",
        PyCFunction::new_closure(py, None, None, response)?,
    )?;
    Ok(module)
}

fn request(
    py: Python,
    body: Vec<u8>,
    content_type: Option<String>,
    settings: Option<String>,
) -> Result<Buffer, RequestError> {
    py.detach(|| {
        let target = Settings::of(settings.as_deref()).target();
        let format = Format::of(content_type.as_deref())?;
        let mut body = Buffer::from(body);
        // The signature has been looked up, so the conversion cannot ask for it.
        let _ = format.to_tfs(&mut body, &target)?;
        Ok(body)
    })
}

fn response(
    py: Python,
    body: Vec<u8>,
    accept: Option<String>,
    settings: Option<String>,
) -> Result<(Buffer, &'static str), RequestError> {
    py.detach(|| {
        let settings = Settings::of(settings.as_deref());
        let default = settings
            .default_accept
            .as_deref()
            .and_then(Accepted::parse_default);
        let default = default.unwrap_or(Accepted::Json { one_line: false });
        let accepted = Accepted::negotiate(accept.as_deref(), default)?;
        let target = settings.target();
        response::lay_out(200, body.into(), accepted, target.signature.as_deref())
    })
}

/// Raises `convert.Error` for an error.
fn raised<T>(py: Python, result: Result<T, RequestError>) -> PyResult<T> {
    result.map_err(|error| {
        let class = py
            .import("sagemaker_tfs")
            .and_then(|m| m.getattr("convert")?.getattr("Error"));
        match class.and_then(|class| class.call1((error.status, error.text))) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    })
}
