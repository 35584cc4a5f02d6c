//! Settings for reaching S3: address, region, credentials. AWS's own tools read the same variables. Finding credentials
//! with these settings is left to `s3`.

use super::format::text;
use super::reader::Reader;
use super::{Group, TypedSetting, setting};

settings! {
    "AWS (used to download the handler for all models)":

    /// Region of the bucket.
    REGION: String = setting("AWS_REGION", text("the name of a region")).unset_means("AWS_DEFAULT_REGION");

    /// Region of the bucket when AWS_REGION is not set.
    DEFAULT_REGION: String = setting("AWS_DEFAULT_REGION", text("the name of a region")).default("us-east-1");

    /// Address of a store that is compatible with S3.
    ENDPOINT_S3: String = setting("AWS_ENDPOINT_URL_S3", text("an address such as http://localhost:9000"))
        .unset_means("AWS_ENDPOINT_URL, otherwise AWS");

    /// Address of the store when AWS_ENDPOINT_URL_S3 is not set.
    ENDPOINT: String = setting("AWS_ENDPOINT_URL", text("an address such as http://localhost:9000"));

    /// Access key. Without both keys, credentials come from the container credentials endpoint if one is set, otherwise
    /// from the instance metadata service (version 2).
    ACCESS_KEY: String = setting("AWS_ACCESS_KEY_ID", text("an access key, with AWS_SECRET_ACCESS_KEY set"));

    /// Secret key for AWS_ACCESS_KEY_ID.
    SECRET_KEY: String = setting("AWS_SECRET_ACCESS_KEY", text("a secret key"));

    /// Session token for temporary keys.
    SESSION_TOKEN: String = setting("AWS_SESSION_TOKEN", text("a session token"));

    /// Path on the container credentials endpoint.
    CONTAINER_PATH: String = setting("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", text("a path"));

    /// Address of the container credentials endpoint, when no path is set.
    CONTAINER_URL: String = setting("AWS_CONTAINER_CREDENTIALS_FULL_URI", text("an address"));

    /// Value of the header `Authorization` for the container credentials endpoint.
    CONTAINER_TOKEN: String = setting("AWS_CONTAINER_AUTHORIZATION_TOKEN", text("a token"));

    /// File that contains that value; overrides AWS_CONTAINER_AUTHORIZATION_TOKEN.
    CONTAINER_TOKEN_FILE: String = setting("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", text("a file"));

    /// Address of the instance metadata service.
    METADATA: String = setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", text("an address")).default("http://169.254.169.254");
}

/// How to reach S3, as AWS's own tools read it from the same variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// Region of the bucket.
    pub region: String,
    /// Address of a store that is compatible with S3; `None`: AWS.
    pub endpoint: Option<String>,
    /// Access key, secret key, and the session token of temporary keys.
    pub keys: Option<(String, String, Option<String>)>,
    /// Path on the container credentials endpoint.
    pub container_path: Option<String>,
    /// Address of the container credentials endpoint; used without `container_path`.
    pub container_url: Option<String>,
    /// Value of the header `Authorization` for the container credentials endpoint.
    pub container_token: Option<String>,
    /// File that contains that value; takes precedence over `container_token`.
    pub container_token_file: Option<String>,
    /// Address of the instance metadata service.
    pub metadata_endpoint: String,
}

impl AwsConfig {
    /// Reads the settings. Keys count only as a pair.
    pub(in crate::config) fn read(r: &mut Reader) -> Self {
        let default_region = r.value(&DEFAULT_REGION);
        let endpoint = r.optional(&ENDPOINT);
        let (key, secret) = (r.optional(&ACCESS_KEY), r.optional(&SECRET_KEY));
        let session_token = r.optional(&SESSION_TOKEN);
        Self {
            region: r.optional(&REGION).unwrap_or(default_region),
            endpoint: r.optional(&ENDPOINT_S3).or(endpoint),
            keys: key
                .zip(secret)
                .map(|(key, secret)| (key, secret, session_token)),
            container_path: r.optional(&CONTAINER_PATH),
            container_url: r.optional(&CONTAINER_URL),
            container_token: r.optional(&CONTAINER_TOKEN),
            container_token_file: r.optional(&CONTAINER_TOKEN_FILE),
            metadata_endpoint: r.value(&METADATA),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{assert_refuses, read};

    fn aws(pairs: &[(&str, &str)]) -> AwsConfig {
        let on = ("SAGEMAKER_MULTI_MODEL", "true");
        let config = read(&[&[on], pairs].concat()).unwrap();
        config.multi_model.unwrap().aws
    }

    #[test]
    fn reads_defaults() {
        let expected = AwsConfig {
            region: "us-east-1".into(),
            metadata_endpoint: "http://169.254.169.254".into(),
            ..AwsConfig::default()
        };
        assert_eq!(aws(&[]), expected);
    }

    #[test]
    fn refuses_wrong_values() {
        for setting in GROUP.settings {
            assert_refuses(setting, &[" "]);
        }
    }

    #[test]
    fn narrower_variable_overrides_the_wider_one() {
        let wide = [
            ("AWS_DEFAULT_REGION", "a"),
            ("AWS_ENDPOINT_URL", "http://a"),
        ];
        let narrow = [("AWS_REGION", "b"), ("AWS_ENDPOINT_URL_S3", "http://b")];
        for (pairs, region, endpoint) in [
            (wide.to_vec(), "a", "http://a"),
            (narrow.to_vec(), "b", "http://b"),
            ([wide, narrow].concat(), "b", "http://b"),
        ] {
            let aws = aws(&pairs);
            assert_eq!(aws.region, region);
            assert_eq!(aws.endpoint.as_deref(), Some(endpoint));
        }
    }

    #[test]
    fn ignores_keys_that_are_no_pair() {
        let key = ("AWS_ACCESS_KEY_ID", "k");
        let secret = ("AWS_SECRET_ACCESS_KEY", "s");
        let token = ("AWS_SESSION_TOKEN", "t");
        assert_eq!(aws(&[key, token]).keys, None);
        assert_eq!(aws(&[secret]).keys, None);
        assert_eq!(
            aws(&[key, secret]).keys,
            Some(("k".into(), "s".into(), None))
        );
        assert_eq!(
            aws(&[key, secret, token]).keys,
            Some(("k".into(), "s".into(), Some("t".into())))
        );
    }
}
