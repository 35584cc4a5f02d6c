//! Settings of Python handlers: the numbers of processes and threads, the overlap of calls, and the time limit of a
//! call.

use std::path::{Component, Path};
use std::time::Duration;

use super::format::{Format, SECONDS, UP_TO_1000};
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
    /// Python's name for the log level.
    pub log_level: &'static str,
    /// Path of the script below `code/`, possibly with that folder itself.
    pub program: String,
    /// Whether a setting names the script, which then must exist.
    pub program_is_named: bool,
}

impl HandlerConfig {
    /// Reads the settings. `model_dir` is the model directory. `deadline` is the setting for requests; a longer time limit of calls raises
    /// `context_timeout`.
    pub(in crate::config) fn read(
        r: &mut Reader,
        model_dir: &Path,
        deadline: Duration,
        single_threaded: bool,
        log_level: &'static str,
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
            log_level,
            program,
            program_is_named: r.is_given(&PROGRAM),
        }
    }
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
        assert_eq!(handlers.program, "inference.py");
        assert!(!handlers.program_is_named);
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&WORKERS, &["0", "1001"]);
        assert_refuses(&THREADS, &["x", "1001"]);
        assert_refuses(&WORKER_CLASS, &["tornado", "eventlet", "Sync"]);
        assert_refuses(&TIMEOUT, &["0", "86401"]);
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
    fn accepts_the_documented_worker_classes() {
        assert_accepts_words(&WORKER_CLASS);
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
