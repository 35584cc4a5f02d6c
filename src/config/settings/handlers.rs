//! Settings of Python handlers: the numbers of processes and threads, the overlap of calls, and the time limit of a
//! call.

use std::path::{Component, Path};
use std::time::Duration;

use super::format::{Format, SECONDS, UP_TO_1000, whole_number};
use super::reader::Reader;
use super::{Group, TypedSetting, setting};

settings! {
    "Python handlers":

    /// Number of Python processes that run handlers.
    WORKERS: u32 = setting("SAGEMAKER_GUNICORN_WORKERS", UP_TO_1000).default("1");

    /// Number of Python threads in each process, with the worker class gthread.
    THREADS: u32 = setting("SAGEMAKER_GUNICORN_THREADS", UP_TO_1000).default("1");

    /// How handler calls may overlap; see HANDLERS.md.
    WORKER_CLASS: WorkerClass = setting("SAGEMAKER_GUNICORN_WORKER_CLASS", WORKER_CLASS_NAME).default("gevent");

    /// Time limit of one handler call. When a call takes longer, its Python process is killed and restarted. This is
    /// also the lower bound of a request's deadline.
    TIMEOUT: Duration = setting("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", SECONDS).default("30").in_batch_transform("600");

    /// What a pair of handlers does when TensorFlow Serving's status is not 200: `pass` gives the client TensorFlow
    /// Serving's status and error without a call of `output_handler`, as AWS's images do from 2.20 on. `call` calls
    /// `output_handler` for every status, as older ones do; what it raises becomes 500 unless it chooses a status.
    /// `call-or-pass` calls it, too, but passes the error if it raises and chooses no status: scripts written for
    /// either kind of image work, and a client's mistake never becomes `KeyError: 'predictions'`.
    ERRORS: HandlerErrors = setting("SAGEMAKER_TFS_HANDLER_ERRORS", HANDLER_ERRORS)
        .unset_means("`pass` if `SAGEMAKER_TFS_VERSION` is 2.20 or newer, otherwise `call-or-pass`");

    /// Level of Python's root logger in handlers.
    LOG_LEVEL: &'static str = setting("SAGEMAKER_TFS_HANDLER_LOGLEVEL", PYTHON_LEVEL).default("info");

    /// The handler script.
    PROGRAM: String = setting("SAGEMAKER_PROGRAM", SCRIPT).default("inference.py");
}

/// Settings of Python handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerConfig {
    /// Number of Python processes.
    pub workers: u32,
    /// Number of Python threads per process, in the class `gthread`.
    pub threads: u32,
    /// How calls may overlap.
    pub worker_class: WorkerClass,
    /// Time limit of one call; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Value of `context.timeout`: the deadline of a request.
    pub context_timeout: Duration,
    /// Level of Python's root logger, by Python's name.
    pub log_level: &'static str,
    /// Path of the script below `code/`, possibly with that folder itself.
    pub program: String,
    /// Whether a setting names the script, which then must exist.
    pub program_is_named: bool,
    /// What a pair does with an error of TensorFlow Serving.
    pub errors: HandlerErrors,
}

impl HandlerConfig {
    /// Reads the settings. `model_dir` is the model directory. `deadline` is the setting for requests; a longer time
    /// limit of calls raises `context_timeout`. `tfs_version` is TensorFlow Serving's version if the settings name it.
    pub(in crate::config) fn read(
        r: &mut Reader,
        model_dir: &Path,
        deadline: Duration,
        single_threaded: bool,
        tfs_version: Option<&str>,
    ) -> Self {
        let timeout = r.value(&TIMEOUT);
        let program = r.value(&PROGRAM);
        let program = below_code(&program, model_dir).unwrap_or_else(|| {
            r.refuse(&PROGRAM);
            program
        });
        Self {
            workers: r.value(&WORKERS),
            threads: r.value(&THREADS),
            worker_class: r.value(&WORKER_CLASS),
            timeout: (!single_threaded).then_some(timeout),
            context_timeout: deadline.max(timeout),
            log_level: r.value(&LOG_LEVEL),
            program,
            program_is_named: r.is_given(&PROGRAM),
            errors: (r.optional(&ERRORS)).unwrap_or_else(|| HandlerErrors::of_version(tfs_version)),
        }
    }
}

/// What a pair of handlers does when TensorFlow Serving's status is not 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandlerErrors {
    /// The client gets TensorFlow Serving's status and error; `output_handler` is not called.
    Pass,
    /// `output_handler` is called, and what it raises fails the request.
    Call,
    /// `output_handler` is called. If it raises an exception that chooses no status, the client gets TensorFlow
    /// Serving's status and error.
    CallOrPass,
}

impl HandlerErrors {
    /// What scripts for the image with this version of TensorFlow Serving may rely on. AWS's images pass errors from
    /// 2.20 on. A script for an older one may answer errors itself, so it must be called.
    fn of_version(version: Option<&str>) -> Self {
        match version.and_then(major_and_minor) {
            Some(version) if version >= (2, 20) => Self::Pass,
            _ => Self::CallOrPass,
        }
    }
}

/// The first two numbers of a version, such as 2.20, 2.20.1 or v2.20-rc1.
fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.trim_start_matches(['v', 'V']).split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let minor = &rest[..end.unwrap_or(rest.len())];
    Some((whole_number(major)?, whole_number(minor)?))
}

/// How handler calls may overlap, by gunicorn's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerClass {
    /// All calls run on the main thread. The calls of `input_handler` and `output_handler` run one at a time, while
    /// their requests overlap; the calls of a single `handler` are greenlets, if gevent is installed.
    Gevent,
    /// One request at a time.
    Sync,
    /// Several threads. All calls of a request run on the same thread.
    Gthread,
}

