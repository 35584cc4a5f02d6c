//! Who we are for AWS: from the environment, the container credentials endpoint, or the instance metadata service.

use std::fs;

use rusty_s3::Credentials;
use serde_json::Value;
use ureq::Agent;

use crate::config::AwsConfig;

/// Where the container credentials endpoint is when only its path is given.
const CONTAINER_HOST: &str = "http://169.254.170.2";
const METADATA_TOKEN_SECONDS: &str = "300";

/// Finds credentials, in the order of AWS's own tools.
///
/// # Errors
/// Where they were looked for, and what was found there instead.
pub fn find(config: &AwsConfig, agent: &Agent) -> Result<Credentials, String> {
    if let Some((key, secret, token)) = &config.keys {
        return Ok(match token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        });
    }
    let path = config.container_path.as_ref();
    let url = config.container_url.clone();
    if let Some(url) = path.map(|path| format!("{CONTAINER_HOST}{path}")).or(url) {
        return from_container(&url, config, agent)
            .map_err(|e| format!("the container credentials endpoint {url}: {e}"));
    }
    let host = config.metadata_endpoint.trim_end_matches('/');
    from_metadata(host, agent).map_err(|e| {
        format!(
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, nor is there a container credentials endpoint; \
             the instance metadata service {host}: {e}"
        )
    })
}

fn from_container(url: &str, config: &AwsConfig, agent: &Agent) -> Result<Credentials, String> {
    let mut request = agent.get(url);
    // The file comes first, for its token is renewed.
    let token = match &config.container_token_file {
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            Some(text.trim().to_owned())
        }
        None => config.container_token.clone(),
    };
    if let Some(token) = token {
        request = request.header("Authorization", token);
    }
    parse(&text(request.call())?)
}

/// Version 2 of the service: a token first.
fn from_metadata(host: &str, agent: &Agent) -> Result<Credentials, String> {
    let token = agent
        .put(format!("{host}/latest/api/token"))
        .header(
            "X-aws-ec2-metadata-token-ttl-seconds",
            METADATA_TOKEN_SECONDS,
        )
        .send_empty();
    let token = text(token)?;
    let get = |path: &str| {
        let url = format!("{host}/latest/meta-data/iam/security-credentials/{path}");
        text(
            agent
                .get(url)
                .header("X-aws-ec2-metadata-token", &token)
                .call(),
        )
    };
    let roles = get("")?;
    let role = roles.lines().next().ok_or("it names no role")?;
    parse(&get(role)?)
}

/// The answer's text, if it is one.
fn text(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
    let mut answer = answer.map_err(|e| e.to_string())?;
    let status = answer.status();
    let text = answer
        .body_mut()
        .read_to_string()
        .map_err(|e| e.to_string())?;
    match status.is_success() {
        true => Ok(text),
        false => Err(format!("status {status}")),
    }
}

fn parse(text: &str) -> Result<Credentials, String> {
    let fields: Value = serde_json::from_str(text).map_err(|_| "its answer is not JSON")?;
    let field = |name: &str| fields[name].as_str().map(str::to_owned);
    match (
        field("AccessKeyId"),
        field("SecretAccessKey"),
        field("Token"),
    ) {
        (Some(key), Some(secret), Some(token)) => {
            Ok(Credentials::new_with_token(key, secret, token))
        }
        (Some(key), Some(secret), None) => Ok(Credentials::new(key, secret)),
        _ => Err("its answer has no AccessKeyId and SecretAccessKey".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_services() {
        let text =
            r#"{"Code": "Success", "AccessKeyId": "k", "SecretAccessKey": "s", "Token": "t"}"#;
        let credentials = parse(text).unwrap();
        assert_eq!(
            (credentials.key(), credentials.secret(), credentials.token()),
            ("k", "s", Some("t"))
        );
        assert!(parse(r#"{"AccessKeyId": "k", "SecretAccessKey": "s"}"#).is_ok());
        for text in ["", "{}", "[]", r#"{"AccessKeyId": "k"}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_of_the_environment_come_first() {
        let config = AwsConfig {
            keys: Some(("k".into(), "s".into(), None)),
            container_path: Some("/x".into()),
            ..AwsConfig::default()
        };
        let credentials = find(&config, &crate::s3::direct_agent()).unwrap();
        assert_eq!((credentials.key(), credentials.token()), ("k", None));
    }
}
