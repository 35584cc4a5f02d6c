//! Invalid settings and wrong command lines: exit code 2 and every problem at once, one line each.

use crate::support::Setup;

/// A wrong value of every setting, by its variable. Each is wrong by itself.
const WRONG: &[(&str, &str)] = &[
    ("SAGEMAKER_BIND_TO_PORT", "70000"),
    ("SAGEMAKER_TFS_MODEL_DIR", " "),
    ("SAGEMAKER_TFS_LISTEN_ADDRESS", "localhost"),
    ("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "60s"),
    ("SAGEMAKER_TFS_NGINX_LOGLEVEL", "loud"),
    ("SAGEMAKER_GUNICORN_LOGLEVEL", "loud"),
    ("SAGEMAKER_TFS_SINGLE_THREADED", "yes"),
    ("SAGEMAKER_TFS_WORKERS", "0"),
    ("SAGEMAKER_TFS_MAX_BODY_MEMORY_MB", "0"),
    ("TMPDIR", " "),
    ("SAGEMAKER_TFS_MODEL_SERVER", " "),
    ("SAGEMAKER_TFS_VERSION", " "),
    ("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "a/b"),
    ("SAGEMAKER_SAFE_PORT_RANGE", "9000"),
    ("SAGEMAKER_TFS_INSTANCE_COUNT", "0"),
    ("SAGEMAKER_TFS_WAIT_TIME_SECONDS", "5m"),
    ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", "-1"),
    ("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", "2147483648"),
    ("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", "1"),
    ("OMP_NUM_THREADS", "0"),
    ("SAGEMAKER_TFS_ENABLE_BATCHING", "yes"),
    ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "0"),
    ("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", "1.5"),
    ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "+4"),
    ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "many"),
    ("SAGEMAKER_TFS_ALLOWED_BATCH_SIZES", "8,4"),
    ("SAGEMAKER_TFS_PAD_VARIABLE_LENGTH_INPUTS", "1"),
    ("SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING", "1"),
    ("SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE", "0"),
    ("SAGEMAKER_TFS_ENABLE_PER_MODEL_BATCHING", "1"),
    ("SAGEMAKER_TFS_WARMUP_REQUEST", "a.json,"),
    ("SAGEMAKER_TFS_WARMUP_ITERATIONS", "0"),
    ("SAGEMAKER_TFS_SESSION_PARALLELISM", "-1"),
    ("SAGEMAKER_TFS_ENABLE_XLA_CPU", "1"),
    ("SAGEMAKER_TFS_VERSION_LABELS", "stable"),
    ("SAGEMAKER_TFS_EXTRA_ARGS", "--a='"),
    ("SAGEMAKER_TFS_DEFAULT_SIGNATURE", " "),
    ("SAGEMAKER_TFS_CSV_HEADER", "yes"),
    ("SAGEMAKER_TFS_CSV_ROW", "line"),
    ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/html"),
    ("SAGEMAKER_BATCH", "on"),
    ("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", "all"),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6MB"),
    ("SAGEMAKER_BATCH_STRATEGY", "MANY"),
    ("SAGEMAKER_GUNICORN_WORKERS", "0"),
    ("SAGEMAKER_GUNICORN_THREADS", "x"),
    ("SAGEMAKER_GUNICORN_WORKER_CLASS", "eventlet"),
    ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "0"),
    ("SAGEMAKER_PROGRAM", "../b.py"),
    ("SAGEMAKER_TFS_HANDLER_ERRORS", "raise"),
    ("SAGEMAKER_TFS_HANDLER_LOGLEVEL", "warn"),
    ("SAGEMAKER_MULTI_MODEL", "1"),
    ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", " "),
    ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX", "p"),
    ("AWS_REGION", " "),
    ("AWS_DEFAULT_REGION", " "),
    ("AWS_ENDPOINT_URL_S3", " "),
    ("AWS_ENDPOINT_URL", " "),
    ("AWS_ACCESS_KEY_ID", " "),
    ("AWS_SECRET_ACCESS_KEY", " "),
    ("AWS_SESSION_TOKEN", " "),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", " "),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", " "),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", " "),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", " "),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", " "),
];

/// The variables in docs/SETTINGS.md, and what they accept.
fn documented() -> Vec<(&'static str, &'static str)> {
    let text = include_str!("../../../docs/SETTINGS.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let name = row.split('`').next().expect("a variable");
        (name, row.split(" | ").nth(2).expect("what it accepts"))
    })
    .collect()
}

#[test]
fn a_wrong_value_of_every_documented_setting_is_listed_at_once_with_what_is_accepted() {
    let set = |setup: Setup, (name, value): &(&str, &str)| setup.var(name, value);
    let flags = ["port", "listen", "model-dir", "model-server"];
    let without_options = flags.into_iter().fold(Setup::new(), Setup::without_flag);
    let ended = WRONG.iter().fold(without_options, set).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.starts.is_empty(), "no model server was started");

    let message = |(name, accepts): (&str, &str)| {
        let wrong = WRONG.iter().find(|(wrong, _)| *wrong == name);
        let (_, value) = wrong.unwrap_or_else(|| panic!("{name} is missing in WRONG"));
        format!("{name} is {value:?}; accepted: {accepts}")
    };
    let mut expected: Vec<_> = documented().into_iter().map(message).collect();
    let mut reasons = ended.reasons();
    expected.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(reasons, expected);
    assert_eq!(ended.stderr.lines().count(), reasons.len(), "one line each");
}

#[test]
fn a_wrong_option_is_named_instead_of_its_variable() {
    let ended = Setup::new()
        .flag("listen", "localhost")
        .var("SAGEMAKER_TFS_LISTEN_ADDRESS", "127.0.0.1")
        .run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_eq!(
        ended.reason(),
        "--listen is \"localhost\"; accepted: an IP address"
    );
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
        for (variable, _) in WRONG {
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
