//! `X-Amzn-SageMaker-Custom-Attributes`: the header selects the URL of TensorFlow Serving for a request.

use crate::support::{INSTANCES, Response, Server, Setup};

fn invoke_with(server: &Server, attributes: &str) -> Response {
    let headers = [("X-Amzn-SageMaker-Custom-Attributes", attributes)];
    server.post("/invocations", &headers, INSTANCES)
}

#[test]
fn attributes_select_model_version_and_method() {
    let server = Setup::new().models(&["default/1", "other/7"]).start();
    let others = "x=y,".repeat(240);
    let long = format!("{others}tfs-model-name=other");
    for (attributes, path) in [
        ("", "/v1/models/default:predict"),
        ("c000b4f9-df62-4c85", "/v1/models/default:predict"),
        ("tfs-model-name=other", "/v1/models/other:predict"),
        (
            "tfs-model-version=1",
            "/v1/models/default/versions/1:predict",
        ),
        ("tfs-method=classify", "/v1/models/default:classify"),
        ("tfs-method=regress", "/v1/models/default:regress"),
        ("tfs-method=predict", "/v1/models/default:predict"),
        (
            "tfs-model-name=other,tfs-model-version=7,tfs-method=regress",
            "/v1/models/other/versions/7:regress",
        ),
        (
            "a=b=c, tfs-method=classify , trace=tfs-model-name=x,,tfs-model-name=other",
            "/v1/models/other:classify",
        ),
        // Behind other text, as in the Python container.
        ("a=b;tfs-model-name=other", "/v1/models/other:predict"),
        ("trace tfs-method=regress", "/v1/models/default:regress"),
        // An empty value is none.
        (
            "tfs-model-name=,tfs-model-version=,tfs-method= ",
            "/v1/models/default:predict",
        ),
        (&long, "/v1/models/other:predict"),
    ] {
        let response = invoke_with(&server, attributes);
        assert_eq!(response.status, 200, "{attributes:?}: {}", response.text());
        assert_eq!(server.last_request().path, path, "{attributes:?}");
    }
}

#[test]
fn the_header_name_is_case_insensitive() {
    let server = Setup::new().models(&["default/1", "other/7"]).start();
    let headers = [("x-amzn-sagemaker-custom-attributes", "tfs-model-name=other")];
    assert_eq!(server.post("/invocations", &headers, INSTANCES).status, 200);
    assert_eq!(server.last_request().path, "/v1/models/other:predict");
}

#[test]
fn an_unknown_model_gets_the_error_of_tensorflow_serving() {
    let server = Setup::new().start();
    let response = invoke_with(&server, "tfs-model-name=absent");
    assert_eq!(response.status, 404);
    assert_eq!(
        response.text(),
        "{\n    \"error\": \"Servable not found for request: Latest(absent)\"\n}"
    );
}

#[test]
fn invalid_attributes_are_refused() {
    let server = Setup::new().start();
    let too_long = format!("tfs-model-name={}", "a".repeat(256));
    for (attributes, named) in [
        ("tfs-model-name=../../secret", "tfs-model-name"),
        ("tfs-model-name=-a", "tfs-model-name"),
        ("tfs-model-name=a/b", "tfs-model-name"),
        ("tfs-model-name=a:predict", "tfs-model-name"),
        ("tfs-model-name=a%2fb", "tfs-model-name"),
        ("tfs-model-name=a b", "tfs-model-name"),
        (&too_long, "tfs-model-name"),
        ("tfs-model-version=latest", "tfs-model-version"),
        ("tfs-model-version=-1", "tfs-model-version"),
        ("tfs-model-version=1/2", "tfs-model-version"),
        ("tfs-method=Predict", "tfs-method"),
        ("tfs-method=train", "tfs-method"),
        ("tfs-model-name=a;tfs-method=regress", "tfs-model-name"),
        // Meant for the server, but written so that it would get lost.
        ("tfs-model-name:half_plus_three", "tfs-model-name=VALUE"),
        ("tfs_model_name=half_plus_three", "tfs-model-name=VALUE"),
        ("a;TFS-Model-Name=half_plus_three", "tfs-model-name=VALUE"),
        ("{\"tfs-model-version\": 1}", "tfs-model-version=VALUE"),
        ("tfs-model.name=half_plus_three", "tfs-model-name=VALUE"),
        ("tfs-model name=half_plus_three", "tfs-model-name=VALUE"),
        ("tfs model-name=half_plus_three", "tfs-model-name=VALUE"),
        ("tfs-modelname=half_plus_three", "tfs-model-name=VALUE"),
        ("x=1;tfs-model-name echo", "tfs-model-name=VALUE"),
        (
            "tfs-model-version=9223372036854775808",
            "from 0 to 9223372036854775807",
        ),
    ] {
        let response = invoke_with(&server, attributes);
        assert_eq!(response.status, 400, "{attributes:?}: {}", response.text());
        assert!(
            response.error().contains(named),
            "{attributes:?}: {}",
            response.error()
        );
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving was not asked"
    );
}

