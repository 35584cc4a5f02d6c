//! The unsafe part: starting and ending the embedded interpreter, and taking over inherited file descriptors.

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

/// Takes over the file descriptors that were passed, and keeps them from the script's own children.
pub fn channels(options: &Options) -> Result<Vec<Channel>, String> {
    let take = |number: i32| {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(format!("file descriptor {number} is not open"));
        }
        // SAFETY: it is open, and the server passed it for us to own; nothing else in this process uses it, for
        // nothing else has run yet.
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

/// The running interpreter, in this process once. Nobody holds its lock until `Python::attach`.
pub struct Interpreter(());

impl Interpreter {
    /// Starts it as the Python at `executable`, whose `version` must be that of the library we are linked with.
    pub fn start(executable: &Path, version: &str) -> Result<Self, String> {
        // SAFETY: the function may be called before the interpreter is started, and its result is a constant.
        let library = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
        let library = library.to_string_lossy();
        let library = library.split_whitespace().next().unwrap_or_default();
        let minor = |version: &str| version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        if minor(library) != minor(version) {
            return Err(format!(
                "sagemaker-tfs-python was built for Python {}, but {} is Python {version}; put a python3 of that \
                 version first on PATH, or build sagemaker-tfs with this one",
                minor(library),
                executable.display()
            ));
        }
        let path = CString::new(executable.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
        let config = config.as_mut_ptr();
        // SAFETY: the calls are made in the documented order, on the only thread of the process; `config` is
        // initialised by the first and freed once, `path` outlives the calls that copy it.
        let status = unsafe {
            ffi::PyConfig_InitPythonConfig(config);
            // print and logging reach the container's log at once.
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
        // SAFETY: `status` is from the calls above; its message, where there is one, is a constant.
        let why = unsafe {
            (ffi::PyStatus_Exception(status) != 0).then(|| {
                let text = status.err_msg;
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            })
        };
        if let Some(why) = why {
            let why = why.unwrap_or_default();
            return Err(format!("Python cannot be started: {why}"));
        }
        // SAFETY: the interpreter was just started, so this thread holds its lock and gives it up.
        unsafe { ffi::PyEval_SaveThread() };
        Ok(Self(()))
    }

    /// Runs what the script registered for its end, and stops the interpreter.
    pub fn end(self) {
        // SAFETY: called once, on the thread that started it, which does not hold the lock; nothing of Python's is
        // used afterwards.
        unsafe {
            ffi::PyGILState_Ensure();
            ffi::Py_FinalizeEx();
        }
    }
}
