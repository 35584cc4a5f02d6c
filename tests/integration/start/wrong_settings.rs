//! Invalid settings and wrong command lines: exit code 2 and every problem at once, one line each.

use crate::support::Setup;

/// `(variable, invalid value, what is accepted)`. Each value is invalid by itself.
const WRONG: &[(&str, &str, &str)] = &[
    ("SAGEMAKER_SAFE_PORT_RANGE", "9000", "LOW-HIGH"),
    ("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "a/b", "name of a model"),
    ("SAGEMAKER_TFS_INSTANCE_COUNT", "0", "from 1"),
    ("SAGEMAKER_TFS_WAIT_TIME_SECONDS", "5m", "seconds"),
    ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", "-1", "from 0"),
    (
        "SAGEMAKER_TFS_INTRA_OP_PARALLELISM",
        "2147483648",
        "2147483647",
    ),
    ("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", "1", "from 0"),
    ("SAGEMAKER_TFS_ENABLE_BATCHING", "yes", "true or false"),
    ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "0", "from 1"),
    ("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", "1.5", "from 0"),
    ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "+4", "from 1"),
    ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "many", "from 1"),
    ("SAGEMAKER_GUNICORN_WORKERS", "0", "from 1"),
    ("SAGEMAKER_GUNICORN_THREADS", "x", "from 1"),
    ("SAGEMAKER_GUNICORN_WORKER_CLASS", "eventlet", "gevent"),
    ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "0", "seconds"),
    ("SAGEMAKER_GUNICORN_LOGLEVEL", "loud", "info"),
    ("SAGEMAKER_TFS_HANDLER_LOGLEVEL", "warn", "warning"),
    (
        "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS",
        "60s",
        "seconds",
    ),
    ("SAGEMAKER_TFS_NGINX_LOGLEVEL", "loud", "info"),
    ("SAGEMAKER_TFS_WORKERS", "0", "or threads"),
    ("SAGEMAKER_MULTI_MODEL", "1", "true or false"),
    (
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX",
        "p",
        "SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET",
    ),
    ("OMP_NUM_THREADS", "0", "whole numbers"),
    ("SAGEMAKER_BATCH", "on", "true or false"),
    ("SAGEMAKER_BATCH_STRATEGY", "MANY", "MULTI_RECORD"),
    ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "all", "whole number"),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6MB", "whole number"),
];

#[test]
fn all_invalid_values_are_listed_at_once() {
    let set = |setup: Setup, (name, value, _): &(&str, &str, &str)| setup.var(name, value);
    let wrong_port = Setup::new()
        .without_flag("port")
        .var("SAGEMAKER_BIND_TO_PORT", "70000")
        .flag("listen", "localhost");
    let ended = WRONG.iter().fold(wrong_port, set).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.starts.is_empty(), "no model server was started");

    let more = [
        ("SAGEMAKER_BIND_TO_PORT", "70000", "from 1 to 65535"),
        ("--listen", "localhost", "IP address"),
    ];
    let reasons = ended.reasons();
    for (name, value, accepted) in WRONG.iter().chain(&more) {
        let begin = format!("{name} is {value:?}");
        let lines: Vec<_> = reasons
            .iter()
            .filter(|line| line.starts_with(&begin))
            .collect();
        assert_eq!(lines.len(), 1, "{name}: {}", ended.stderr);
        assert!(lines[0].contains(accepted), "{}", lines[0]);
    }
    assert_eq!(reasons.len(), WRONG.len() + more.len(), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), reasons.len(), "one line each");
}

#[test]
fn conflicting_ports_are_refused() {
    let setup = Setup::new();
    let port = setup.port();
    for (range, instances, named) in [
        (format!("{0}-{0}", port + 1), "1", "too small"),
        (format!("{}-{}", port + 1, port + 6), "4", "too small"),
        (
            format!("{port}-{}", port + 5),
            "1",
            "SAGEMAKER_BIND_TO_PORT",
        ),
        ("9010-9000".to_owned(), "1", "LOW-HIGH"),
        ("0-10".to_owned(), "1", "LOW-HIGH"),
        ("65000-66000".to_owned(), "1", "LOW-HIGH"),
    ] {
        let ended = Setup::new()
            .flag("port", port)
            .var("SAGEMAKER_TFS_INSTANCE_COUNT", instances)
            .var("SAGEMAKER_SAFE_PORT_RANGE", &range)
            .run();
        assert_eq!(ended.code, Some(2), "{range}: {}", ended.stderr);
        let reasons = ended.reasons();
        assert_eq!(reasons.len(), 1, "{range}: {}", ended.stderr);
        assert!(
            reasons[0].contains("SAGEMAKER_SAFE_PORT_RANGE"),
            "{}",
            reasons[0]
        );
        assert!(reasons[0].contains(named), "{range}: {}", reasons[0]);
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_the_mistake_and_a_hint_to_help() {
    for (args, named) in [
        (&[][..], "the command is missing"),
        (&["train"], "train"),
        (&["serve", "--prot", "1"], "--prot"),
        (&["serve", "--port"], "--port"),
        (&["serve", "extra"], "extra"),
        (&["--port", "1"], "--port"),
    ] {
        let ended = Setup::new().command(args).run();
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
        let reasons = ended.reasons();
        assert_eq!(reasons.len(), 1, "{args:?}: {}", ended.stderr);
        assert!(reasons[0].contains(named), "{args:?}: {}", reasons[0]);
        assert!(reasons[0].contains("--help"), "{args:?}: {}", reasons[0]);
    }
}

#[test]
fn help_and_version_are_printed() {
    for args in [&["--help"][..], &["-h"], &["serve", "--help"]] {
        let ended = Setup::new().command(args).run();
        assert_eq!(ended.code, Some(0));
        assert_eq!(ended.stderr, "");
        for (variable, _, _) in WRONG {
            assert!(
                ended.stdout.contains(variable),
                "{variable} in {}",
                ended.stdout
            );
        }
        for option in ["--port", "--listen", "--model-dir", "--model-server"] {
            assert!(
                ended.stdout.contains(option),
                "{option} in {}",
                ended.stdout
            );
        }
    }
    for args in [&["--version"][..], &["-V"]] {
        let ended = Setup::new().command(args).run();
        assert_eq!(ended.code, Some(0));
        assert_eq!(
            ended.stdout,
            concat!("sagemaker-tfs ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}
