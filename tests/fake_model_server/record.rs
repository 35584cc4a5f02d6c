//! The record that this process writes for the test that started it, in the directory `FAKE_TFS_RECORD`:
//! `start-<k>.json` for the k-th start (from 0, over all instances), `requests-<pid>.jsonl`, and an empty file
//! `seen-<key>-<n>` each time a command with a key is seen, so the count survives the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, process};

use serde_json::{Map, Value, json};

use crate::http::Request;
use crate::service::SCANNED_BODY_BYTES;
use crate::settings::Settings;

pub struct Record {
    dir: PathBuf,
    requests: OnceLock<Mutex<File>>,
}

impl Record {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            requests: OnceLock::new(),
        }
    }

    /// Writes the next free `start-<k>.json` and returns its number. The file appears complete or not at all.
    pub fn start(&self, settings: &Settings) -> io::Result<u64> {
        fs::create_dir_all(&self.dir)?;
        let draft = self.dir.join(format!(".start-{}", process::id()));
        for number in 0.. {
            let start = json!({
                "start": number,
                "pid": process::id(),
                "argv": env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
                "env": environment(),
                "model_config": settings.model_config,
                "batching_config": settings.batching_config,
            });
            fs::write(&draft, start.to_string())?;
            let linked = fs::hard_link(&draft, self.dir.join(format!("start-{number}.json")));
            match linked {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                other => return fs::remove_file(&draft).and(other).map(|()| number),
            }
        }
        unreachable!("a number is free")
    }

    /// Appends a request to `requests-<pid>.jsonl`, with the number of its connection.
    pub fn request(&self, connection: u64, request: &Request) -> io::Result<()> {
        let headers: Vec<_> = request
            .headers()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let body = request
            .whole_body()
            .filter(|body| body.len() <= SCANNED_BODY_BYTES);
        let line = json!({
            "connection": connection,
            "method": request.method,
            "path": request.target,
            "headers": headers,
            "body": body.map(String::from_utf8_lossy),
            "body_length": request.body_length,
        });
        let file = match self.requests.get() {
            Some(file) => file,
            None => {
                let path = self.dir.join(format!("requests-{}.jsonl", process::id()));
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                self.requests.get_or_init(|| Mutex::new(file))
            }
        };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{line}\n").as_bytes())
    }

    /// What happens to requests for signatures: the text of a file.
    pub fn metadata_order(&self) -> Option<String> {
        std::fs::read_to_string(self.dir.join("metadata_order")).ok()
    }

    /// How often this key was seen before, by any process with this record directory.
    pub fn seen_before(&self, key: &str) -> io::Result<u64> {
        if !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "a key may contain only letters, digits, - and _",
            ));
        }
        for count in 0.. {
            match File::create_new(self.dir.join(format!("seen-{key}-{count}"))) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                created => return created.map(|_| count),
            }
        }
        unreachable!("a number is free")
    }
}

/// The variables that the server under test sets, and those of this program.
fn environment() -> Map<String, Value> {
    let wanted = |name: &str| {
        ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"].contains(&name)
            || ["TF_", "FAKE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into(),
            )
        })
        .filter(|(name, _)| wanted(name))
        .collect()
}
