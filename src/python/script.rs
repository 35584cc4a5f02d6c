//! Loads the handler script and runs its functions, by calling `runtime.py` and, in the class `gevent`, `greenlets.py`.

use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyList, PyString};
use sagemaker_tfs::config::WorkerClass;
use sagemaker_tfs::worker_protocol::frame::{Answer, Context, Headers, Response, Shape};

use crate::convert;
use crate::options::Options;
use crate::source;

/// The loaded script.
pub struct Script {
    runtime: Py<PyModule>,
    greenlets: Option<Py<PyModule>>,
    request: Py<PyAny>,
    response: Py<PyAny>,
    shape: Shape,
    converts: bool,
}

/// The result of a function.
pub struct Returned<'py> {
    /// A `str` or `bytes`.
    pub body: Bound<'py, PyAny>,
    /// Content type of the body.
    pub content_type: Bound<'py, PyString>,
    /// Headers for the client, in names and values; `None` if the function adds none.
    pub headers: Option<Vec<(String, String)>>,
}

/// What is known of an exception.
pub struct Report {
    /// What the client gets: text, or the whole body in JSON.
    pub content: Content,
    /// The HTTP status that the exception chooses.
    pub status: Option<u16>,
    /// Headers for the client, in names and values; without JSON, there are none.
    pub headers: Vec<(String, String)>,
}

/// What the client gets for an exception.
pub enum Content {
    /// The text of the error.
    Text(String),
    /// The whole body, in JSON.
    Json(Vec<u8>),
}

impl Report {
    /// The answer to call `number`, and its body.
    pub fn answer(&self, number: u64) -> (Answer<'_>, &[u8]) {
        let (status, headers) = (self.status, borrowed(&self.headers));
        match &self.content {
            Content::Text(text) => (Answer::Raised { number, status }, text.as_bytes()),
            Content::Json(body) => {
                let status = status.unwrap_or(500);
                let head = Answer::Refused {
                    number,
                    status,
                    headers,
                };
                (head, body)
            }
        }
    }
}

/// The modules that the runtime imports, with their names.
const PARTS: [(&str, &CStr); 8] = [
    (include_str!("awaiting.py"), c"sagemaker_tfs_awaiting"),
    (include_str!("headers.py"), c"sagemaker_tfs_headers"),
    (include_str!("hints.py"), c"sagemaker_tfs_hints"),
    (include_str!("loop_thread.py"), c"sagemaker_tfs_loop_thread"),
    (include_str!("refusal.py"), c"sagemaker_tfs_refusal"),
    (
        include_str!("request_body.py"),
        c"sagemaker_tfs_request_body",
    ),
    (include_str!("response.py"), c"sagemaker_tfs_response"),
    (
        include_str!("standard_library.py"),
        c"sagemaker_tfs_standard_library",
    ),
];
const RUNTIME: &str = include_str!("runtime.py");
const GREENLETS: &str = include_str!("greenlets.py");

impl Script {
    /// Imports the script.
    ///
    /// # Errors
    /// Why the script cannot be used: a traceback, or a sentence.
    pub fn load(options: &Options) -> Result<Self, String> {
        Python::attach(|py| {
            let module =
                |source, name| source::run(py, source, name).map_err(|e: PyErr| e.to_string());
            for (source, name) in PARTS {
                module(source, name)?;
            }
            let runtime = module(RUNTIME, c"sagemaker_tfs")?;
            let greenlets = match options.worker_class {
                WorkerClass::Gevent => Some(module(GREENLETS, c"sagemaker_tfs_greenlets")?),
                WorkerClass::Sync | WorkerClass::Gthread => None,
            };
            let arguments = (
                &options.script,
                &options.code,
                &options.prefix,
                &options.packages,
                &options.log_level,
                &greenlets,
                convert::maker(py).map_err(|e| e.to_string())?,
            );
            let loaded = runtime
                .call_method1("load", arguments)
                .and_then(|loaded| loaded.extract());
            let (is_single, has_gevent, converts): (bool, bool, bool) =
                loaded.map_err(|error| {
                    let arguments = (error.value(py), error.traceback(py));
                    let text = runtime.call_method1("describe", arguments);
                    text.map_or_else(|e| e.to_string(), |text| text.to_string())
                })?;
            let function = |name| runtime.getattr(name).map(Bound::unbind);
            Ok(Self {
                request: function("request").map_err(|e| e.to_string())?,
                response: function("response").map_err(|e| e.to_string())?,
                shape: match is_single {
                    true => Shape::Single,
                    false => Shape::Pair,
                },
                converts,
                runtime: runtime.unbind(),
                greenlets: greenlets.filter(|_| has_gevent).map(Bound::unbind),
            })
        })
    }

