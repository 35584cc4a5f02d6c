//! Prints the speed of the converters for `scripts/bench.sh`, in MB of input per second, as the median of several runs.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sagemaker_tfs::budget::Budget;
use sagemaker_tfs::convert::request::{Conversion, Format, Target};
use sagemaker_tfs::convert::signature::{Dtype, Signature, Tensor};

const RUNS: usize = 15;
const MEGABYTES: usize = 10;

fn main() {
    let plain = Target::default();
    let by_signature = Target {
        signature: Some(one_float_input()),
        ..Target::default()
    };
    measure("csv_mb_per_s", Format::Csv(None), &plain, &numeric_csv());
    measure(
        "csv_by_signature_mb_per_s",
        Format::Csv(None),
        &by_signature,
        &numeric_csv(),
    );
    measure("jsonlines_mb_per_s", Format::Json, &plain, &json_lines());
    measure(
        "json_passed_mb_per_s",
        Format::Json,
        &plain,
        &json_request(),
    );
}

fn measure(name: &str, format: Format, target: &Target, input: &[u8]) {
    let megabytes = input.len() as f64 / 1e6;
    let budget = Budget::new(1 << 30);
    let mut speeds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let mut body = budget.arriving(0);
            body.extend(input).expect("there is room");
            let start = Instant::now();
            let converted = format.to_tfs(black_box(&mut body), target);
            assert_eq!(converted, Ok(Conversion::Done));
            let seconds = start.elapsed().as_secs_f64();
            black_box(body);
            megabytes / seconds
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    println!("{name}: {:.0}", speeds[RUNS / 2]);
}

/// A signature with one input of 100 floats, as TensorFlow 2 exports it.
fn one_float_input() -> Arc<Signature> {
    let input = Tensor {
        name: "x".to_owned(),
        dtype: Dtype::Float,
        shape: Some(vec![None, Some(100)]),
        is_strict: true,
    };
    Arc::new(Signature {
        name: "serving_default".to_owned(),
        inputs: vec![input],
        outputs: Vec::new(),
    })
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
