//! Multi-model mode: unsafe names and URLs and requests of web pages are refused, and files of models are private.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::models::{assert_error, assert_not_loaded};
use crate::support::{Server, Setup, request};

/// Asserts that a load is refused and starts nothing.
#[track_caller]
fn assert_refused(server: &Server, name: &str, url: &str, status: u16, named: &str) {
    let response = server.load_from(name, url);
    assert_eq!(response.status, status, "{name} {url}: {}", response.text());
    assert!(response.error().contains(named), "{}", response.error());
    assert!(server.starts().is_empty());
    server.assert_no_model_left();
}

#[test]
fn names_that_are_unsafe_in_a_path_get_400() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let url = server.url("m");
    for name in [
        "",
        ".",
        "..",
        "../m",
        "a/b",
        "/m",
        "-m",
        "_m",
        ".m",
        "a b",
        "a%2Fb",
        "m\n",
        "\u{e9}",
        "a\0",
        "m:predict",
        "m?x",
        "m'",
        "m}",
        &"x".repeat(256),
    ] {
        assert_refused(&server, name, &url, 400, "model_name");
        // A description of that name is refused as well.
        let is_shown = !name.is_empty() && name.len() <= 255;
        if is_shown && !name.contains(['\n', '\0', ' ', '\u{e9}', '?']) {
            assert_not_loaded(&server.get(&format!("/models/{name}")), name);
        }
    }
    server.assert_loads("m");
}

#[test]
fn urls_must_be_absolute_paths_without_dot_dot() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let url = server.url("m");
    for wrong in [
        "",
        "model",
        "./model",
        "../../etc",
        &format!("{url}/.."),
        &format!("{url}/../model"),
        "/../..",
        &format!("file://{url}"),
        "s3://bucket/model",
    ] {
        assert_refused(&server, "m", wrong, 400, "absolute path");
    }
    // Only the system resolves paths: `%2F` and `~` mean nothing special.
    for wrong in [
        format!("{url}%2F.."),
        format!("{url}\0/x"),
        "~/model".to_owned(),
    ] {
        let status = server.load_from("m", &wrong).status;
        assert!([400, 404].contains(&status), "{wrong}: {status}");
    }
    // Harmless spellings.
    for right in [
        format!("{url}/"),
        url.replace('/', "//"),
        format!("{url}/."),
    ] {
        assert_eq!(server.load_from("m", &right).status, 200, "{right}");
        server.assert_unloads("m");
    }
}

#[test]
fn models_are_not_loaded_from_system_folders() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let link = |name: &str, target: &str| {
        let link = server.path(name);
        symlink(target, &link).expect("links can be made");
        link.display().to_string()
    };
    // A folder with a model, reached through the server's /proc entry.
    let inside = format!("/proc/{}/root{}", server.pid(), server.url("m"));
    assert!(Path::new(&inside).join("1/saved_model.pb").exists());
    for url in [
        "/proc",
        "/proc/self",
        "/proc/self/fd",
        "/dev",
        "/dev/shm",
        "/dev/fd",
        "/sys",
        "/sys/kernel",
        "//proc//self/",
        &link("to-proc", "/proc/self"),
        &link("to-dev", "/dev"),
        &link("twice", &server.path("to-dev").display().to_string()),
    ] {
        assert_refused(&server, "m", url, 400, "holds no models");
    }
    // The folder behind the path decides, not the path.
    let status = server.load_from("m", &inside).status;
    assert!([200, 400].contains(&status), "{status}");
}

/// The model's folder is in the right place, but it links to one in /dev/shm.
#[test]
fn models_are_not_loaded_through_links_to_system_folders() {
    let server = Setup::multi_model(1).start();
    let made = tempfile::Builder::new()
        .prefix("sagemaker-tfs-test-")
        .tempdir_in("/dev/shm");
    let Ok(made) = made else {
        crate::support::skipped(
            "models_are_not_loaded_through_links_to_system_folders",
            "/dev/shm cannot be written to",
        );
        return;
    };
    fs::create_dir_all(made.path().join("net/1")).unwrap();
    fs::write(made.path().join("net/1/saved_model.pb"), "").unwrap();
    for (name, place, target) in [
        ("model", "net", "net"),
        ("version", "net/1", "net/1"),
        ("lone", "net", "net/1"),
    ] {
        let place = server.model_folder(name).join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(made.path().join(target), &place).unwrap();
        assert_refused(&server, name, &server.url(name), 400, "holds no models");
    }
}

