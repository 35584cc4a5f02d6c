//! CSV for models whose signature is known: rows, strings and numbers are those of the `csv` crate and the standard
//! library, and the output is JSON of the input's shape.
//!
//! Input: one byte for the inputs' type and one for their number and shape; CSV.

use std::sync::Arc;

use sagemaker_tfs::convert::request::{Header, Target, csv};
use sagemaker_tfs::convert::signature::{Dtype, Kind, Signature, Tensor};
use serde_json::Value;

use super::csv::records;

const DTYPES: [Dtype; 5] = [
    Dtype::Float,
    Dtype::Double,
    Dtype::Int64,
    Dtype::Bool,
    Dtype::String,
];

pub fn check(data: &[u8]) {
    let [dtype, form, body @ ..] = data else {
        return;
    };
    let dtype = DTYPES[usize::from(*dtype) % DTYPES.len()];
    let (columns, names) = (1 + usize::from(form % 4), ["a", "b"]);
    let names = &names[..1 + usize::from(form / 4 % 2)];
    let csv_header = [Header::Absent, Header::Present, Header::Auto][usize::from(form / 8) % 3];
    let inputs = names.iter().map(|name| Tensor {
        name: (*name).to_owned(),
        dtype,
        shape: Some(vec![None, Some(columns)]),
        is_strict: true,
    });
    let signature = Signature {
        name: "serving_default".to_owned(),
        inputs: inputs.collect(),
        outputs: Vec::new(),
    };
    let target = Target {
        signature: Some(Arc::new(signature)),
        csv_header,
        ..Target::default()
    };
    let output = match csv::to_tfs(&body.to_vec().into(), None, &target) {
        Ok(output) => String::from_utf8(output.to_vec()).expect("the output is UTF-8"),
        Err(error) => {
            assert_eq!(error.status, 400);
            assert!(error.text.len() < 1000, "{error}");
            return;
        }
    };
    // Words that only TensorFlow Serving reads. Strings are compared below, so nothing is lost there.
    let json = match dtype.kind() {
        Kind::Float => output
            .replace("-Infinity", "0")
            .replace("Infinity", "0")
            .replace("NaN", "0"),
        _ => output.clone(),
    };
    let Ok(json) = serde_json::from_str::<Value>(&json) else {
        // The parser refuses numbers that are too large for a double.
        assert!(
            dtype.kind() == Kind::Float && json.contains(['e', 'E']) || json.len() > 300,
            "{output}"
        );
        return;
    };
    let rows = json["instances"].as_array().expect("a list");
    let mut records = records(body);
    assert!(records.len() - rows.len() <= 1, "rows of {output}");
    let has_header = records.len() > rows.len();
    assert!(!has_header || csv_header != Header::Absent);
    records.drain(..usize::from(has_header));
    for (row, record) in rows.iter().zip(&records) {
        let elements: Vec<&Value> = match names {
            [_] => row.as_array().expect("a list").iter().collect(),
            _ => names
                .iter()
                .flat_map(|name| row[name].as_array().expect("a list"))
                .collect(),
        };
        assert_eq!(elements.len(), columns * names.len(), "{row}");
        assert_eq!(elements.len(), record.len(), "{row}");
        for (element, field) in elements.iter().zip(record) {
            match dtype.kind() {
                Kind::Bool => assert!(element.is_boolean(), "{element}"),
                Kind::String if names.len() == 1 => assert_eq!(*element, field),
                Kind::String => assert!(element.is_string(), "{element}"),
                // The parser reads -0 as a float.
                Kind::Integer => {
                    let text = element.to_string();
                    assert!(
                        text == "-0.0" || !text.contains('.') || field.len() > 18,
                        "{text}"
                    );
                }
                _ => assert!(element.is_number(), "{element}"),
            }
        }
    }
}
