//! How the body of each content type is converted, as the model server sees it.

use crate::support::{Server, Setup, wait_until};

/// Posts to `/invocations` and returns the body that the model server got.
#[track_caller]
fn converted(server: &Server, content_type: Option<&str>, body: &[u8]) -> String {
    let headers: Vec<_> = content_type
        .map(|t| ("Content-Type", t))
        .into_iter()
        .collect();
    let before = server.requests().len();
    let response = server.post("/invocations", &headers, body);
    assert_eq!(
        response.status,
        200,
        "{content_type:?}: {}",
        response.text()
    );
    let requests = server.requests();
    assert_eq!(requests.len(), before + 1, "{content_type:?}: one request");
    let request = &requests[before];
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/v1/models/half_plus_three:predict");
    assert_eq!(request.header("content-type"), Some("application/json"));
    request.body.clone().expect("small bodies are recorded")
}

/// `(body, what TensorFlow Serving gets)`
const JSON: &[(&str, &str)] = &[
    // Requests in TensorFlow Serving's own format pass unchanged, byte for byte.
    (
        r#"{"instances": [1.0, 2.0, 5.0]}"#,
        r#"{"instances": [1.0, 2.0, 5.0]}"#,
    ),
    (" {\n\"inputs\" : [1] }\n", " {\n\"inputs\" : [1] }\n"),
    (
        r#"{"signature_name": "s", "examples": [{"x": 1}]}"#,
        r#"{"signature_name": "s", "examples": [{"x": 1}]}"#,
    ),
    (
        r#"{"instances": [NaN, -Infinity]}"#,
        r#"{"instances": [NaN, -Infinity]}"#,
    ),
    // Several values, with or without line breaks between them.
    ("1.0\n2.0\n5.0\n", r#"{"instances": [1.0, 2.0, 5.0]}"#),
    (
        "[1.0, 2.0]\n[3.0, 4.0]",
        r#"{"instances": [[1.0, 2.0], [3.0, 4.0]]}"#,
    ),
    ("[1][2]", r#"{"instances": [[1], [2]]}"#),
    (
        "{\"x\": [1]}\r\n\r\n{\"x\": [2]}\r\n",
        r#"{"instances": [{"x": [1]}, {"x": [2]}]}"#,
    ),
    ("\"a b\" \"}{\"", r#"{"instances": ["a b", "}{"]}"#),
    ("NaN\nNaN", r#"{"instances": [NaN, NaN]}"#),
    // With commas between them.
    ("1,2,3", r#"{"instances": [1, 2, 3]}"#),
    ("[1],[2]", r#"{"instances": [[1], [2]]}"#),
    (
        "{\"x\": 1},\r\n{\"x\": 2}\r\n",
        r#"{"instances": [{"x": 1}, {"x": 2}]}"#,
    ),
    (
        "{\"instances\": [1]},{\"instances\": [2]}",
        r#"{"instances": [1, 2]}"#,
    ),
    // Several requests with the same signature become one.
    (
        "{\"instances\": [1]}\n{\"instances\": [2, 3]}\n{\"instances\": []}",
        r#"{"instances": [1, 2, 3]}"#,
    ),
    (
        "{\"signature_name\": \"s\", \"instances\": [1]}\n{\"instances\": [2], \"signature_name\": \"s\"}",
        r#"{"signature_name": "s", "instances": [1, 2]}"#,
    ),
    (
        "{\"examples\": [{\"x\": 1}]}{\"examples\": [{\"x\": 2}]}",
        r#"{"examples": [{"x": 1}, {"x": 2}]}"#,
    ),
    // One value.
    ("[[1, 2], [3, 4]]", r#"{"instances": [[1, 2], [3, 4]]}"#),
    (
        r#"[{"x": 1}, {"x": 2}]"#,
        r#"{"instances": [{"x": 1}, {"x": 2}]}"#,
    ),
    ("[1.0, 2.0, 5.0]", r#"{"instances": [[1.0, 2.0, 5.0]]}"#),
    (
        r#"{"x": {"instances": 1}}"#,
        r#"{"instances": [{"x": {"instances": 1}}]}"#,
    ),
    (r#""text""#, r#"{"instances": ["text"]}"#),
    ("7", r#"{"instances": [7]}"#),
    // TensorFlow Serving judges whether the JSON is valid.
    ("{\"instances\": [1", "{\"instances\": [1"),
    ("]", "]"),
    // TensorFlow Serving's own error explains best what an empty body lacks.
    ("", ""),
];

#[test]
fn all_json_content_types_are_treated_alike() {
    let server = Setup::new().start();
    for content_type in [
        Some("application/json"),
        Some("application/jsonlines"),
        Some("application/jsons"),
    ] {
        for (body, expected) in JSON {
            let got = converted(&server, content_type, body.as_bytes());
            assert_eq!(got, *expected, "{content_type:?} {body:?}");
        }
    }
}

#[test]
fn content_types_ignore_parameters_and_case_and_default_to_json() {
    let server = Setup::new().start();
    for (content_type, expected) in [
        (None, r#"{"instances": [[1,2]]}"#),
        (Some(""), r#"{"instances": [[1,2]]}"#),
        (Some(" \t "), r#"{"instances": [[1,2]]}"#),
        (
            Some("Application/JSON; charset=utf-8"),
            r#"{"instances": [[1,2]]}"#,
        ),
        (Some("APPLICATION/JSONLINES"), r#"{"instances": [[1,2]]}"#),
        (
            Some("Text/CSV ; header=absent"),
            r#"{"instances": [["[1","2]"]]}"#,
        ),
        (
            Some("Image/PNG;q=1"),
            r#"{"instances": [{"b64": "WzEsMl0="}]}"#,
        ),
    ] {
        assert_eq!(
            converted(&server, content_type, b"[1,2]"),
            expected,
            "{content_type:?}"
        );
    }
}

#[test]
fn commas_that_separate_nothing_or_not_everything_are_refused() {
    let server = Setup::new().start();
    for (body, part) in [
        ("1,2,", "a comma with no JSON value"),
        ("{\"x\": 1},\n{\"x\": 2},\n", "a comma with no JSON value"),
        (",[1]", "a comma with no JSON value"),
        ("1,,2", "a comma with no JSON value"),
        ("1.0,2.0\n3.0,4.0\n", "text/csv"),
    ] {
        let response = server.invoke(body);
        assert_eq!(response.status, 400, "{body:?}: {}", response.text());
        assert!(
            response.error().contains(part),
            "{body:?}: {}",
            response.error()
        );
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving was not asked"
    );
    server.assert_serves();
}

#[test]
fn csv_rows_become_instances() {
    let server = Setup::new().start();
    for (body, expected) in [
        ("1.0\n2.0\n5.0\n", "1.0,2.0,5.0"),
        ("1.0,2.0\r\n3.0,4.0\r\n", "[1.0,2.0],[3.0,4.0]"),
        ("\n1\n\n\r\n2", "1,2"),
        ("\u{feff}1,2", "[1,2]"),
        (".5,+1,1.,1e5,-0", "[0.5,1,1.0,1e5,-0]"),
        ("NaN,nan,inf,-Infinity", "[NaN,NaN,Infinity,-Infinity]"),
        ("007", "7"),
        ("a,1\n\u{e9},2", "[\"a\",1],[\"\u{e9}\",2]"),
        (
            "\"1\",\"a,b\",\"say \"\"x\"\"\"",
            r#"["1","a,b","say \"x\""]"#,
        ),
        ("\"two\nlines\",1", r#"["two\nlines",1]"#),
        ("1,,2", r#"[1,"",2]"#),
        ("0x10,1_000,1 2", r#"["0x10","1_000","1 2"]"#),
        ("  1, 2 \n \t\n\t3,4\t\r\n  ", "[1,2],[3,4]"),
        (" a \n\" b \"", r#""a"," b ""#),
    ] {
        let got = converted(&server, Some("text/csv"), body.as_bytes());
        let inner = got
            .strip_prefix("{\"instances\": [")
            .and_then(|t| t.strip_suffix("]}"));
        assert_eq!(inner, Some(expected), "{body:?} became {got}");
    }
    assert_eq!(
        converted(&server, Some("text/csv"), b""),
        "",
        "an empty body"
    );
}

#[test]
fn csv_that_is_not_utf_8_is_refused_naming_the_row() {
    let server = Setup::new().start();
    for (body, row) in [
        (&b"\xff"[..], "row 1"),
        (b"1,2\n3,\xff\n", "row 2"),
        (b"1\n\n2\r\n\"a\nb\",\xc3", "row 3"),
    ] {
        let response = server.post("/invocations", &[("Content-Type", "text/csv")], body);
        assert_eq!(response.status, 400, "{body:?}");
        assert!(
            response.error().contains(row),
            "{body:?}: {}",
            response.error()
        );
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving was not asked"
    );
}

#[test]
fn images_become_base64() {
    let server = Setup::new().start();
    for content_type in [
        "application/x-image",
        "image/png",
        "image/jpeg",
        "image/anything",
    ] {
        assert_eq!(
            converted(&server, Some(content_type), b"\x89PNG\xff"),
            r#"{"instances": [{"b64": "iVBOR/8="}]}"#,
            "{content_type}"
        );
    }
    assert_eq!(
        converted(&server, Some("image/png"), b""),
        "",
        "an empty body"
    );
}

#[test]
fn other_content_types_get_415() {
    let server = Setup::new().start();
    for (content_type, named) in [
        ("application/foo", "application/foo"),
        (
            "application/x-recordio-protobuf; v=1",
            "application/x-recordio-protobuf",
        ),
        ("text/plain", "text/plain"),
        ("multipart/form-data; boundary=x", "multipart/form-data"),
    ] {
        let response = server.post("/invocations", &[("Content-Type", content_type)], b"x");
        assert_eq!(response.status, 415, "{content_type}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        let expected = format!("Unsupported Media Type: {named}; accepted: application/json, ");
        let error = response.error();
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving was not asked"
    );
}

#[test]
fn requests_that_cannot_be_joined_are_refused() {
    let server = Setup::new().start();
    for body in [
        "{\"instances\": [1]}\n{\"instances\": [1], \"signature_name\": \"s\"}",
        "{\"signature_name\": \"r\", \"instances\": [1]}\n{\"signature_name\": \"s\", \"instances\": [1]}",
        "{\"inputs\": [1]}\n{\"inputs\": [2]}",
        "{\"instances\": [1]}\n{\"examples\": [2]}",
        "{\"instances\": [1]}\n[2]",
        "[2]\n{\"instances\": [1]}",
        "{\"instances\": 1}\n{\"instances\": 2}",
    ] {
        let response = server.invoke(body);
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert!(
            response.error().contains("joined"),
            "{body}: {}",
            response.error()
        );
        assert!(
            response.body.len() < 2048,
            "SageMaker shows no more than that"
        );
    }
    assert!(
        server.requests().is_empty(),
        "TensorFlow Serving was not asked"
    );
}

#[test]
fn twenty_megabytes_come_back_unchanged() {
    let server = Setup::new().var("FAKE_TFS_ANSWER", "echo").start();
    let rows = "[0.125, 1.0, -2.5e-3, 77.0, 12345.678],".repeat(20_000_000 / 39);
    let body = format!("{{\"instances\": [{}[0]]}}", rows);
    assert!(body.len() > 19_900_000);
    let response = server.invoke(&body);
    assert_eq!(response.status, 200);
    assert!(
        response.body == body.as_bytes(),
        "the body came back changed"
    );

    // As JSON lines, the same rows become instances of one request.
    let lines = "[0.125, 1.0, -2.5e-3, 77.0, 12345.678]\n".repeat(20_000_000 / 39);
    let response = server.invoke(&lines);
    assert_eq!(response.status, 200);
    assert!(response.body.starts_with(b"{\"instances\": [[0.125, 1.0"));
    assert!(
        response.body.len() >= lines.len(),
        "{} bytes",
        response.body.len()
    );
    wait_until("the server is healthy", || server.is_healthy());
}