impl WorkerClass {
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Gevent, Self::Sync, Self::Gthread];

    /// gunicorn's name of the class.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gevent => "gevent",
            Self::Sync => "sync",
            Self::Gthread => "gthread",
        }
    }

    /// The class with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

const WORKER_CLASS_NAME: Format<WorkerClass> = Format {
    accepts: "gevent, sync or gthread",
    parse: WorkerClass::from_name,
};

const HANDLER_ERRORS: Format<HandlerErrors> = Format {
    accepts: "pass, call or call-or-pass",
    parse: |text| match text {
        "pass" => Some(HandlerErrors::Pass),
        "call" => Some(HandlerErrors::Call),
        "call-or-pass" => Some(HandlerErrors::CallOrPass),
        _ => None,
    },
};

const PYTHON_LEVEL: Format<&'static str> = Format {
    accepts: "debug, info, warning, error or critical",
    parse: |text| {
        let names = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
        names
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(text))
    },
};

const SCRIPT: Format<String> = Format {
    accepts: "the path of a file in the archive's folder code, from that folder on",
    parse: |text| {
        let leads_up = Path::new(text)
            .components()
            .any(|c| c == Component::ParentDir);
        (!leads_up && !text.ends_with('/')).then(|| text.to_owned())
    },
};

/// The path of a script below the folder `code` of the model directory. `None` for an absolute path to another place.
fn below_code(program: &str, model_dir: &Path) -> Option<String> {
    match Path::new(program).is_absolute() {
        false => Some(program.to_owned()),
        true => {
            let below = Path::new(program)
                .strip_prefix(model_dir.join("code"))
                .ok()?;
            Some(below.to_str()?.to_owned()).filter(|below| !below.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_accepts_words, assert_refuses, read};

    #[test]
    fn reads_defaults() {
        let handlers = read(&[]).unwrap().handlers;
        assert_eq!(handlers.workers, 1);
        assert_eq!(handlers.threads, 1);
        assert_eq!(handlers.worker_class, WorkerClass::Gevent);
        assert_eq!(handlers.timeout, Some(Duration::from_secs(30)));
        assert_eq!(handlers.context_timeout, Duration::from_secs(60));
        assert_eq!(handlers.log_level, "INFO");
        assert_eq!(handlers.program, "inference.py");
        assert!(!handlers.program_is_named);
    }

    #[test]
    fn level_of_handlers_is_not_the_servers() {
        let level = |name, value| read(&[(name, value)]).unwrap().handlers.log_level;
        assert_eq!(level("SAGEMAKER_GUNICORN_LOGLEVEL", "error"), "INFO");
        assert_eq!(
            level("SAGEMAKER_TFS_HANDLER_LOGLEVEL", "Critical"),
            "CRITICAL"
        );
        assert_accepts_words(&LOG_LEVEL);
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&WORKERS, &["0", "1001"]);
        assert_refuses(&THREADS, &["x", "1001"]);
        assert_refuses(&WORKER_CLASS, &["tornado", "eventlet", "Sync"]);
        assert_refuses(&TIMEOUT, &["0", "86401"]);
        assert_refuses(&LOG_LEVEL, &["warn", "loud", "10"]);
        assert_refuses(&ERRORS, &["Pass", "call or pass", "raise"]);
        assert_refuses(
            &PROGRAM,
            &[
                "../x.py",
                "code/../x.py",
                "sub/",
                "/elsewhere/x.py",
                "/opt/ml/model/code",
            ],
        );
    }

    #[test]
    fn errors_of_the_model_pass_from_version_2_20_on() {
        use HandlerErrors::{Call, CallOrPass, Pass};
        for (version, expected) in [
            ("2.20", Pass),
            ("2.20.0", Pass),
            ("2.20rc1", Pass),
            ("v2.21-gpu", Pass),
            ("2.100", Pass),
            ("3.0", Pass),
            ("2.19", CallOrPass),
            ("2.19.1", CallOrPass),
            ("2.2", CallOrPass),
            ("1.15", CallOrPass),
            ("", CallOrPass),
            ("2", CallOrPass),
            ("2.", CallOrPass),
            ("2.x", CallOrPass),
            ("newest", CallOrPass),
            ("2.99999999999", CallOrPass),
            ("-2.20", CallOrPass),
            ("\u{e9}.\u{661}", CallOrPass),
        ] {
            let errors = |more: &[(&str, &str)]| {
                let version = ("SAGEMAKER_TFS_VERSION", version);
                read(&[&[version], more].concat()).unwrap().handlers.errors
            };
            assert_eq!(errors(&[]), expected, "{version}");
            assert_eq!(errors(&[(ERRORS.name, "call")]), Call, "{version}");
        }
        assert_eq!(read(&[]).unwrap().handlers.errors, CallOrPass);
    }

    #[test]
    fn accepts_the_documented_words() {
        assert_accepts_words(&WORKER_CLASS);
        assert_accepts_words(&ERRORS);
    }

    #[test]
    fn notes_that_a_setting_names_the_script() {
        let handlers = read(&[("SAGEMAKER_PROGRAM", "inference.py")])
            .unwrap()
            .handlers;
        assert_eq!(handlers.program, "inference.py");
        assert!(handlers.program_is_named);
    }

    #[test]
    fn a_script_may_be_in_a_subfolder() {
        for (given, program) in [
            ("sub/x.py", "sub/x.py"),
            ("code/x.py", "code/x.py"),
            ("/opt/ml/model/code/sub/x.py", "sub/x.py"),
        ] {
            let handlers = read(&[("SAGEMAKER_PROGRAM", given)]).unwrap().handlers;
            assert_eq!(handlers.program, program);
        }
    }
}
