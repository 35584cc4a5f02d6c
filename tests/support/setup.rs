//! How a server is started: variables, options, model directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::ports::Ports;
use crate::support::server::{Ended, Server};

/// Describes a server and then starts it. By default, it serves one model, `half_plus_three`, with one instance.
#[derive(Debug)]
pub struct Setup {
    temp: TempDir,
    ports: Ports,
    models: Vec<String>,
    vars: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    command: Option<Vec<String>>,
    program: PathBuf,
    wrapper: Vec<String>,
    instances: u16,
}

impl Setup {
    pub fn new() -> Self {
        Self::on(Ports::take(16))
    }

    /// A server with more model servers than the usual ports allow.
    pub fn many_instances(count: u16) -> Self {
        Self::on(Ports::take(1 + 2 * count)).instances(count)
    }

    /// A server in multi-model mode, with ports for `models` models.
    pub fn multi_model(models: u16) -> Self {
        let ports = Ports::take(2 + 2 * models);
        let first = ports.first + 1;
        // The server never uses the last pair of a range: 9000-9999 is enough for 499 models.
        let range = format!("{first}-{}", first + 2 * models + 1);
        Self::on(ports)
            .models(&[])
            .var("SAGEMAKER_MULTI_MODEL", "true")
            .var("SAGEMAKER_SAFE_PORT_RANGE", range)
    }

    fn on(ports: Ports) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("sagemaker-tfs-test-")
            .tempdir()
            .expect("a temporary directory");
        for folder in ["model", "record", "tmp", "bin"] {
            fs::create_dir(temp.path().join(folder)).expect("a temporary directory can be used");
        }
        let path = |name: &str| temp.path().join(name).display().to_string();
        let flags = [
            ("listen", "127.0.0.1".to_owned()),
            ("port", ports.first.to_string()),
            ("model-dir", path("model")),
            ("model-server", fake_model_server().display().to_string()),
        ];
        let inherited = std::env::var("PATH").unwrap_or_default();
        let vars = [
            ("PATH", format!("{}:{inherited}", path("bin"))),
            ("TMPDIR", path("tmp")),
            ("FAKE_TFS_RECORD", path("record")),
            ("FAKE_TFS_RECORD_REQUESTS", "1".to_owned()),
        ];
        let owned = |(name, value): (&str, String)| (name.to_owned(), value);
        let mut vars: BTreeMap<_, _> = vars.map(owned).into();
        if let Some(workers) = tested_workers() {
            vars.insert("SAGEMAKER_TFS_WORKERS".to_owned(), workers);
        }
        Self {
            models: vec!["half_plus_three/00000123".to_owned()],
            vars,
            flags: flags.map(owned).into(),
            command: None,
            program: built("sagemaker-tfs"),
            wrapper: Vec::new(),
            instances: 1,
            temp,
            ports,
        }
        .instances(1)
    }

    /// Sets a variable.
    pub fn var(mut self, name: &str, value: impl ToString) -> Self {
        self.vars.insert(name.to_owned(), value.to_string());
        self
    }

    /// Unsets a variable that is set by default.
    pub fn without_var(mut self, name: &str) -> Self {
        self.vars.remove(name);
        self
    }

    /// Sets an option of `serve`.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.insert(name.to_owned(), value.to_string());
        self
    }

    /// Leaves out an option that is given by default.
    pub fn without_flag(mut self, name: &str) -> Self {
        self.flags.remove(name);
        self
    }

    /// Replaces the whole command line.
    pub fn command(mut self, args: &[&str]) -> Self {
        self.command = Some(args.iter().map(|&arg| arg.to_owned()).collect());
        self
    }

    /// Starts this copy of the executable.
    pub fn program(mut self, path: PathBuf) -> Self {
        self.program = path;
        self
    }

    /// Starts the server through another program.
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets the folders below the model directory that contain a `saved_model.pb`.
    pub fn models(mut self, folders: &[&str]) -> Self {
        self.models = folders.iter().map(|&folder| folder.to_owned()).collect();
        self
    }

    /// Sets the number of TensorFlow Serving processes.
    pub fn instances(mut self, count: u16) -> Self {
        self.instances = count;
        let first = self.ports.first + 1;
        self.var("SAGEMAKER_TFS_INSTANCE_COUNT", count).var(
            "SAGEMAKER_SAFE_PORT_RANGE",
            format!("{first}-{}", first + 2 * count - 1),
        )
    }

    /// Sets the deadline of a whole request.
    pub fn deadline(self, seconds: u32) -> Self {
        self.var("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", seconds)
            .var("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", 1)
    }

    /// A path in this server's own directory. Its folder `bin` is on PATH, and `model` is the model directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Writes a file in this server's directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
        self
    }

    /// Writes a shell script in this server's directory.
    pub fn script(self, name: &str, text: &str) -> Self {
        let setup = self.file(name, &format!("#!/bin/sh\n{text}\n"));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(setup.path(name), mode).expect("scripts can be made executable");
        setup
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.ports.first
    }

    /// Starts the server and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Server {
        let server = self.launch();
        server.wait_until_healthy();
        server
    }

    /// Starts the server without waiting.
    #[track_caller]
    pub fn launch(self) -> Server {
        for folder in &self.models {
            let folder = self.path("model").join(folder);
            fs::create_dir_all(&folder).expect("folders can be made");
            fs::write(folder.join("saved_model.pb"), "").expect("files can be written");
        }
        let mut words = self.wrapper.clone();
        words.push(self.program.display().to_string());
        match &self.command {
            Some(args) => words.extend_from_slice(args),
            None => {
                words.push("serve".to_owned());
                for (name, value) in &self.flags {
                    words.extend([format!("--{name}"), value.clone()]);
                }
            }
        }
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(&self.vars)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", words[0]));
        Server::new(child, self.temp, self.ports, self.instances)
    }

    /// Runs one worker, so that all requests and status requests share the kept connections to the model server.
    pub fn one_worker(self) -> Self {
        match tested_workers() {
            Some(_) => self,
            None => self.var("SAGEMAKER_TFS_WORKERS", 1),
        }
    }

    /// Runs the program until it ends.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.launch().wait_for_end()
    }
}

