//! How settings become TensorFlow Serving's command line, files and environment, as seen by its process.

use crate::support::ports::is_free;
use crate::support::record::Start;
use crate::support::setup::fake_model_server;
use crate::support::{Connection, Server, Setup, skipped, wait_until};

/// Starts a server just far enough to see how it starts instance 0.
#[track_caller]
fn start_with(vars: &[(&str, &str)]) -> (Server, Start) {
    let set = |setup: Setup, (name, value): &(&str, &str)| setup.var(name, value);
    let server = vars.iter().fold(Setup::new(), set).launch();
    let start = server.wait_for_start(0);
    (server, start)
}

#[test]
fn by_default_tensorflow_serving_gets_only_the_basic_flags() {
    let (server, start) = start_with(&[]);
    let rest_port = server.rest_port(0);
    for (name, value) in [
        ("port", (rest_port - 1).to_string()),
        ("rest_api_port", rest_port.to_string()),
        ("max_num_load_retries", "0".to_owned()),
        ("rest_api_timeout_in_ms", "60000".to_owned()),
    ] {
        assert_eq!(start.flag(name), Some(value.as_str()), "--{name}");
    }
    for absent in [
        "enable_batching",
        "batching_parameters_file",
        "tensorflow_inter_op_parallelism",
        "tensorflow_intra_op_parallelism",
        "per_process_gpu_memory_fraction",
        "file_system_poll_wait_seconds",
        "enable_per_model_batching_parameters",
        "tensorflow_session_parallelism",
        "num_request_iterations_for_warmup",
        "xla_cpu_compilation_enabled",
        "allow_version_labels_for_unavailable_models",
    ] {
        assert_eq!(start.flag(absent), None, "--{absent}");
    }
    assert_eq!(start.batching_config, None);
    assert_eq!(start.env["OMP_NUM_THREADS"], "1");
    assert!(!start.env.contains_key("CUDA_VISIBLE_DEVICES"));
    assert!(
        start
            .args
            .iter()
            .all(|arg| arg.starts_with("--") && arg.contains('='))
    );
}

#[test]
fn variables_become_flags_and_environment() {
    for (vars, flags, omp) in [
        (
            vec![
                ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", "3"),
                ("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", "5"),
                ("OMP_NUM_THREADS", "7"),
            ],
            vec![
                ("tensorflow_inter_op_parallelism", Some("3")),
                ("tensorflow_intra_op_parallelism", Some("5")),
            ],
            "7",
        ),
        (
            vec![
                ("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", "0"),
                ("OMP_NUM_THREADS", "4,3"),
            ],
            vec![
                ("tensorflow_inter_op_parallelism", None),
                ("tensorflow_intra_op_parallelism", Some("0")),
            ],
            "4,3",
        ),
        // An empty variable counts as unset.
        (
            vec![
                ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", ""),
                ("OMP_NUM_THREADS", ""),
            ],
            vec![("tensorflow_inter_op_parallelism", None)],
            "1",
        ),
        (
            vec![
                ("SAGEMAKER_TFS_SESSION_PARALLELISM", "2"),
                ("SAGEMAKER_TFS_WARMUP_ITERATIONS", "3"),
                ("SAGEMAKER_TFS_ENABLE_XLA_CPU", "True"),
            ],
            vec![
                ("tensorflow_session_parallelism", Some("2")),
                ("num_request_iterations_for_warmup", Some("3")),
                ("xla_cpu_compilation_enabled", Some("true")),
            ],
            "1",
        ),
        // Versions before 1.14 would look for new versions of the model without a pause.
        (
            vec![("SAGEMAKER_TFS_VERSION", "1.14")],
            vec![("file_system_poll_wait_seconds", Some("0"))],
            "1",
        ),
        (
            vec![("SAGEMAKER_TFS_VERSION", "1.13.1")],
            vec![("file_system_poll_wait_seconds", None)],
            "1",
        ),
        // TensorFlow Serving's own limit follows the deadline of a request, which is the larger of two settings.
        (
            vec![("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "100")],
            vec![("rest_api_timeout_in_ms", Some("100000"))],
            "1",
        ),
        (
            vec![("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "10")],
            vec![("rest_api_timeout_in_ms", Some("30000"))],
            "1",
        ),
        (
            vec![
                ("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "10"),
                ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "3600"),
            ],
            vec![("rest_api_timeout_in_ms", Some("3600000"))],
            "1",
        ),
        (
            vec![("SAGEMAKER_BATCH", "True")],
            vec![("rest_api_timeout_in_ms", Some("600000"))],
            "1",
        ),
    ] {
        let (_server, start) = start_with(&vars);
        for (name, value) in flags {
            assert_eq!(start.flag(name), value, "--{name} with {vars:?}");
        }
        assert_eq!(start.env["OMP_NUM_THREADS"], omp, "{vars:?}");
    }
}

#[test]
fn batching_is_configured_by_a_file() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let config = |size: u32, timeout: u32, threads: usize, enqueued: usize| {
        format!(
            "max_batch_size {{ value: {size} }}\nbatch_timeout_micros {{ value: {timeout} }}\n\
             num_batch_threads {{ value: {threads} }}\nmax_enqueued_batches {{ value: {enqueued} }}\n"
        )
    };
    for (vars, expected) in [
        (vec![], config(8, 1000, cpus, cpus)),
        (
            vec![("SAGEMAKER_BATCH", "true")],
            config(8, 1000, cpus, 100_000_000),
        ),
        (
            vec![
                ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "64"),
                ("SAGEMAKER_TFS_BATCH_TIMEOUT_MICROS", "0"),
                ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "3"),
                ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "17"),
                ("SAGEMAKER_BATCH", "true"),
            ],
            config(64, 0, 3, 17),
        ),
    ] {
        let vars = [vec![("SAGEMAKER_TFS_ENABLE_BATCHING", "TRUE")], vars].concat();
        let (_server, start) = start_with(&vars);
        assert_eq!(start.flag("enable_batching"), Some("true"));
        assert_eq!(start.batching_config, Some(expected), "{vars:?}");
    }
}

