//! Downloads all objects below a prefix: lists them page by page, maps each key to a path, and saves the objects.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::Agent;
use ureq::http::Response;

use crate::config::AwsConfig;
use crate::s3::{agent, credentials, direct_agent};
use crate::wait;

/// How long a signature is valid. Requests are sent as soon as they are signed.
const SIGNATURE_LIFE: Duration = Duration::from_secs(300);
/// Stores may be busy for a moment, so a request is sent up to this many times, with pauses that double.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Characters of an error response that messages show.
pub const MAX_SHOWN: usize = 500;

/// Downloads all objects whose keys begin with `prefix` into `folder`. The part of a key after the prefix is the path
/// in the folder. Returns the number of objects.
///
/// # Errors
/// The bucket, the key, and the status of the response or why none came.
pub fn download(
    config: &AwsConfig,
    name: &str,
    prefix: &str,
    folder: &Path,
) -> Result<usize, String> {
    let agent = agent();
    let bucket = bucket(config, name).map_err(|e| format!("s3://{name}/{prefix}: {e}"))?;
    let failed = |e: String| format!("no credentials for s3://{name}/{prefix}: {e}");
    let credentials = credentials::find(config, &direct_agent()).map_err(failed)?;
    let keys = list(&agent, &bucket, &credentials, prefix)
        .map_err(|e| format!("s3://{name}/{prefix} cannot be listed: {e}"))?;
    let mut count = 0;
    for key in &keys {
        let failed = |e: String| format!("s3://{name}/{key} cannot be downloaded: {e}");
        let Some(path) = relative_path(prefix, key).map_err(failed)? else {
            continue; // a folder, or an object of another folder
        };
        let url = bucket
            .get_object(Some(&credentials), key)
            .sign(SIGNATURE_LIFE);
        save(&agent, url.as_str(), &folder.join(path)).map_err(failed)?;
        count += 1;
    }
    Ok(count)
}

fn bucket(config: &AwsConfig, name: &str) -> Result<Bucket, String> {
    let region = config.region.clone();
    // A bucket's name in the path works everywhere. In the host it needs DNS, and AWS's certificates do not cover names
    // with dots.
    let (endpoint, style) = match &config.endpoint {
        Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
        None => {
            let domain = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            let style = if name.contains('.') {
                UrlStyle::Path
            } else {
                UrlStyle::VirtualHost
            };
            (format!("https://s3.{region}.{domain}"), style)
        }
    };
    let url = endpoint
        .parse()
        .map_err(|e| format!("{endpoint} is not a valid address: {e}"))?;
    Bucket::new(url, style, name.to_owned(), region).map_err(|e| format!("bucket {name}: {e}"))
}

/// Returns all keys that begin with the prefix, page by page.
fn list(
    agent: &Agent,
    bucket: &Bucket,
    credentials: &Credentials,
    prefix: &str,
) -> Result<Vec<String>, String> {
    let mut keys = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut action = bucket.list_objects_v2(Some(credentials));
        action.with_prefix(prefix);
        // Asks for keys without URL encoding: once encoded, a space looks like a plus.
        action.query_mut().remove("encoding-type");
        if let Some(token) = &token {
            action.with_continuation_token(token);
        }
        let mut response = get(agent, action.sign(SIGNATURE_LIFE).as_str())?;
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|e| e.to_string())?;
        let page;
        (page, token) = read_page(&text)?;
        keys.extend(page);
        if token.is_none() {
            return Ok(keys);
        }
    }
}

/// Parses a page of a list: its keys, and the token that requests the next page, if there is one.
///
/// # Errors
/// Why the page cannot be parsed.
pub fn read_page(text: &str) -> Result<(Vec<String>, Option<String>), String> {
    let page = ListObjectsV2::parse_response(text)
        .map_err(|e| format!("its response cannot be read: {e}"))?;
    let keys = page.contents.into_iter().map(|object| object.key);
    Ok((keys.collect(), page.next_continuation_token))
}

fn save(agent: &Agent, url: &str, path: &Path) -> Result<(), String> {
    let mut response = get(agent, url)?;
    let mut write = || -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = File::create(path)?;
        io::copy(&mut response.body_mut().as_reader(), &mut file)?;
        Ok(())
    };
    write().map_err(|e| format!("{}: {e}", path.display()))
}