/// An archive may contain a link to anywhere. The search for a model must end.
#[test]
fn links_to_the_whole_file_system_are_not_followed_forever() {
    let server = Setup::multi_model(2).start();
    for (name, target) in [("proc", "/proc"), ("root", "/")] {
        let folder = server.model_folder(name);
        fs::create_dir_all(&folder).unwrap();
        symlink(target, folder.join("link")).unwrap();
        let status = server.load(name).status;
        assert_eq!(status, 404, "{name}");
    }
    server.assert_no_model_left();
}

#[test]
fn a_url_with_several_models_gets_400() {
    let server = Setup::multi_model(1).start();
    for folder in ["a/1", "b/1"] {
        server.model_file("m", &format!("{folder}/saved_model.pb"), "");
    }
    assert_refused(&server, "m", &server.url("m"), 400, "2 models");
    let above = server.path("model").display().to_string();
    server.add_model("n");
    assert_refused(&server, "m", &above, 400, "3 models");
}

/// Two models of the same name, which one process cannot serve, and two folders of the same version.
#[test]
fn ambiguous_models_and_versions_get_404() {
    let server = Setup::multi_model(1).start();
    for folder in ["x/net/1", "y/net/1"] {
        server.model_file("twins", &format!("{folder}/saved_model.pb"), "");
    }
    for folder in ["1", "01"] {
        server.model_file("versions", &format!("{folder}/saved_model.pb"), "");
    }
    for name in ["twins", "versions"] {
        let url = server.url(name);
        let text = format!("Could not find valid base path {url} for servable {name}");
        assert_error(&server.load(name), 404, &text);
    }
}