#[test]
fn further_batching_parameters_are_written_only_if_they_are_set() {
    let (server, start) = start_with(&[
        ("SAGEMAKER_TFS_ENABLE_BATCHING", "true"),
        ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "2"),
        ("SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES", "3"),
        ("SAGEMAKER_TFS_ALLOWED_BATCH_SIZES", "1,4,8"),
        ("SAGEMAKER_TFS_PAD_VARIABLE_LENGTH_INPUTS", "true"),
        ("SAGEMAKER_TFS_ENABLE_LARGE_BATCH_SPLITTING", "true"),
        ("SAGEMAKER_TFS_MAX_EXECUTION_BATCH_SIZE", "4"),
        ("SAGEMAKER_TFS_ENABLE_PER_MODEL_BATCHING", "true"),
    ]);
    let expected = "max_batch_size { value: 8 }\nbatch_timeout_micros { value: 1000 }\n\
                    num_batch_threads { value: 2 }\nmax_enqueued_batches { value: 3 }\n\
                    allowed_batch_sizes: 1\nallowed_batch_sizes: 4\nallowed_batch_sizes: 8\n\
                    pad_variable_length_inputs: true\nenable_large_batch_splitting { value: true }\n\
                    max_execution_batch_size { value: 4 }\n";
    assert_eq!(start.batching_config.as_deref(), Some(expected));
    assert_eq!(
        start.flag("enable_per_model_batching_parameters"),
        Some("true")
    );
    let line = expected.trim_end().replace('\n', ", ");
    server.wait_for_log(&format!("batching parameters: {line}"));
}

#[test]
fn labels_of_versions_are_in_the_model_config() {
    let models = ["a/1", "a/2", "b/7"];
    let server = Setup::new()
        .models(&models)
        .var(
            "SAGEMAKER_TFS_VERSION_LABELS",
            "stable=1,canary=2,b:stable=7",
        )
        .start();
    let start = server.wait_for_start(0);
    assert_eq!(
        start.flag("allow_version_labels_for_unavailable_models"),
        Some("true")
    );
    let labels = "    version_labels { key: 'stable' value: 1 }\n    version_labels { key: 'canary' value: 2 }\n  }\n";
    assert!(
        start.model_config.contains(labels),
        "{}",
        start.model_config
    );
    assert_eq!(start.models()[1].2, [7]);
    // The path of a label reaches TensorFlow Serving as it is.
    let path = "/v1/models/a/labels/stable:predict";
    server.post(&format!("/tfs{path}"), &[], b"{}");
    assert_eq!(server.last_request().path, path);

    let ended = Setup::new()
        .models(&models)
        .var("SAGEMAKER_TFS_VERSION_LABELS", "stable=3")
        .run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(
        ended.reason(),
        "SAGEMAKER_TFS_VERSION_LABELS: model a has no version 3 for the label stable; it has [1, 2]"
    );
    assert!(ended.starts.is_empty(), "no model server was started");
}

