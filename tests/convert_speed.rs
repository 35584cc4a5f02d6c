//! Prints the speed of the converters for `scripts/bench.sh`, in MB of input per second (numpy: of output), as the median
//! of several runs.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sagemaker_tfs::budget::{Budget, Buffer};
use sagemaker_tfs::convert::request::{Conversion, Format, Target};
use sagemaker_tfs::convert::response::{self, Accepted};
use sagemaker_tfs::convert::signature::{Dtype, Signature, Tensor};

const RUNS: usize = 15;
const MEGABYTES: usize = 10;

fn main() {
    let known = Some(signature());
    measure(
        "csv_mb_per_s",
        to_tfs(Format::Csv(None), None),
        &numeric_csv(),
    );
    measure(
        "csv_by_signature_mb_per_s",
        to_tfs(Format::Csv(None), known.clone()),
        &numeric_csv(),
    );
    measure(
        "jsonlines_mb_per_s",
        to_tfs(Format::Json, None),
        &json_lines(),
    );
    measure(
        "json_passed_mb_per_s",
        to_tfs(Format::Json, None),
        &json_request(),
    );
    measure_output(
        "npy_float32_mb_per_s",
        to_tfs(Format::Npy, None),
        &npy_array(),
    );
    let response = json_response();
    let csv = Accepted::Csv { header: false };
    let lines = Accepted::JsonLines { ndjson: false };
    measure("json_to_csv_mb_per_s", from_tfs(csv), &response);
    measure("json_to_jsonlines_mb_per_s", from_tfs(lines), &response);
    measure("json_to_npy_mb_per_s", from_tfs(Accepted::Npy), &response);
}

/// One input and one output of 100 floats, as TensorFlow 2 exports them.
fn signature() -> Arc<Signature> {
    let tensor = |name: &str| Tensor {
        name: name.into(),
        dtype: Dtype::Float,
        shape: Some(vec![None, Some(100)]),
        is_strict: true,
    };
    Arc::new(Signature {
        name: "serving_default".into(),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    })
}

fn to_tfs(format: Format, signature: Option<Arc<Signature>>) -> impl Fn(Buffer) -> Buffer {
    let target = Target {
        signature,
        ..Target::default()
    };
    move |mut body| {
        let converted = format.to_tfs(&mut body, &target);
        assert_eq!(converted, Ok(Conversion::Done));
        body
    }
}

fn from_tfs(accepted: Accepted) -> impl Fn(Buffer) -> Buffer {
    let signature = signature();
    move |body| {
        let converted = response::lay_out(200, body, accepted, Some(&signature));
        converted.expect("the body is valid").0
    }
}

fn measure(name: &str, convert: impl Fn(Buffer) -> Buffer, input: &[u8]) {
    measure_bytes(name, convert, input, |input, _| input);
}

fn measure_output(name: &str, convert: impl Fn(Buffer) -> Buffer, input: &[u8]) {
    measure_bytes(name, convert, input, |_, output| output);
}

/// `counted` chooses between the bytes of the input and of the output.
fn measure_bytes(
    name: &str,
    convert: impl Fn(Buffer) -> Buffer,
    input: &[u8],
    counted: fn(usize, usize) -> usize,
) {
    let budget = Budget::new(1 << 30);
    let mut speeds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let mut body = budget.arriving(0);
            body.extend(input).expect("there is room");
            let start = Instant::now();
            let converted = convert(black_box(body));
            let seconds = start.elapsed().as_secs_f64();
            let bytes = counted(input.len(), converted.len());
            black_box(converted);
            bytes as f64 / 1e6 / seconds
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    println!("{name}: {:.0}", speeds[RUNS / 2]);
}

/// Numbers of different lengths and signs, as programs write them; always the same sequence.
struct Numbers(u64);

impl Iterator for Numbers {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Some(((self.0 >> 40) as f64 - 8e6) / 1000.0)
    }
}

fn rows(row: impl Fn(&mut String, &[f64])) -> Vec<u8> {
    let mut numbers = Numbers(1);
    let mut text = String::new();
    while text.len() < MEGABYTES * 1_000_000 {
        let values: Vec<f64> = numbers.by_ref().take(100).collect();
        row(&mut text, &values);
    }
    text.into_bytes()
}

fn numeric_csv() -> Vec<u8> {
    rows(|text, values| {
        for (i, value) in values.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(text, "{comma}{value}").unwrap();
        }
        text.push('\n');
    })
}

fn json_lines() -> Vec<u8> {
    rows(|text, values| writeln!(text, "{values:?}").unwrap())
}

fn json_request() -> Vec<u8> {
    let mut body = b"{\"instances\": [".to_vec();
    body.extend(rows(|text, values| write!(text, "{values:?}, ").unwrap()));
    body.extend_from_slice(b"[0.0]]}");
    body
}

fn json_response() -> Vec<u8> {
    let mut body = b"{\n    \"predictions\": [".to_vec();
    body.extend(rows(|text, values| write!(text, "{values:?}, ").unwrap()));
    body.extend_from_slice(&[b"[0.0", &b", 0.0".repeat(99)[..], b"]\n    ]\n}"].concat());
    body
}

/// Rows of 100 float32 numbers, about 10 MB of text.
fn npy_array() -> Vec<u8> {
    const ROWS: usize = MEGABYTES * 1000;
    let head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, 100), }}\n");
    let mut file = b"\x93NUMPY\x01\0".to_vec();
    file.extend(
        u16::try_from(head.len())
            .expect("it is short")
            .to_le_bytes(),
    );
    file.extend(head.as_bytes());
    // Random fractions have all digits.
    let numbers = Numbers(1).map(|number| number as f32 / 7.0);
    file.extend(numbers.take(ROWS * 100).flat_map(f32::to_le_bytes));
    file
}
