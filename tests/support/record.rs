//! The records that the fake model server left in its record directory: its starts, and the requests it got.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// A start of the fake model server.
#[derive(Debug, Clone)]
pub struct Start {
    pub pid: u32,
    /// Without the program's name.
    pub args: Vec<String>,
    /// The recorded variables.
    pub env: BTreeMap<String, String>,
    /// The text of the model config file.
    pub model_config: String,
    /// The text of the batching parameters file.
    pub batching_config: Option<String>,
}

impl Start {
    /// The value of `--name=value`.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let prefix = format!("--{name}=");
        self.args.iter().find_map(|arg| arg.strip_prefix(&prefix))
    }

    /// Name, base path and versions of each model in the config file, in its order.
    pub fn models(&self) -> Vec<(String, String, Vec<u64>)> {
        let quoted = |section: &str, key: &str| {
            let value = section.split_once(key).expect("the key exists").1;
            value.split('\'').nth(1).expect("a quoted value").to_owned()
        };
        let sections = self.model_config.split("config {").skip(1);
        sections
            .map(|section| {
                assert!(
                    section.contains("model_platform: 'tensorflow'"),
                    "{section}"
                );
                let versions = section.split_once("specific {").expect("versions").1;
                let versions = versions.split('}').next().expect("versions");
                let versions = versions.split("versions:").skip(1);
                (
                    quoted(section, "name:"),
                    quoted(section, "base_path:"),
                    versions
                        .map(|text| text.trim().parse().expect("a version"))
                        .collect(),
                )
            })
            .collect()
    }
}

/// A request that the fake model server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The number of the connection that carried the request; each process counts its own.
    pub connection: u64,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// `None` for a large body.
    pub body: Option<String>,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// All starts so far, in order.
pub fn starts(directory: &Path) -> Vec<Start> {
    (0..)
        .map_while(|k| fs::read(directory.join(format!("start-{k}.json"))).ok())
        .map(|text| start(&serde_json::from_slice(&text).expect("a record is JSON")))
        .collect()
}

fn start(json: &Value) -> Start {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Start {
        pid: json["pid"].as_u64().expect("a process id") as u32,
        args: json["argv"]
            .as_array()
            .expect("arguments")
            .iter()
            .skip(1)
            .map(text)
            .collect(),
        env: json["env"]
            .as_object()
            .expect("variables")
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        model_config: text(&json["model_config"]),
        batching_config: json["batching_config"].as_str().map(str::to_owned),
    }
}

/// All requests so far except status requests, which the server sends by itself. In order for each process.
pub fn requests(directory: &Path) -> Vec<Recorded> {
    let mut requests = Vec::new();
    for start in starts(directory) {
        let path = directory.join(format!("requests-{}.jsonl", start.pid));
        let text = fs::read_to_string(path).unwrap_or_default();
        // A line without a line end is still being written.
        let lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        requests.extend(lines.map(|line| {
            let json: Value = serde_json::from_str(line).expect("a record is JSON");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Recorded {
                connection: json["connection"].as_u64().expect("a number"),
                method: text(&json["method"]),
                path: text(&json["path"]),
                headers: json["headers"]
                    .as_array()
                    .expect("headers")
                    .iter()
                    .map(|pair| (text(&pair[0]), text(&pair[1])))
                    .collect(),
                body: json["body"].as_str().map(str::to_owned),
            }
        }));
    }
    requests.retain(|r| !(r.method == "GET" && r.path.starts_with("/v1/models/")));
    requests
}
