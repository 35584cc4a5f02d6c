//! The command line of this program, which `handlers/launch.rs` of the server writes.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;
use sagemaker_tfs::config::WorkerClass;
use sagemaker_tfs::worker_protocol::frame::Shape;

/// The parsed command line.
#[derive(Debug)]
pub struct Options {
    /// The handler script.
    pub script: PathBuf,
    /// The folder `code` that holds it.
    pub code: PathBuf,
    /// `sys.executable` of the Python that the worker starts as.
    pub python: PathBuf,
    /// The version of that Python.
    pub python_version: String,
    /// `sys.prefix` of that Python.
    pub prefix: PathBuf,
    /// The folder with packages for this script alone.
    pub packages: Option<PathBuf>,
    /// How calls may overlap.
    pub worker_class: WorkerClass,
    /// Level of Python's root logger, by Python's name.
    pub log_level: String,
    /// File descriptor of the record of calls.
    pub record: i32,
    /// File descriptors of the channels.
    pub channels: Vec<i32>,
}

/// How calls of different requests may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// One request at a time, on the main thread.
    None,
    /// One call at a time, on the main thread; between the two calls of a request, those of other requests may run.
    Alternating,
    /// All calls on the main thread; when a call waits, another goes on.
    Greenlets,
    /// A thread for each channel.
    Threads,
}

impl Options {
    /// Parses the arguments, which come without the program's name.
    ///
    /// # Errors
    /// For an unknown option, a malformed value, or missing file descriptors.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut parser = lexopt::Parser::from_args(args);
        let mut options = Self {
            script: PathBuf::new(),
            code: PathBuf::new(),
            python: PathBuf::new(),
            python_version: String::new(),
            prefix: PathBuf::new(),
            packages: None,
            worker_class: WorkerClass::Gevent,
            log_level: "INFO".into(),
            record: -1,
            channels: Vec::new(),
        };
        while let Some(arg) = parser.next()? {
            match arg {
                Long("script") => options.script = parser.value()?.into(),
                Long("code") => options.code = parser.value()?.into(),
                Long("python") => options.python = parser.value()?.into(),
                Long("python-version") => options.python_version = parser.value()?.string()?,
                Long("prefix") => options.prefix = parser.value()?.into(),
                Long("packages") => options.packages = Some(parser.value()?.into()),
                Long("worker-class") => {
                    let name = parser.value()?.string()?;
                    options.worker_class =
                        WorkerClass::from_name(&name).ok_or("unknown worker class")?;
                }
                Long("log-level") => options.log_level = parser.value()?.string()?,
                Long("record") => options.record = parser.value()?.parse()?,
                Long("channels") => {
                    let list = parser.value()?.string()?;
                    let numbers = list.split(',').map(str::parse);
                    options.channels = numbers
                        .collect::<Result<_, std::num::ParseIntError>>()
                        .map_err(|e| e.to_string())?;
                }
                _ => return Err(arg.unexpected()),
            }
        }
        if options.record < 0 || options.channels.is_empty() {
            return Err("only sagemaker-tfs starts this program; see sagemaker-tfs --help".into());
        }
        Ok(options)
    }

    /// How calls overlap for a script with these functions.
    pub fn overlap(&self, shape: Shape, has_gevent: bool) -> Overlap {
        match (self.worker_class, shape) {
            (WorkerClass::Gevent, Shape::Single) if has_gevent => Overlap::Greenlets,
            // Without gevent, calls of the class gevent must not overlap on threads instead: a script that was not
            // written for threads would mix the data of different calls.
            (WorkerClass::Gevent, Shape::Single) | (WorkerClass::Sync, _) => Overlap::None,
            (WorkerClass::Gevent, Shape::Pair) => Overlap::Alternating,
            (WorkerClass::Gthread, _) => Overlap::Threads,
        }
    }
}
