//! Multi-model mode: loading, invoking and unloading models while the server runs, and what is left of them.
//!
//! A model's folder is laid out as in SageMaker: `<model directory>/<name>/model`, with the version folders inside.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::http::{Connection, Response, request};
use crate::support::processes::{self, Process};
use crate::support::record::Start;
use crate::support::server::Server;
use crate::support::{ports, wait_for};

/// The request that loads a model.
pub fn load_request(name: &str, url: &str) -> Vec<u8> {
    let body = json!({"model_name": name, "url": url}).to_string();
    let headers = [("Content-Type", "application/json")];
    request("POST", "/models", &headers, body.as_bytes())
}

impl Server {
    /// The folder of a model.
    pub fn model_folder(&self, name: &str) -> PathBuf {
        self.path("model").join(name).join("model")
    }

    /// The URL of a model.
    pub fn url(&self, name: &str) -> String {
        self.model_folder(name).display().to_string()
    }

    /// Writes a file into the folder of a model.
    pub fn model_file(&self, name: &str, file: &str, text: &str) {
        let path = self.model_folder(name).join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
    }

    /// Creates a model with one version on disk.
    pub fn add_model(&self, name: &str) {
        self.model_file(name, "1/saved_model.pb", "");
    }

    /// Sets what the next starts of this model's server do: see the fake model server.
    pub fn order_start(&self, name: &str, what: &str) {
        // Renamed into place, because a model server may be reading the file.
        self.model_file(name, "fake_start.new", what);
        let folder = self.model_folder(name);
        fs::rename(folder.join("fake_start.new"), folder.join("fake_start"))
            .expect("files can be renamed");
    }

    /// Creates a model on disk whose start is held.
    pub fn add_held_model(&self, name: &str) {
        self.add_model(name);
        self.order_start(name, "hold");
    }

    /// Sends the request to load a model that is on disk, without waiting for the response.
    #[track_caller]
    pub fn begin_load(&self, name: &str) -> Connection {
        let mut connection = self.connect();
        connection.send(&load_request(name, &self.url(name)));
        connection
    }

    /// Loads a model that is on disk.
    #[track_caller]
    pub fn load(&self, name: &str) -> Response {
        self.begin_load(name).response()
    }

    /// Loads a model from this url.
    #[track_caller]
    pub fn load_from(&self, name: &str, url: &str) -> Response {
        self.exchange(&load_request(name, url))
    }

    /// Creates models on disk and loads them.
    #[track_caller]
    pub fn add_loaded(&self, names: &[&str]) {
        for name in names {
            self.add_model(name);
            self.assert_loads(name);
        }
    }

    /// Loads a model that is on disk, and asserts that the response says so.
    #[track_caller]
    pub fn assert_loads(&self, name: &str) {
        assert_loaded(&self.load(name), name);
    }

    #[track_caller]
    pub fn unload(&self, name: &str) -> Response {
        self.exchange(&unload_request(name))
    }

    /// Unloads a model, and asserts that the response says so in the words that users know.
    #[track_caller]
    pub fn assert_unloads(&self, name: &str) {
        assert_unloaded(&self.unload(name), name);
    }

