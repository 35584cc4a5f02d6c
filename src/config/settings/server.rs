//! Settings of the server itself: addresses, paths, deadlines, logs, threads, memory.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::format::{self, BOOL, Format, SECONDS, text, whole, whole_number};
use super::{Group, TypedSetting, setting};

settings! {
    "Server":

    /// Port that the server listens on.
    PORT: u16 = setting("SAGEMAKER_BIND_TO_PORT", format::PORT).flag("port").default("8080");

    /// Directory that contains the models.
    MODEL_DIR: PathBuf = setting("SAGEMAKER_TFS_MODEL_DIR", text("a directory"))
        .flag("model-dir").default("/opt/ml/model").in_multi_model("/opt/ml/models");

    /// Address that the server listens on; 127.0.0.1 accepts connections from this machine only.
    LISTEN: IpAddr = setting("SAGEMAKER_TFS_LISTEN_ADDRESS", IP_ADDRESS).flag("listen").default("0.0.0.0");

    /// Deadline of a whole request, from the end of its head to its response. If SAGEMAKER_GUNICORN_TIMEOUT_SECONDS is
    /// larger, that is the deadline.
    DEADLINE: Duration = setting("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", SECONDS).default("60");

    /// Level of access lines. With `info` or `debug`, the server logs one for each request.
    FRONT_LOG_LEVEL: LevelFilter = setting("SAGEMAKER_TFS_NGINX_LOGLEVEL", NGINX_LEVEL).default("error");

    /// Log level of the rest of the server. Handlers have a level of their own.
    LOG_LEVEL: LevelFilter = setting("SAGEMAKER_GUNICORN_LOGLEVEL", GUNICORN_LEVEL).default("info");

    /// For debugging a handler: one request at a time, one Python process with the terminal, no deadlines.
    SINGLE_THREADED: bool = setting("SAGEMAKER_TFS_SINGLE_THREADED", BOOL).flag("single-threaded").default("false");

    /// Number of threads that serve requests, where each request is a coroutine that suspends while it waits. With
    /// `threads`, each request at work holds a thread of a fixed pool; this is for debuggers and for systems where
    /// coroutines do not work.
    WORKERS: Workers = setting("SAGEMAKER_TFS_WORKERS", WORKERS_FORMAT).default_cpus(256);

    /// Memory for all requests in flight: large heads, bodies, their conversions, and responses. A request that finds
    /// no room gets 503. A request that alone needs more gets 413, or 507 if its response does not fit. A body of more
    /// than 1 GiB always gets 413.
    BODY_MEMORY: u32 = setting("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", whole!("a whole number of MB", 1..=1048576))
        .unset_means("a quarter of the memory of the machine or the container");

    /// Directory in which the server makes a private directory for TensorFlow Serving's config files. The server
    /// removes the private directory when it exits.
    TMPDIR: PathBuf = setting("TMPDIR", text("a writable directory")).default("/tmp");
}

/// The threads that serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// This many threads. Each request is a coroutine, which suspends while it waits.
    Coroutines(usize),
    /// A thread for each request at work.
    Threads,
}

const WORKERS_FORMAT: Format<Workers> = Format {
    accepts: "a whole number from 1 to 256, or threads",
    parse: |text| match text {
        "threads" => Some(Workers::Threads),
        _ => whole_number(text)
            .filter(|number| (1..=256).contains(number))
            .map(|number| Workers::Coroutines(number as usize)),
    },
};

const IP_ADDRESS: Format<IpAddr> = Format {
    accepts: "an IP address",
    parse: |text| text.parse().ok(),
};

/// nginx's level names, as its `error_log` directive takes them.
const NGINX_LEVEL: Format<LevelFilter> = Format {
    accepts: "debug, info, notice, warn, error, crit, alert or emerg",
    parse: |text| {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => LevelFilter::Debug,
            "info" => LevelFilter::Info,
            // The log has no level between info and warn, and "notice" must not show the access lines of "info".
            "notice" | "warn" => LevelFilter::Warn,
            "error" | "crit" | "alert" | "emerg" => LevelFilter::Error,
            _ => return None,
        })
    },
};

/// gunicorn's level names.
const GUNICORN_LEVEL: Format<LevelFilter> = Format {
    accepts: "debug, info, warning, error or critical",
    parse: |text| {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => LevelFilter::Debug,
            "info" => LevelFilter::Info,
            "warning" => LevelFilter::Warn,
            "error" | "critical" => LevelFilter::Error,
            _ => return None,
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_accepts_words, assert_refuses, read};

    #[test]
    fn reads_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.port, 8080);
        assert_eq!(config.listen, IpAddr::from([0, 0, 0, 0]));
        assert_eq!(config.model_dir, PathBuf::from("/opt/ml/model"));
        assert_eq!(config.deadline, Duration::from_secs(60));
        assert_eq!(config.front_log_level, LevelFilter::Error);
        assert_eq!(config.log_level, LevelFilter::Info);
        assert!(!config.single_threaded);
        assert_eq!(config.workers, Workers::Coroutines(4));
        assert_eq!(config.body_memory, None);
        assert_eq!(config.tmp_dir, PathBuf::from("/tmp"));
    }

    #[test]
    fn refuses_wrong_values() {
        assert_refuses(&PORT, &["0", "65536", "http"]);
        assert_refuses(&MODEL_DIR, &[" "]);
        assert_refuses(&LISTEN, &["localhost", "127.0.0.1:80"]);
        assert_refuses(&DEADLINE, &["0", "60s"]);
        assert_refuses(&FRONT_LOG_LEVEL, &["warning", "loud"]);
        assert_refuses(&LOG_LEVEL, &["warn", "loud"]);
        assert_refuses(&SINGLE_THREADED, &["1"]);
        assert_refuses(
            &WORKERS,
            &["0", "257", "Threads", "thread", "-1", "4 threads"],
        );
        assert_refuses(&BODY_MEMORY, &["0", "1048577", "1GB"]);
        assert_refuses(&TMPDIR, &[" "]);
    }

    #[test]
    fn accepts_a_number_of_workers_or_threads() {
        assert_eq!(WORKERS.parse("1"), Some(Workers::Coroutines(1)));
        assert_eq!(WORKERS.parse("256"), Some(Workers::Coroutines(256)));
        assert_eq!(WORKERS.parse("threads"), Some(Workers::Threads));
        let config = read(&[("SAGEMAKER_TFS_WORKERS", " threads ")]).unwrap();
        assert_eq!(config.workers, Workers::Threads);
    }

    #[test]
    fn maps_level_names() {
        assert_accepts_words(&FRONT_LOG_LEVEL);
        assert_accepts_words(&LOG_LEVEL);
        for (name, level) in [
            ("debug", LevelFilter::Debug),
            ("notice", LevelFilter::Warn),
            ("Warn", LevelFilter::Warn),
            ("crit", LevelFilter::Error),
        ] {
            assert_eq!(FRONT_LOG_LEVEL.parse(name), Some(level), "{name}");
        }
        for (name, level) in [
            ("Warning", LevelFilter::Warn),
            ("critical", LevelFilter::Error),
        ] {
            assert_eq!(LOG_LEVEL.parse(name), Some(level), "{name}");
        }
    }

    #[test]
    fn reads_memory_in_mebibytes() {
        let config = read(&[("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", "3")]).unwrap();
        assert_eq!(config.body_memory, Some(3 << 20));
    }
}