/// Whoever mistypes an attribute can find out, but nobody can fill the log.
#[test]
fn unknown_attributes_are_logged_once_each_and_only_some_of_them() {
    let server = Setup::new().start();
    let long = "x".repeat(300);
    for _ in 0..2 {
        assert_eq!(invoke_with(&server, "tfs-model=a").status, 200);
        assert_eq!(invoke_with(&server, &format!("tfs-{long}=a")).status, 200);
        assert_eq!(invoke_with(&server, "tfs-x.y=1").status, 200);
    }
    server.wait_for_log("tfs-xxxx");
    server.wait_for_log("attribute tfs-x.y;");
    for number in 0..50 {
        assert_eq!(invoke_with(&server, &format!("tfs-{number}=a")).status, 200);
    }
    server.wait_for_log("Further unknown attributes are not logged");
    let log = server.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("ignores the custom attribute"))
        .collect();
    assert_eq!(lines.len(), 32, "{log}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains("WARN") && line.len() < 500),
        "{log}"
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains(" tfs-model;"))
            .count(),
        1,
        "{log}"
    );
}

/// Names that are no valid model names name a model only if its folder is called so. Its name towards TensorFlow Serving
/// needs no escape, which old versions would not understand.
#[test]
fn models_have_the_names_of_their_folders_whatever_these_are() {
    let folders = [
        "_export/1",
        "a b/1",
        "a_b/1",
        "bert+head/1",
        "\u{e9}toile/1",
    ];
    let setup = Setup::new().models(&folders);
    let server = setup.var("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "a b").start();
    for (name, served) in [
        ("_export", "_export"),
        ("a b", "a_b_2"),
        ("a_b", "a_b"),
        ("a_b_2", "a_b_2"),
        ("bert+head", "bert+head"),
        ("\u{e9}toile", "_toile"),
    ] {
        let response = invoke_with(&server, &format!("x=y, tfs-model-name={name}"));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        let path = format!("/v1/models/{served}:predict");
        assert_eq!(server.last_request().path, path);

        let escaped = name.replace(' ', "%20").replace('\u{e9}', "%C3%A9");
        let target = format!("/tfs/v1/models/{escaped}:predict");
        let response = server.post(&target, &[], INSTANCES);
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(server.last_request().path, path);
    }
    assert_eq!(server.invoke(INSTANCES).status, 200);
    assert_eq!(server.last_request().path, "/v1/models/a_b_2:predict");
    for name in ["_other", "c d", "a%20b", "../a b", "\u{e9}"] {
        let response = invoke_with(&server, &format!("tfs-model-name={name}"));
        assert_eq!(response.status, 400, "{name}: {}", response.text());
    }
    let status = server.get("/tfs/v1/models/a%20b");
    assert_eq!(status.status, 200, "{}", status.text());
    server.assert_serves();
}