    /// The names of the models on a page, and the token of the next page.
    #[track_caller]
    pub fn page(&self, query: &str) -> (Vec<String>, Option<String>) {
        let response = self.get(&format!("/models{query}"));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("application/json"));
        let page: Value = serde_json::from_slice(&response.body).expect("JSON");
        let models = page["models"].as_array().expect("a list");
        let name = |model: &Value| model["modelName"].as_str().expect("a name").to_owned();
        let token = page.get("nextPageToken");
        let token = token.map(|token| token.as_str().expect("a text").to_owned());
        (models.iter().map(name).collect(), token)
    }

    /// The names of all loaded models.
    #[track_caller]
    pub fn loaded(&self) -> Vec<String> {
        let (names, token) = self.page("?limit=1000");
        assert_eq!(token, None);
        names
    }

    /// Sends a JSON body to a model.
    #[track_caller]
    pub fn invoke_model(&self, name: &str, body: impl AsRef<[u8]>) -> Response {
        let headers = [("Content-Type", "application/json")];
        self.post(&format!("/models/{name}/invoke"), &headers, body.as_ref())
    }

    /// Asserts that a model serves.
    #[track_caller]
    pub fn assert_model_serves(&self, name: &str) {
        let response = self.invoke_model(name, super::INSTANCES);
        assert_eq!(response.status, 200, "{name}: {}", response.text());
    }

    /// All starts of model servers for this model.
    pub fn starts_of(&self, name: &str) -> Vec<Start> {
        let mut starts = self.starts();
        starts.retain(|start| start.models()[0].0 == name);
        starts
    }

    /// Waits for start number `index` (from 0) of a model server for this model.
    #[track_caller]
    pub fn wait_for_start_of(&self, name: &str, index: usize) -> Start {
        wait_for(&format!("start {index} for model {name}"), || {
            self.starts_of(name).get(index).cloned()
        })
    }

    /// The last start of a model server for this model.
    #[track_caller]
    pub fn last_start_of(&self, name: &str) -> Start {
        self.starts_of(name)
            .pop()
            .expect("the model server was started")
    }

    /// The number of the instance of this start, for [`Server::control`] and [`Server::stat`].
    pub fn instance_of(&self, start: &Start) -> u16 {
        (rest_port(start) - self.rest_port(0)) / 2
    }

    /// Lets a frozen model server continue. If an unload waits for it, the model server may end before it responds.
    #[track_caller]
    pub fn thaw(&self, instance: u16) {
        let mut connection = Connection::open(self.rest_port(instance));
        connection.send(&request(
            "POST",
            "/fake/control",
            &[],
            br#"{"freeze": false}"#,
        ));
        let _ = connection.try_response();
    }

    /// Asserts that nothing is left of any model: no process, no port, no file.
    #[track_caller]
    pub fn assert_no_model_left(&self) {
        assert_eq!(self.loaded(), [""; 0]);
        self.assert_free_but(&[]);
    }

    /// Asserts that only these models have processes, ports and files. Universal handlers are not counted.
    #[track_caller]
    pub fn assert_free_but(&self, names: &[&str]) {
        let mut living: Vec<_> = self.model_servers().iter().map(|p| p.pid).collect();
        living.sort_unstable();
        let starts = self.starts();
        // The system reuses process ids, also for this server's own children.
        let is_theirs = |start: &&Start| {
            names.contains(&start.models()[0].0.as_str()) && living.contains(&start.pid)
        };
        let mut theirs: Vec<_> = starts.iter().filter(is_theirs).map(|s| s.pid).collect();
        theirs.sort_unstable();
        theirs.dedup();
        assert_eq!(living, theirs, "model servers that run");
        assert!(theirs.len() >= names.len(), "{names:?} have {theirs:?}");
        for start in &starts {
            let their_ports = [grpc_port(start), rest_port(start)];
            let shared = |pid: &u32| {
                let other = starts.iter().rev().find(|other| other.pid == *pid);
                other.is_some_and(|other| rest_port(other) == rest_port(start))
            };
            if !theirs.iter().any(shared) {
                assert!(their_ports.into_iter().all(ports::is_free), "{start:?}");
            }
        }
        let files = self.files_of_models();
        assert_eq!(files.len(), names.len(), "{files:?}");
    }

    /// Processes that were started for model servers, including zombies.
    pub fn model_servers(&self) -> Vec<Process> {
        let mut children = processes::children(self.pid());
        // A process that was just started does not have its own command line yet.
        children.retain(|p| !p.command_line.contains("sagemaker-tfs-python"));
        children
    }

    /// Folders with the files of models, at any depth below the folder for temporary files.
    pub fn files_of_models(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect_folders(&self.path("tmp"), &mut found);
        found
    }

    /// Threads of the server that belong to models.
    pub fn threads_of_models(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the server runs");
        let name = |task: std::io::Result<fs::DirEntry>| {
            let name = fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
            let is_theirs = ["probe-", "log-", "load-", "manage"]
                .iter()
                .any(|n| name.starts_with(n));
            is_theirs.then(|| name.trim().to_owned())
        };
        tasks.filter_map(name).collect()
    }

    /// Files and sockets that the server has open.
    pub fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the server runs");
        files.count()
    }
}

/// The request that unloads a model.
pub fn unload_request(name: &str) -> Vec<u8> {
    request("DELETE", &format!("/models/{name}"), &[], b"")
}

/// Asserts that a load succeeded, with the response that users know.
#[track_caller]
pub fn assert_loaded(response: &Response, name: &str) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    let begin =
        format!("{{\"success\": \"Successfully loaded model {name}, listening on rest port ");
    assert!(response.text().starts_with(&begin), "{}", response.text());
}

/// Asserts that an unload succeeded, with the response that users know.
#[track_caller]
pub fn assert_unloaded(response: &Response, name: &str) {
    let text = format!("{{\"success\": \"Successfully unloaded model {name}.\"}}");
    assert_eq!((response.status, response.text()), (200, text));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

/// Asserts that a request failed with this status and exactly this error.
#[track_caller]
pub fn assert_error(response: &Response, status: u16, text: &str) {
    assert_eq!((response.status, response.error().as_str()), (status, text));
    let whole = format!("{{\"error\": {}}}", json!(text));
    assert_eq!(
        response.text(),
        whole,
        "exactly, because users match this text"
    );
}

/// Asserts that a request for a model failed because it is not loaded.
#[track_caller]
pub fn assert_not_loaded(response: &Response, name: &str) {
    assert_error(response, 404, &format!("Model {name} is not loaded yet."));
}

/// The REST port of a model server.
pub fn rest_port(start: &Start) -> u16 {
    port(start, "rest_api_port")
}

/// The gRPC port of a model server.
pub fn grpc_port(start: &Start) -> u16 {
    port(start, "port")
}

fn port(start: &Start, flag: &str) -> u16 {
    let port = start.flag(flag).and_then(|text| text.parse().ok());
    port.expect("a port")
}

/// Folders that the server created, at any depth, except its own folder, whose config file names no model.
fn collect_folders(folder: &Path, found: &mut Vec<PathBuf>) {
    // The server may remove the folder at any moment.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() || path.is_symlink() {
            continue;
        }
        let is_made = entry
            .file_name()
            .to_string_lossy()
            .starts_with("sagemaker-tfs-");
        let config = fs::read_to_string(path.join("models.config"));
        if is_made && !config.is_ok_and(|text| !text.contains("config {")) {
            found.push(path.clone());
        }
        collect_folders(&path, found);
    }
}
