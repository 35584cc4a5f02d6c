//! Batch transform: the parameters that `/execution-parameters` gives to the platform.

use serde_json::{Value, json};

use crate::support::Setup;

#[test]
fn execution_parameters_come_from_the_job_and_omit_the_strategy() {
    let concurrent = "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS";
    let payload = "SAGEMAKER_MAX_PAYLOAD_IN_MB";
    for (vars, expected) in [
        (
            vec![],
            json!({"MaxConcurrentTransforms": 8, "MaxPayloadInMB": 6}),
        ),
        (
            vec![
                (concurrent, "100"),
                (payload, "25"),
                ("SAGEMAKER_BATCH", "true"),
            ],
            json!({"MaxConcurrentTransforms": 100, "MaxPayloadInMB": 25}),
        ),
        (
            vec![
                (concurrent, "1"),
                ("SAGEMAKER_BATCH", "True"),
                ("SAGEMAKER_BATCH_STRATEGY", "MULTI_RECORD"),
            ],
            json!({"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6}),
        ),
        (
            vec![(payload, "50")],
            json!({"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 50}),
        ),
        (
            vec![(concurrent, "100")],
            json!({"MaxConcurrentTransforms": 100, "MaxPayloadInMB": 1}),
        ),
        (
            vec![(payload, "0"), ("SAGEMAKER_BATCH_STRATEGY", "SingleRecord")],
            json!({"MaxConcurrentTransforms": 8, "MaxPayloadInMB": 0}),
        ),
    ] {
        let set = |setup: Setup, (name, value): &(&str, &str)| setup.var(name, value);
        let server = vars.iter().fold(Setup::new(), set).start();
        let response = server.get("/execution-parameters");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        let got: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(got, expected, "{vars:?}");
        let is_much = vars.contains(&(payload, "25"));
        let warning = "are more than the 100 MB that SageMaker allows";
        assert_eq!(
            server.log().contains(warning),
            is_much,
            "{vars:?}: {}",
            server.log()
        );
    }
}
