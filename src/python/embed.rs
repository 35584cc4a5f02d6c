//! The unsafe code of this program: starts and ends the embedded interpreter, and takes over inherited file
//! descriptors.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use pyo3::ffi;
use rustix::io::{FdFlags, fcntl_setfd};
use sagemaker_tfs::worker_protocol::record::Record;

use crate::channels::Channel;
use crate::options::Options;

/// Takes over the file descriptors in `options`, and marks them so that the script's children do not inherit them.
///
/// # Errors
/// When a descriptor is not open.
pub fn channels(options: &Options) -> Result<Vec<Channel>, String> {
    let take = |number: i32| {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(format!("file descriptor {number} is not open"));
        }
        // SAFETY: the descriptor is open, and the server passed it to be owned here. No other code of this process uses
        // it, because none has run yet.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(|e| e.to_string())?;
        Ok(file)
    };
    let record = Arc::new(Record::from_file(take(options.record)?));
    let numbers = options.channels.iter().enumerate();
    numbers
        .map(|(index, &number)| {
            Ok(Channel::new(
                index,
                take(number)?.into(),
                Arc::clone(&record),
            ))
        })
        .collect()
}

/// The running interpreter, of which a process has one. No thread holds the interpreter's lock until `Python::attach`.
pub struct Interpreter(());

impl Interpreter {
    /// Starts the interpreter as the Python at `executable`.
    ///
    /// # Errors
    /// When `version` has another minor version than the linked library, or Python does not start.
    pub fn start(executable: &Path, version: &str) -> Result<Self, String> {
        // SAFETY: `Py_GetVersion` may be called before the interpreter is started, and returns a constant.
        let library = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
        let library = library.to_string_lossy();
        let library = library.split_whitespace().next().unwrap_or_default();
        let minor = |version: &str| version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        if minor(library) != minor(version) {
            return Err(format!(
                "sagemaker-tfs-python was built for Python {0}, but {1} is Python {version}; put a python3 of version \
                 {0} first on PATH, or build sagemaker-tfs with {1}",
                minor(library),
                executable.display()
            ));
        }
        let path = CString::new(executable.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
        let config = config.as_mut_ptr();
        // SAFETY: the calls are in the documented order, on the only thread of the process. The first call initializes
        // `config`, the last frees it once, and `path` outlives the calls that copy it.
        let status = unsafe {
            ffi::PyConfig_InitPythonConfig(config);
            // Unbuffered, so that the output of print and logging reaches the container's log at once.
            (*config).buffered_stdio = 0;
            (*config).parse_argv = 0;
            let mut status = ffi::PyConfig_SetBytesString(
                config,
                &raw mut (*config).program_name,
                path.as_ptr(),
            );
            if ffi::PyStatus_Exception(status) == 0 {
                status = ffi::PyConfig_SetBytesString(
                    config,
                    &raw mut (*config).executable,
                    path.as_ptr(),
                );
            }
            if ffi::PyStatus_Exception(status) == 0 {
                status = ffi::Py_InitializeFromConfig(config);
            }
            ffi::PyConfig_Clear(config);
            status
        };
        // SAFETY: `status` is the result of the calls above; its message, if not null, is a constant.
        let why = unsafe {
            (ffi::PyStatus_Exception(status) != 0).then(|| {
                let text = status.err_msg;
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            })
        };
        if let Some(why) = why {
            let why = why.unwrap_or_default();
            return Err(format!("cannot start Python: {why}"));
        }
        // SAFETY: the interpreter was just started, so this thread holds its lock, which the call releases.
        unsafe { ffi::PyEval_SaveThread() };
        Ok(Self(()))
    }

    /// Runs the script's exit handlers and stops the interpreter.
    pub fn end(self) {
        // SAFETY: called once, on the thread that started the interpreter, which does not hold the lock. No Python
        // object is used afterwards.
        unsafe {
            ffi::PyGILState_Ensure();
            ffi::Py_FinalizeEx();
        }
    }
}
