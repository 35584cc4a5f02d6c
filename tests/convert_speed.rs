//! Prints the speed of the converters for `scripts/bench.sh`, in MB of input per second, as the median of several runs.
//! For formats that are not text, the MB are those of the output.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use sagemaker_tfs::budget::Budget;
use sagemaker_tfs::convert::request::{Format, Target};

const RUNS: usize = 15;
const MEGABYTES: usize = 10;

fn main() {
    measure("csv_mb_per_s", Format::Csv(None), &numeric_csv());
    measure("jsonlines_mb_per_s", Format::Json, &json_lines());
    measure("json_passed_mb_per_s", Format::Json, &json_request());
    measure("npy_float32_mb_per_s", Format::Npy, &npy_array());
}

fn measure(name: &str, format: Format, input: &[u8]) {
    let budget = Budget::new(1 << 30);
    let target = Target::default();
    let mut speeds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let mut body = budget.arriving(0);
            body.extend(input).expect("there is room");
            let start = Instant::now();
            format
                .to_tfs(black_box(&mut body), &target)
                .expect("the body is valid");
            let seconds = start.elapsed().as_secs_f64();
            let counted = if format == Format::Npy {
                body.len()
            } else {
                input.len()
            };
            black_box(body);
            counted as f64 / 1e6 / seconds
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