#[test]
fn odd_folder_names_reach_the_model_server_unchanged() {
    let server = Setup::multi_model(1).start();
    let folder = server.path("odd ' \u{e9} \"").join("net");
    fs::create_dir_all(folder.join("1")).unwrap();
    fs::write(folder.join("1/saved_model.pb"), "").unwrap();
    let response = server.load_from("m", folder.to_str().unwrap());
    assert_eq!(response.status, 200, "{}", response.text());
    let config = server.last_start_of("m").model_config;
    assert!(config.contains(r#"odd \' \303\251 "/net'"#), "{config}");
}

/// TensorFlow takes such a path for a pattern.
#[test]
fn a_model_below_a_folder_with_brackets_gets_a_plain_path() {
    let server = Setup::multi_model(1).start();
    server.model_file("a[1]", "1/saved_model.pb", "");
    assert_eq!(server.load_from("m", &server.url("a[1]")).status, 200);
    let (_, base, _) = server.last_start_of("m").models().remove(0);
    assert!(!base.contains('['), "{base}");
    assert_eq!(fs::read_link(base).unwrap(), server.model_folder("a[1]"));
    server.assert_model_serves("m");
}

#[test]
fn what_is_wrong_with_an_archive_refuses_its_load_or_is_named_with_the_model() {
    let server = Setup::multi_model(1)
        .var("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "m")
        .start();
    let log = server.log();
    assert!(
        log.contains("SAGEMAKER_TFS_DEFAULT_MODEL_NAME: no effect in multi-model mode"),
        "{log}"
    );
    server.model_file("m", "my model/1/saved_model.pb", "");
    server.model_file("m", "my model/2/x", "");
    server.model_file("m", "code/helper/1/saved_model.pb", "");
    let script = server.model_folder("m").join("code/inference.py");
    symlink("nowhere", &script).unwrap();
    let response = server.load("m");
    assert_eq!(response.status, 500, "{}", response.text());
    let reason = "code/inference.py cannot be used: the link leads nowhere";
    assert!(response.error().contains(reason), "{}", response.error());
    server.assert_no_model_left();
    fs::remove_file(script).unwrap();
    server.assert_loads("m");
    let log = server.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("not served"))
        .collect();
    assert_eq!(lines.len(), 4, "two for each load: {lines:?}");
    assert!(
        lines.iter().all(|line| line.contains("] model m: ")),
        "{lines:?}"
    );
    assert!(!log.contains("is served as"), "{log}");
}

#[test]
fn files_of_a_model_are_private_and_removed_with_it() {
    let server = Setup::multi_model(2)
        .var("SAGEMAKER_TFS_ENABLE_BATCHING", "true")
        .start();
    server.add_loaded(&["a", "b"]);
    let folders = server.files_of_models();
    assert_eq!(folders.len(), 2);
    for folder in &folders {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder:?}");
        assert!(folder.join("batching.config").is_file());
    }
    let config = server.last_start_of("a");
    let config = Path::new(config.flag("model_config_file").unwrap());
    assert!(config.is_file());
    server.assert_unloads("a");
    assert!(!config.exists() && !config.parent().unwrap().exists());
    assert_eq!(server.files_of_models().len(), 1);
    server.assert_model_serves("b");
}

/// A web page in a browser on the same computer can send requests to the server. Those that a browser sends without a
/// preflight request are refused; for all others the preflight request (OPTIONS) is refused.
#[test]
fn a_web_page_can_neither_load_nor_unload_a_model() {
    let server = Setup::multi_model(1).start();
    server.add_model("m");
    let body = format!("{{\"model_name\": \"m\", \"url\": {:?}}}", server.url("m"));
    for (headers, expected) in [
        (&[("Content-Type", "text/plain")][..], 415),
        (&[("Content-Type", "Text/Plain; charset=utf-8")], 415),
        (
            &[("Content-Type", "application/x-www-form-urlencoded")],
            415,
        ),
        (&[("Content-Type", "multipart/form-data; boundary=x")], 415),
        (
            &[
                ("Content-Type", "application/json"),
                ("Origin", "https://evil.example"),
            ],
            403,
        ),
        (&[("Origin", "null")], 403),
        // A foreign name that may resolve to this computer.
        (&[("Origin", "http://evil.example:8080")], 403),
    ] {
        let response = server.post("/models", headers, body.as_bytes());
        assert_eq!(
            response.status,
            expected,
            "{headers:?}: {}",
            response.text()
        );
        assert!(!response.error().is_empty());
    }
    assert!(server.starts().is_empty(), "nothing was started");
    let asked = server.exchange(&request(
        "OPTIONS",
        "/models",
        &[("Origin", "http://a.example")],
        b"",
    ));
    assert_eq!(asked.status, 405);
    assert_eq!(asked.header("access-control-allow-origin"), None);

    // Pages from the server's own address, and clients that send no Origin, may load and unload.
    let ours = format!("localhost:{}", server.port());
    let head = format!(
        "POST /models HTTP/1.1\r\nHost: {ours}\r\nOrigin: http://{ours}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = server.exchange(head.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    let unload = [("Origin", "https://evil.example")];
    let response = server.exchange(&request("DELETE", "/models/m", &unload, b""));
    assert_eq!(response.status, 403, "{}", response.text());
    assert_eq!(
        server
            .exchange(&request("DELETE", "/models/m", &[], b""))
            .status,
        200
    );
}

/// The body contains only a name and a path, so a large one is a mistake or an attack.
#[test]
fn a_load_with_a_body_above_64_kb_gets_413() {
    let server = Setup::multi_model(1).start();
    let head = "POST /models HTTP/1.1\r\nHost: x\r\n";
    let announced = server.exchange(format!("{head}Content-Length: 65537\r\n\r\n").as_bytes());
    assert_eq!(announced.status, 413, "{}", announced.text());
    let chunk = format!("10001\r\n{}\r\n0\r\n\r\n", " ".repeat(65537));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_eq!(server.exchange(chunked.as_bytes()).status, 413);
    server.assert_no_model_left();
}