const EXTRA_ARGS: &str = "SAGEMAKER_TFS_EXTRA_ARGS";

#[test]
fn further_flags_reach_every_instance_as_words() {
    let words = [
        "--enable_profiler",
        "--saved_model_tags=a b,'c'",
        "--num_load_threads=2",
    ];
    let text = "--enable_profiler --saved_model_tags=\"a b,'c'\"\t--num_load_threads=2";
    let server = Setup::new().instances(2).var(EXTRA_ARGS, text).start();
    for index in 0..2 {
        assert!(
            server
                .wait_for_start(index)
                .args
                .ends_with(&words.map(String::from))
        );
    }
    let server = Setup::multi_model(1).var(EXTRA_ARGS, text).start();
    server.add_model("m");
    assert_eq!(server.load("m").status, 200);
    assert!(
        server
            .wait_for_start(0)
            .args
            .ends_with(&words.map(String::from))
    );
}

#[test]
fn wrong_further_flags_are_refused_before_anything_starts() {
    for (text, version, expected) in [
        (
            "--rest_api_port=1 --num_load_thread=2",
            "2.19",
            "SAGEMAKER_TFS_EXTRA_ARGS: the server decides about --rest_api_port; set SAGEMAKER_SAFE_PORT_RANGE instead\n\
             SAGEMAKER_TFS_EXTRA_ARGS: no version of TensorFlow Serving has --num_load_thread; similar flags: \
             --num_load_threads, --num_unload_threads",
        ),
        (
            "--mixed_precision=bfloat16",
            "2.12",
            "SAGEMAKER_TFS_EXTRA_ARGS: TensorFlow Serving 2.12 does not have --mixed_precision, which version 2.15.1 \
             added",
        ),
    ] {
        let ended = Setup::new()
            .var(EXTRA_ARGS, text)
            .var("SAGEMAKER_TFS_VERSION", version)
            .run();
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert_eq!(ended.reason(), expected);
        assert!(ended.starts.is_empty(), "no model server was started");
    }
}

#[test]
fn a_further_flag_that_the_model_server_itself_does_not_know_ends_the_start() {
    let ended = Setup::new()
        .var(EXTRA_ARGS, "--mixed_precision=bfloat16")
        .var("FAKE_TFS_UNKNOWN_FLAG", "mixed_precision")
        .run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for expected in [
        "1.12.3 does not know the flag --mixed_precision",
        "remove it from SAGEMAKER_TFS_EXTRA_ARGS",
    ] {
        assert!(ended.reason().contains(expected), "{}", ended.reason());
    }
    ended.assert_nothing_left();
}

#[test]
fn batching_parameters_without_batching_do_nothing_and_the_log_says_so() {
    let (server, start) = start_with(&[
        ("SAGEMAKER_TFS_ENABLE_BATCHING", "False"),
        ("SAGEMAKER_TFS_MAX_BATCH_SIZE", "64"),
    ]);
    assert_eq!(start.flag("enable_batching"), None);
    assert_eq!(start.batching_config, None);
    server.wait_for_log(
        "SAGEMAKER_TFS_MAX_BATCH_SIZE: no effect without SAGEMAKER_TFS_ENABLE_BATCHING=true",
    );
}

#[test]
fn instance_i_takes_the_ports_low_plus_2i_and_low_plus_2i_plus_1() {
    let server = Setup::new().instances(3).start();
    let mut ports: Vec<_> = (0..3)
        .map(|k| server.wait_for_start(k))
        .map(|start| {
            let port = |name| start.flag(name).unwrap().parse::<u16>().unwrap();
            (port("port"), port("rest_api_port"))
        })
        .collect();
    ports.sort_unstable();
    let low = server.port() + 1;
    assert_eq!(
        ports,
        [(low, low + 1), (low + 2, low + 3), (low + 4, low + 5)]
    );
}

