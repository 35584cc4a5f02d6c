//! Runs the Python sources that are compiled into this program.

use std::ffi::{CStr, CString};

use pyo3::prelude::*;

/// Runs `source` as a module of this name, and registers the module.
///
/// # Errors
/// Python's, when memory is used up.
pub fn run<'py>(py: Python<'py>, source: &str, name: &CStr) -> PyResult<Bound<'py, PyModule>> {
    let code = CString::new(source).expect("a source has no NUL");
    PyModule::from_code(py, &code, c"<sagemaker-tfs>", name)
}