    /// The functions that the script has.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the script uses the server's own conversions.
    pub fn converts(&self) -> bool {
        self.converts
    }

    /// The module `greenlets.py` if the worker uses gevent. All waiting then has to go through this module.
    pub fn greenlets(&self) -> Option<&Py<PyModule>> {
        self.greenlets.as_ref()
    }

    /// Makes all later calls await in one event loop, because they run on several threads.
    ///
    /// # Errors
    /// The exception that Python raised, with its text.
    pub fn share_event_loop(&self) -> Result<(), String> {
        let shared = Python::attach(|py| {
            self.runtime
                .bind(py)
                .call_method0("share_event_loop")
                .map(drop)
        });
        shared.map_err(|e| e.to_string())
    }

    /// Runs `handler` or `input_handler`. Returns the context, which [`Script::response`] needs, and the function's
    /// result.
    ///
    /// # Errors
    /// The exception that the function raised.
    pub fn request<'py>(
        &self,
        py: Python<'py>,
        context: &Context,
        body: Bound<'py, PyBytes>,
    ) -> PyResult<(Py<PyAny>, Returned<'py>)> {
        let arguments = (
            body,
            context.model_name.as_deref(),
            context.model_version.as_deref(),
            context.method.as_deref(),
            &*context.rest_uri,
            context.grpc_port.to_string(),
            context.custom_attributes.as_deref(),
            &*context.request_content_type,
            &*context.accept_header,
            context.content_length,
            context.timeout,
            context.conversion.as_deref(),
        );
        // Many requests have none.
        let keywords = match context.headers.is_empty() {
            true => None,
            false => Some([("headers", pairs(py, &context.headers)?)].into_py_dict(py)?),
        };
        let result = self.request.bind(py).call(arguments, keywords.as_ref())?;
        let (context, body, content_type, headers) = result.extract()?;
        Ok((
            context,
            Returned {
                body,
                content_type,
                headers,
            },
        ))
    }

    /// Runs `output_handler`.
    ///
    /// # Errors
    /// The exception that the function raised.
    pub fn response<'py>(
        &self,
        py: Python<'py>,
        context: &Py<PyAny>,
        response: &Response,
        body: Bound<'py, PyBytes>,
    ) -> PyResult<Returned<'py>> {
        let headers = pairs(py, &response.headers)?;
        let arguments = (context, response.status, &*response.reason, headers, body);
        let result = self.response.bind(py).call1(arguments)?;
        let (body, content_type, headers) = result.extract()?;
        Ok(Returned {
            body,
            content_type,
            headers,
        })
    }

    /// Writes an exception to the log, with its traceback unless it refuses the request.
    pub fn report(&self, py: Python, error: &PyErr) -> Report {
        let arguments = (error.value(py), error.traceback(py));
        let reported = self.runtime.bind(py).call_method1("report", arguments);
        let reported = reported.and_then(|reported| {
            let (content, status, headers): (Bound<PyAny>, _, _) = reported.extract()?;
            let content = match content.cast::<PyBytes>() {
                Ok(json) => Content::Json(json.as_bytes().to_vec()),
                Err(_) => Content::Text(content.extract()?),
            };
            Ok(Report {
                content,
                status,
                headers,
            })
        });
        reported.unwrap_or_else(|e| Report {
            content: Content::Text(e.to_string()),
            status: None,
            headers: Vec::new(),
        })
    }
}

/// Headers as a message holds them.
pub fn borrowed(headers: &[(String, String)]) -> Headers<'_> {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Headers as a list of names and values.
fn pairs<'py>(py: Python<'py>, headers: &Headers) -> PyResult<Bound<'py, PyList>> {
    let headers = headers.iter();
    PyList::new(py, headers.map(|(name, value)| (&**name, &**value)))
}
