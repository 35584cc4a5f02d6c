//! Conversions decided by the model's signature: when it is read, and which one a request gets.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Response, Server, Setup, wait_until};

/// A signature: its name, and its inputs with name, type and shape.
pub type Listed = (
    &'static str,
    &'static [(&'static str, &'static str, &'static [i64])],
);

/// The response of TensorFlow Serving for these signatures.
pub fn metadata(signatures: &[Listed]) -> String {
    let tensor = |signature: &str, (name, dtype, shape): &(&str, &str, &[i64])| {
        let dims: Vec<Value> = shape
            .iter()
            .map(|n| json!({"size": n.to_string(), "name": ""}))
            .collect();
        let node = format!("{signature}_{name}:0");
        let shape = json!({"dim": dims, "unknown_rank": false});
        (
            (*name).to_owned(),
            json!({"dtype": dtype, "tensor_shape": shape, "name": node}),
        )
    };
    let signatures: serde_json::Map<_, _> = signatures
        .iter()
        .map(|(name, inputs)| {
            let inputs: serde_json::Map<_, _> = inputs.iter().map(|input| tensor(name, input)).collect();
            let outputs = json!({"y": {"dtype": "DT_FLOAT", "name": "y:0",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": false}}});
            ((*name).to_owned(), json!({"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}))
        })
        .collect();
    json!({
        "model_spec": {"name": "m", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": signatures}}
    })
    .to_string()
}

const VECTORS: &[Listed] = &[
    ("serving_default", &[("x", "DT_FLOAT", &[-1, 1])]),
    ("texts", &[("s", "DT_STRING", &[-1])]),
];

fn setup() -> Setup {
    Setup::new()
        .models(&["m/1"])
        .file("model/m/metadata-1.json", &metadata(VECTORS))
}

fn post(server: &Server, content_type: &str, attributes: &str, body: &str) -> Response {
    let headers = [
        ("Content-Type", content_type),
        ("X-Amzn-SageMaker-Custom-Attributes", attributes),
    ];
    server.post("/invocations", &headers, body.as_bytes())
}

/// What the model server gets.
#[track_caller]
fn converted(server: &Server, content_type: &str, attributes: &str, body: &str) -> String {
    let response = post(server, content_type, attributes, body);
    assert_eq!(response.status, 200, "{body}: {}", response.text());
    server
        .last_request()
        .body
        .expect("small bodies are recorded")
}

#[test]
fn the_signature_decides_what_csv_is() {
    let server = setup().start();
    assert_eq!(
        converted(&server, "text/csv", "", "1\n\"2\"\n"),
        r#"{"instances": [[1],[2]]}"#
    );
    assert_eq!(
        converted(&server, "application/csv; header=present", "", "x\n1.5\n"),
        r#"{"instances": [[1.5]]}"#
    );
    let refused = post(&server, "text/csv", "", "1\nx\n");
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.error(),
        "CSV row 2, column 1: \"x\" is not a number, and input x is float32 of shape [-1, 1]."
    );
}

#[test]
fn an_attribute_names_the_signature_in_every_format() {
    let server = setup().start();
    let texts = "tfs-signature-name=texts";
    for (content_type, body, expected) in [
        (
            "text/csv",
            "007\n",
            r#"{"signature_name": "texts", "instances": ["007"]}"#,
        ),
        (
            "application/json",
            "\"a\"",
            r#"{"signature_name": "texts", "instances": ["a"]}"#,
        ),
        (
            "application/json",
            r#"{"instances": ["a"]}"#,
            r#"{"signature_name": "texts", "instances": ["a"]}"#,
        ),
        (
            "application/json",
            r#"{"signature_name": "serving_default", "instances": [[1]]}"#,
            r#"{"signature_name": "serving_default", "instances": [[1]]}"#,
        ),
        (
            "image/png",
            "a",
            r#"{"signature_name": "texts", "instances": [{"b64": "YQ=="}]}"#,
        ),
    ] {
        assert_eq!(
            converted(&server, content_type, texts, body),
            expected,
            "{body}"
        );
    }
    for body in ["1", r#"{"instances": [1]}"#] {
        let refused = post(
            &server,
            "application/json",
            "tfs-signature-name=other",
            body,
        );
        assert_eq!(refused.status, 400);
        assert_eq!(
            refused.error(),
            r#"Model m has no signature "other"; it has "serving_default", "texts"."#
        );
    }
}

#[test]
fn a_setting_names_the_default_signature() {
    let server = setup()
        .var("SAGEMAKER_TFS_DEFAULT_SIGNATURE", "texts")
        .start();
    assert_eq!(
        converted(&server, "text/csv", "", "007\n"),
        r#"{"signature_name": "texts", "instances": ["007"]}"#
    );
    assert_eq!(
        converted(
            &server,
            "text/csv",
            "tfs-signature-name=serving_default",
            "007\n"
        ),
        r#"{"signature_name": "serving_default", "instances": [[7]]}"#
    );
    let server = setup()
        .var("SAGEMAKER_TFS_DEFAULT_SIGNATURE", "absent")
        .start();
    server.wait_for_log(
        "SAGEMAKER_TFS_DEFAULT_SIGNATURE is \"absent\", which version 1 of model m does not have",
    );
    assert_eq!(post(&server, "text/csv", "", "1\n").status, 400);
}

#[test]
fn each_version_has_its_own_signatures_and_the_newest_is_the_default() {
    let strings: &[Listed] = &[("serving_default", &[("s", "DT_STRING", &[-1])])];
    let server = Setup::new()
        .models(&["m/1", "m/2"])
        .file("model/m/metadata-1.json", &metadata(VECTORS))
        .file("model/m/metadata-2.json", &metadata(strings))
        .start();
    assert_eq!(
        converted(&server, "text/csv", "", "1\n"),
        r#"{"instances": ["1"]}"#
    );
    assert_eq!(
        converted(&server, "text/csv", "tfs-model-version=1", "1\n"),
        r#"{"instances": [[1]]}"#
    );
    // TensorFlow Serving answers for versions that do not exist.
    assert_eq!(
        post(&server, "text/csv", "tfs-model-version=3", "1\n").status,
        404
    );
}

#[test]
fn models_without_readable_signatures_are_served_without_them() {
    for text in [
        None,
        Some("no JSON"),
        Some("{}"),
        Some(r#"{"metadata": {"signature_def": []}}"#),
    ] {
        let mut setup = Setup::new().models(&["m/1"]);
        if let Some(text) = text {
            setup = setup.file("model/m/metadata-1.json", text);
        }
        let server = setup.start();
        assert_eq!(
            converted(&server, "text/csv", "", "1\n\"2\""),
            r#"{"instances": [1,"2"]}"#
        );
        assert_eq!(
            converted(&server, "text/csv", "tfs-signature-name=a", "1"),
            r#"{"signature_name": "a", "instances": [1]}"#
        );
        server.wait_for_log("lists no signatures for version 1 of model m");
    }
}

/// A model server that does not answer for one model costs time at the start, but neither the start nor a request, and
/// the other models keep their signatures.
#[test]
fn a_model_server_that_hangs_when_asked_about_one_model_is_served() {
    let mut setup = Setup::new()
        .models(&["a/1", "b/1", "c/1"])
        .file("record/metadata_order", "/b/");
    for name in ["a", "b", "c"] {
        setup = setup.file(&format!("model/{name}/metadata-1.json"), &metadata(VECTORS));
    }
    let order = setup.path("record/metadata_order");
    let server = setup.start();
    let rows = |name: &str| {
        converted(
            &server,
            "text/csv",
            &format!("tfs-model-name={name}"),
            "1\n",
        )
    };
    for (name, expected) in [
        ("a", r#"{"instances": [[1]]}"#),
        ("b", r#"{"instances": [1]}"#),
        ("c", r#"{"instances": [[1]]}"#),
    ] {
        assert_eq!(rows(name), expected, "{name}");
    }
    server.wait_for_log("the signatures of version 1 of model b cannot be read");
    // It is asked again.
    fs::remove_file(order).expect("the file exists");
    wait_until("the signature is known", || rows("b") == rows("a"));
}

/// A question that ends the model server is not asked for ever, and what was known stays known.
#[test]
fn a_model_server_that_ends_when_asked_is_not_asked_for_ever() {
    let server = setup().start();
    fs::write(server.path("record/metadata_order"), "exit").expect("the folder is ours");
    let body = r#"{"instances": [1], "fake": {"exit": 1, "fail_first": 1, "key": "end"}}"#;
    assert_eq!(server.invoke(body).status, 200);
    server.wait_until_healthy();
    assert_eq!(
        converted(&server, "text/csv", "", "1\n"),
        r#"{"instances": [[1]]}"#
    );
    assert_eq!(server.starts().len(), 4);
    server.wait_for_log("ended 2 times while it was asked for the signatures");
}

#[test]
fn signatures_are_read_again_after_a_restart() {
    let server = setup().start();
    assert_eq!(
        converted(&server, "text/csv", "", "1\n"),
        r#"{"instances": [[1]]}"#
    );
    let strings: &[Listed] = &[("serving_default", &[("s", "DT_STRING", &[-1])])];
    fs::write(server.path("model/m/metadata-1.json"), metadata(strings))
        .expect("the folder is ours");
    let body = r#"{"instances": [1], "fake": {"exit": 1, "fail_first": 1, "key": "restart"}}"#;
    assert_eq!(server.invoke(body).status, 200);
    server.wait_until_healthy();
    assert_eq!(
        converted(&server, "text/csv", "", "1\n"),
        r#"{"instances": ["1"]}"#
    );
}

#[test]
fn loaded_models_have_their_signatures() {
    let server = Setup::multi_model(2).start();
    server.add_model("a");
    server.add_model("b");
    server.model_file("a", "metadata-1.json", &metadata(VECTORS));
    for name in ["a", "b"] {
        server.assert_loads(name);
    }
    for (name, expected) in [
        ("a", r#"{"instances": [[1]]}"#),
        ("b", r#"{"instances": [1]}"#),
    ] {
        let target = format!("/models/{name}/invoke");
        let response = server.post(&target, &[("Content-Type", "text/csv")], b"1\n");
        assert_eq!(response.status, 200, "{}", response.text());
        let requests = server.requests();
        let request = requests
            .iter()
            .rev()
            .find(|r| r.path.contains(&format!("/{name}:")));
        let body = request.and_then(|request| request.body.clone());
        assert_eq!(body.as_deref(), Some(expected));
    }
}

#[test]
fn features_are_the_row() {
    let server = setup().start();
    let lines = "{\"features\": [1]}\n{\"features\": [2]}\n";
    assert_eq!(
        converted(&server, "application/jsonlines", "", lines),
        r#"{"instances": [[1], [2]]}"#
    );
    let twice = post(
        &server,
        "application/json",
        "",
        r#""{\"instances\": [[1]]}""#,
    );
    assert_eq!(twice.status, 400);
    assert!(twice.error().contains("encoded twice"), "{}", twice.error());
}
