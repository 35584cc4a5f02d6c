//! Finds AWS credentials: in the environment, at the container credentials endpoint, or at the instance metadata
//! service.

use std::fs;

use rusty_s3::Credentials;
use serde_json::Value;
use ureq::Agent;

use crate::config::AwsConfig;

/// Address of the container credentials endpoint when the environment gives only a path.
const CONTAINER_HOST: &str = "http://169.254.170.2";
/// How long the token of the instance metadata service is valid.
const METADATA_TOKEN_SECONDS: &str = "300";

/// Finds credentials, in the order of AWS's own tools.
///
/// # Errors
/// The place where credentials were looked for last, and why it has none.
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
            .map_err(|e| format!("the container credentials endpoint {url} gave none: {e}"));
    }
    let host = config.metadata_endpoint.trim_end_matches('/');
    from_metadata(host, agent).map_err(|e| {
        format!(
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, no container credentials endpoint is set, and \
             the instance metadata service {host} gave none: {e}"
        )
    })
}

fn from_container(url: &str, config: &AwsConfig, agent: &Agent) -> Result<Credentials, String> {
    let mut request = agent.get(url);
    // The file takes precedence over the variable, because its token is renewed.
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

/// Asks version 2 of the instance metadata service, which wants a session token in each request.
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
    let role = roles.lines().next().ok_or("the instance has no role")?;
    parse(&get(role)?)
}

/// The response's body; an error for a status other than 2xx.
fn text(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, String> {
    let mut response = response.map_err(|e| e.to_string())?;
    let status = response.status();
    let text = response
        .body_mut()
        .read_to_string()
        .map_err(|e| e.to_string())?;
    match status.is_success() {
        true => Ok(text),
        false => Err(format!("status {status}")),
    }
}

fn parse(text: &str) -> Result<Credentials, String> {
    let fields: Value = serde_json::from_str(text).map_err(|_| "its response is not JSON")?;
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
        _ => Err("its response has no AccessKeyId and SecretAccessKey".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_responses_of_both_services() {
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
    fn keys_in_the_environment_come_first() {
        let config = AwsConfig {
            keys: Some(("k".into(), "s".into(), None)),
            container_path: Some("/x".into()),
            ..AwsConfig::default()
        };
        let credentials = find(&config, &crate::s3::direct_agent()).unwrap();
        assert_eq!((credentials.key(), credentials.token()), ("k", None));
    }
}