#[test]
fn without_a_range_or_a_port_the_default_ports_are_used() {
    if ![8080, 9000, 8501].into_iter().all(is_free) {
        skipped(
            "without_a_range_or_a_port_the_default_ports_are_used",
            "ports 8080, 9000 and 8501 are not all free here",
        );
        return;
    }
    let server = Setup::new()
        .without_var("SAGEMAKER_SAFE_PORT_RANGE")
        .without_flag("port")
        .launch();
    let start = server.wait_for_start(0);
    assert_eq!(start.flag("port"), Some("9000"));
    assert_eq!(start.flag("rest_api_port"), Some("8501"));
    server.wait_for_log("listening on 127.0.0.1:8080");
}

#[test]
fn a_variable_sets_the_port_and_an_option_overrides_it() {
    let setup = Setup::new().without_flag("port");
    let port = setup.port();
    let server = setup.var("SAGEMAKER_BIND_TO_PORT", port).start();
    server.assert_serves();

    let setup = Setup::new();
    let other = setup.port() + 10;
    setup
        .var("SAGEMAKER_BIND_TO_PORT", other)
        .start()
        .assert_serves();
}

#[test]
fn the_model_server_is_found_on_path() {
    let setup = Setup::new().without_flag("model-server");
    let program = setup.path("bin/tensorflow_model_server");
    std::os::unix::fs::symlink(fake_model_server(), program).unwrap();
    setup.start().assert_serves();
}

const INTER_OP: &str = "tensorflow_inter_op_parallelism";

/// A model server that reports this flag as unknown and continues, as the real one does.
fn without_inter_op() -> Setup {
    Setup::new()
        .var("SAGEMAKER_TFS_INTER_OP_PARALLELISM", 2)
        .var("FAKE_TFS_UNKNOWN_FLAG", INTER_OP)
}

#[track_caller]
fn assert_names_flag(text: &str, version: &str) {
    for expected in [
        &format!("TensorFlow Serving {version} does not know the flag --{INTER_OP}"),
        "which version 1.13 added",
        "unset SAGEMAKER_TFS_INTER_OP_PARALLELISM",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
}

#[test]
fn a_flag_unknown_to_the_model_server_ends_the_start() {
    let ended = without_inter_op()
        .var("SAGEMAKER_TFS_VERSION", "1.12")
        .run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reasons = ended.reasons();
    assert_eq!(reasons.len(), 1, "{}", ended.stderr);
    assert_names_flag(reasons[0], "1.12");
    ended.assert_nothing_left();
}

#[test]
fn the_model_server_is_asked_for_its_version_if_no_variable_gives_it() {
    let ended = without_inter_op().run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_names_flag(&ended.reasons().join("\n"), "1.12.3");
    ended.assert_nothing_left();
}

#[test]
fn an_unknown_flag_ends_the_start_even_if_the_model_loads_first() {
    let wait = "case \"$*\" in *--version*) until [ -e \"$GATE\" ]; do sleep 0.01; done;; esac";
    let setup = without_inter_op().script(
        "bin/model_server",
        &format!("{wait}\nexec '{}' \"$@\"", fake_model_server().display()),
    );
    let (program, gate) = (setup.path("bin/model_server"), setup.path("gate"));
    let server = setup
        .flag("model-server", program.display())
        .var("GATE", gate.display())
        .launch();
    wait_until("the model server listens", || {
        Connection::try_open(server.rest_port(0)).is_ok()
    });
    wait_until("the server has asked for the status", || {
        server.stat(0, "status_requests") >= 3
    });
    assert_eq!(server.ping().status, 502);
    std::fs::write(gate, "").unwrap();
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_names_flag(&ended.reasons().join("\n"), "1.12.3");
}

#[test]
fn a_flag_unknown_to_the_model_server_fails_a_load() {
    let server = Setup::multi_model(1)
        .var("SAGEMAKER_TFS_INTER_OP_PARALLELISM", 2)
        .var("FAKE_TFS_UNKNOWN_FLAG", INTER_OP)
        .var("SAGEMAKER_TFS_VERSION", "1.12")
        .start();
    server.add_model("m");
    let response = server.load("m");
    assert_eq!(response.status, 500, "{}", response.text());
    assert_names_flag(&response.error(), "1.12");
    server.assert_no_model_left();
}
