//! Bodies that grow: compressed ones, arrays whose header promises more than follows, strings of one length, columns
//! without end. None takes more memory than the limit, crashes the model server, or keeps other requests waiting for
//! long.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::json;

use super::signatures::{Listed, metadata};
use crate::support::Setup;
use crate::support::memory::{LIMIT, PEAK, peak, start};
use crate::support::server::fake;

fn zeros(bytes: usize, mut to: impl Write) {
    let piece = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        to.write_all(&piece)
            .expect("the encoder writes into memory");
    }
}

/// A gigabyte in a megabyte.
fn gzip_bomb(byte: u8) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let piece = vec![byte; 1 << 20];
    for _ in 0..1024 {
        encoder
            .write_all(&piece)
            .expect("the encoder writes into memory");
    }
    encoder.finish().expect("the encoder writes into memory")
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(body)
        .expect("the encoder writes into memory");
    encoder.finish().expect("the encoder writes into memory")
}

fn npy_head(dtype: &str, shape: &str) -> Vec<u8> {
    let dict = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(dict.len()).expect("it is short");
    [
        b"\x93NUMPY\x01\x00",
        &length.to_le_bytes()[..],
        dict.as_bytes(),
    ]
    .concat()
}

/// An archive with one array of `bytes` zeros.
fn npz_bomb(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut out);
    let file = archive
        .new_file("x.npy")
        .compression_method(CompressionMethod::DEFLATE);
    let (mut entry, config) = file.start().expect("the archive is in memory");
    let encoder = DeflateEncoder::new(&mut entry, Compression::fast());
    let mut writer = config.wrap(encoder);
    writer
        .write_all(&npy_head("|u1", &format!("({bytes},)")))
        .expect("in memory");
    zeros(bytes, &mut writer);
    let (encoder, descriptor) = writer.finish().expect("in memory");
    encoder.finish().expect("in memory");
    entry.finish(descriptor).expect("in memory");
    archive.finish().expect("in memory");
    out
}

#[test]
fn bodies_that_grow_stay_within_the_memory_for_bodies() {
    let gz = ("Content-Encoding", "gzip");
    let of = |content_type| ("Content-Type", content_type);
    for (name, headers, body, expected) in [
        ("gzip, JSON", vec![gz], gzip_bomb(b'['), &[413][..]),
        (
            "gzip, CSV",
            vec![gz, of("text/csv")],
            gzip_bomb(b','),
            &[413],
        ),
        (
            "npz",
            vec![of("application/x-npz")],
            npz_bomb(1 << 30),
            &[413],
        ),
        (
            "npz in gzip",
            vec![gz, of("application/x-npz")],
            gzip(&npz_bomb(1 << 30)),
            &[413],
        ),
        // 60 MB of text from 30 MB.
        (
            "npz that fits at first",
            vec![of("application/x-npz")],
            npz_bomb(40 << 20),
            &[413],
        ),
        (
            "npy of empty lists",
            vec![of("application/x-npy")],
            npy_head("<f4", "(1000000000, 0)"),
            &[400],
        ),
        (
            "npy that promises terabytes",
            vec![of("application/x-npy")],
            npy_head("<f4", "(1000000, 1000000)"),
            &[400],
        ),
        (
            "npy of ones in ones",
            vec![of("application/x-npy")],
            [
                npy_head("|u1", &format!("(1000000, {})", "1, ".repeat(250))),
                vec![1; 1_000_000],
            ]
            .concat(),
            &[400, 413],
        ),
        (
            "CSV of one row",
            vec![of("text/csv")],
            b",".repeat(LIMIT / 3),
            &[200, 413],
        ),
        (
            "CSV with a long header",
            vec![of("text/csv; header=present")],
            b"x,".repeat(LIMIT / 6),
            &[200, 413],
        ),
    ] {
        // Inputs of any shape, so that no body is refused because of its shape.
        let setup = Setup::new().models(&["m/1"]).file(
            "model/m/metadata-1.json",
            &metadata(&[("serving_default", &[("x", "DT_FLOAT", &[-1, -1])])]),
        );
        let server = start(setup);
        let peak = peak(&server, || {
            let response = server.post("/invocations", &headers, &body);
            assert!(
                expected.contains(&response.status),
                "{name}: {}: {}",
                response.status,
                response.text()
            );
        });
        assert!(peak <= PEAK, "{name}: {} MB", peak >> 20);
        server.assert_serves();
    }
}

const TWO_OF_ANY_SIZE: Listed = (
    "serving_default",
    &[("a", "DT_FLOAT", &[-1, -1]), ("b", "DT_FLOAT", &[-1, -1])],
);