/// The value of `SAGEMAKER_TFS_WORKERS` for servers in this run of the tests; `None`: not set.
pub fn tested_workers() -> Option<String> {
    let workers = std::env::var("SAGEMAKER_TFS_TEST_WORKERS").ok();
    workers.filter(|workers| !workers.is_empty())
}

/// The number of slots of a server, unless a job asks for more.
pub fn slots() -> usize {
    match tested_workers().as_deref() {
        Some("threads") => 64,
        _ => 512,
    }
}

/// The most requests in flight at an instance, unless a job asks for more.
pub fn in_flight() -> usize {
    slots().min(256)
}

/// The number of channels of each Python worker with the class `gevent`.
#[cfg(feature = "python")]
pub fn gevent_channels(workers: usize) -> usize {
    (2 * slots()).div_ceil(workers).clamp(64, 512).min(slots())
}

/// The REST port of instance `index` of the server on port `server`.
pub fn rest_port(server: u16, index: u16) -> u16 {
    server + 1 + 2 * index + 1
}

/// The path of the fake model server.
pub fn fake_model_server() -> PathBuf {
    built("examples/fake_model_server")
}

/// An executable that cargo built together with this program. Cargo tells the paths of executables only to tests, and
/// this module is also part of an example.
fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program's path");
    let profile = this.ancestors().nth(2).unwrap_or(Path::new(""));
    let program = profile.join(name);
    assert!(
        program.is_file(),
        "{} is missing; `cargo build --bins --examples` builds it",
        program.display()
    );
    program
}

/// Whether `name` is on PATH.
pub fn is_on_path(name: impl AsRef<OsStr>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name.as_ref()).is_file())
}
