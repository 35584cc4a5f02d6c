//! How to reach S3, and with whose credentials. Only names and addresses: finding credentials is the work of `s3`.

/// How to reach S3: what AWS's own tools read from the same variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsConfig {
    /// Region of the bucket.
    pub region: Option<String>,
    /// Where a store like S3 is; `None`: AWS.
    pub endpoint: Option<String>,
    /// Access key, secret key, session token.
    pub keys: Option<(String, String, Option<String>)>,
    /// Path on the container credentials endpoint.
    pub container_path: Option<String>,
    /// Address of the container credentials endpoint, in place of the path.
    pub container_url: Option<String>,
    /// What that endpoint is sent as authorization.
    pub container_token: Option<String>,
    /// A file that has it.
    pub container_token_file: Option<String>,
    /// Address of the instance metadata service.
    pub metadata_endpoint: Option<String>,
}