/// The worst header: many columns, all of which name an input.
#[test]
fn columns_without_end_are_refused() {
    let setup = Setup::new()
        .models(&["m/1"])
        .file("model/m/metadata-1.json", &metadata(&[TWO_OF_ANY_SIZE]));
    let server = start(setup);
    let columns = [b"b,".repeat(LIMIT / 8), b"a\n".to_vec()].concat();
    let peak = peak(&server, || {
        let headers = [("Content-Type", "text/csv; header=present")];
        let response = server.post("/invocations", &headers, &columns);
        assert_eq!(response.status, 400, "{}", response.text());
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    server.assert_serves();
}

/// Text in an array of numpy has the length of its longest string.
#[test]
fn a_response_with_one_long_string_among_many_gets_507() {
    let server = start(Setup::new());
    let mut strings = vec![String::new(); 5000];
    strings[0] = "x".repeat(30_000);
    let command = fake(&json!({"body": {"predictions": strings}}));
    let peak = peak(&server, || {
        for accept in ["application/x-npy", "application/x-npz"] {
            let response = server.post("/invocations", &[("Accept", accept)], command.as_bytes());
            assert_eq!(response.status, 507, "{}", response.text());
        }
    });
    assert!(peak <= PEAK, "{} MB", peak >> 20);
    let lines = server.post(
        "/invocations",
        &[("Accept", "text/csv")],
        command.as_bytes(),
    );
    assert_eq!((lines.status, lines.text().lines().count()), (200, 5000));
}

/// Compressed JSON is checked like any other, wherever it goes.
#[test]
fn compressed_json_nested_too_deeply_does_not_reach_tensorflow_serving() {
    let server = Setup::new().var("FAKE_TFS_MAX_DEPTH", 512).start();
    let nested = |depth: usize| {
        format!(
            "{{\"instances\": {}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    for target in ["/invocations", "/tfs/v1/models/half_plus_three:predict"] {
        let headers = [("Content-Encoding", "gzip")];
        let refused = server.post(target, &headers, &gzip(nested(512).as_bytes()));
        assert_eq!(refused.status, 400, "{}", refused.text());
        let passed = server.post(target, &headers, &gzip(nested(511).as_bytes()));
        assert_eq!(passed.status, 200, "{}", passed.text());
    }
    assert_eq!(server.starts().len(), 1);
}

#[test]
fn only_gzip_is_decompressed() {
    let server = Setup::new().start();
    let body = br#"{"instances": [1.0]}"#;
    let post = |encoding: &str, body: &[u8]| {
        let headers = [("Content-Encoding", encoding)];
        server.post("/invocations", &headers, body)
    };
    for (encoding, body, status) in [
        ("gzip", gzip(body), 200),
        ("X-GZIP", gzip(body), 200),
        ("identity", body.to_vec(), 200),
        ("", body.to_vec(), 200),
        ("gzip", [gzip(&body[..7]), gzip(&body[7..])].concat(), 200),
        ("gzip", body.to_vec(), 400),
        ("gzip", gzip(body)[..20].to_vec(), 400),
        ("gzip, gzip", gzip(&gzip(body)), 415),
        ("br", body.to_vec(), 415),
        ("deflate", body.to_vec(), 415),
    ] {
        let response = post(encoding, &body);
        assert_eq!(response.status, status, "{encoding}: {}", response.text());
        if status == 200 {
            let sent = server.last_request();
            assert_eq!(sent.body.as_deref(), Some(r#"{"instances": [1.0]}"#));
            assert_eq!(sent.header("content-encoding"), None);
        }
    }
}

/// While a bomb is decompressed, other requests are served.
#[test]
fn others_are_served_while_a_bomb_is_decompressed() {
    let server = start(Setup::new().one_worker());
    let bomb = gzip_bomb(b' ');
    std::thread::scope(|scope| {
        let bombs: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| server.post("/invocations", &[("Content-Encoding", "gzip")], &bomb))
            })
            .collect();
        let mut served = 0;
        while bombs.iter().any(|bomb| !bomb.is_finished()) {
            assert_eq!(server.ping().status, 200);
            served += 1;
        }
        assert!(served > 0);
        for bomb in bombs {
            let response = bomb.join().expect("it ends");
            assert!([413, 503].contains(&response.status), "{}", response.text());
        }
    });
}

/// The worst responses of each kind: the ones that grow most, and the ones that cost most to read.
#[test]
fn responses_that_grow_stay_within_the_memory_for_bodies() {
    let server = start(Setup::new().var("FAKE_TFS_ANSWER", "echo"));
    let filled = |start: &str, piece: &str, end: &str| {
        // The model server sends back what it got, which passes unchanged because of its first member.
        let start = format!("{{\"inputs\":0,\"predictions\":{start}");
        let count = (LIMIT / 3 - start.len() - end.len()) / piece.len();
        [&start, &piece.repeat(count), end, "}"]
            .concat()
            .into_bytes()
    };
    for (name, body) in [
        ("numbers", filled("[1", ",1", "]")),
        ("truth values", filled("[true", ",true", "]")),
        ("empty strings", filled("[\"\"", ",\"\"", "]")),
        ("control characters", filled("[\"", "\\u0001", "\"]")),
        ("quotes", filled("[\"", "\\\"", "\"]")),
        ("surrogates", filled("[\"", "\\ud800", "\"]")),
        ("short lists", filled("[[1]", ",[1]", "]")),
        ("empty lists", filled("[[]", ",[]", "]")),
        (
            "objects",
            filled("[{\"a\":1,\"b\":1}", ",{\"a\":1,\"b\":1}", "]"),
        ),
        ("members", filled("[{\"\":0", ",\"\":0", "}]")),
        ("depth", filled("[", "[", "]")),
        ("spaces", filled("[1", " ", "]")),
    ] {
        for accept in ["application/jsonlines", "text/csv", "application/x-npy"] {
            let peak = peak(&server, || {
                let response = server.post("/invocations", &[("Accept", accept)], &body);
                // No other request uses memory, so 503 with "try again" would be wrong.
                let expected = [200, 400, 406, 502, 507];
                assert!(
                    expected.contains(&response.status),
                    "{name} as {accept}: {}",
                    response.status
                );
            });
            assert!(peak <= PEAK, "{name} as {accept}: {} MB", peak >> 20);
        }
    }
    assert!(server.is_healthy());
}