fn get(agent: &Agent, url: &str) -> Result<Response<ureq::Body>, String> {
    // Messages must not show the query, which contains the signature.
    let address = url.split('?').next().unwrap_or_default();
    let mut pause = FIRST_PAUSE;
    let mut called = agent.get(url).call();
    for _ in 1..ATTEMPTS {
        let may_pass = match &called {
            Ok(response) => response.status() == 429 || response.status().is_server_error(),
            Err(_) => true,
        };
        if !may_pass {
            break;
        }
        let _ = wait::until(Instant::now() + pause);
        pause *= 2;
        called = agent.get(url).call();
    }
    let mut response = called.map_err(|e| format!("{address}: {e}"))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.body_mut().read_to_string().unwrap_or_default();
    Err(format!("status {status}: {}", explanation(&text)))
}

/// Puts the body of an error response on one line: its code and message, or the first [`MAX_SHOWN`] characters of a
/// body without them.
pub fn explanation(text: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (content, _) = rest.split_once(&format!("</{name}>"))?;
        Some(content)
    };
    let explanation = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text.to_owned(),
    };
    let words: Vec<_> = explanation.split_whitespace().collect();
    words.join(" ").chars().take(MAX_SHOWN).collect()
}

/// The path of an object in the target folder: its key without the prefix. `None` for the prefix itself, for a key that
/// ends in `/` (a folder), and for a key in another folder whose name begins with the prefix.
///
/// # Errors
/// For a key that leads out of the folder.
pub fn relative_path(prefix: &str, key: &str) -> Result<Option<PathBuf>, String> {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    let is_inside = prefix.is_empty() || prefix.ends_with('/') || rest.starts_with('/');
    let rest = rest.trim_start_matches('/');
    if !is_inside || rest.is_empty() || rest.ends_with('/') {
        return Ok(None);
    }
    let path = PathBuf::from(rest);
    if path
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        Ok(Some(path))
    } else {
        Err("its key leads out of the folder".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths_below_the_prefix() {
        let path =
            |prefix, key| relative_path(prefix, key).map(|p| p.map(|p| p.display().to_string()));
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(path("a/code", "a/code/inference.py"), some("inference.py"));
        assert_eq!(path("a/code/", "a/code/lib/x.py"), some("lib/x.py"));
        assert_eq!(path("", "inference.py"), some("inference.py"));
        assert_eq!(path("a", "a/"), Ok(None));
        assert_eq!(path("a", "a/b/"), Ok(None));
        assert_eq!(path("a/code", "a/code-old/inference.py"), Ok(None));
        assert_eq!(path("a/code", "a/codeinference.py"), Ok(None));
        assert!(path("a", "a/../../etc/passwd").is_err());
        assert!(path("a/", "a//etc/passwd").is_ok());
    }

    #[test]
    fn explanation_fits_on_one_line() {
        let xml = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code>\n<Message>It is not\nthere.</Message></Error>";
        assert_eq!(explanation(xml), "NoSuchBucket: It is not there.");
        assert_eq!(explanation("<html>\n  Bad Gateway\n"), "<html> Bad Gateway");
        assert_eq!(explanation(""), "");
        assert_eq!(explanation(&"ä".repeat(1000)).chars().count(), MAX_SHOWN);
    }

    #[test]
    fn builds_addresses_of_aws_and_of_other_stores() {
        let config = |region: &str, endpoint: Option<&str>| AwsConfig {
            region: region.into(),
            endpoint: endpoint.map(str::to_owned),
            ..AwsConfig::default()
        };
        for (config, name, expected) in [
            (
                config("eu-west-1", None),
                "b",
                "https://b.s3.eu-west-1.amazonaws.com/k",
            ),
            (
                config("cn-north-1", None),
                "b",
                "https://b.s3.cn-north-1.amazonaws.com.cn/k",
            ),
            (
                config("us-east-1", None),
                "b.c",
                "https://s3.us-east-1.amazonaws.com/b.c/k",
            ),
            (
                config("x", Some("http://localhost:9")),
                "b",
                "http://localhost:9/b/k",
            ),
        ] {
            let url = bucket(&config, name).unwrap().object_url("k").unwrap();
            assert_eq!(url.as_str(), expected);
        }
        assert!(bucket(&config("x", Some("nowhere")), "b").is_err());
    }
}
