//! The kinds of malformed requests: one function for each mistake.

use crate::support::malformed::{Generator, PREDICT, Request};

/// Larger than any head that the server accepts.
const TOO_LARGE: usize = 70_000;
/// Where the server can detect the mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// In the complete head.
    InHead,
    /// When the connection closes at the latest.
    AtEnd,
}
use Shows::{AtEnd, InHead};

type Make = fn(&mut Generator) -> (Vec<u8>, Shows);

/// All kinds, with the functions that make them.
pub const KINDS: &[(&str, Make)] = &[
    ("method", method),
    ("target", target),
    ("version", version),
    ("words of the request line", request_line),
    ("header name", header_name),
    ("header value", header_value),
    ("header without colon or name", header_line),
    ("folded header", folded),
    ("bare LF or CR", line_ends),
    ("Content-Length", content_length),
    ("several lengths", several_lengths),
    ("Transfer-Encoding", transfer_encoding),
    ("chunk size", chunk_size),
    ("chunk end", chunk_end),
    ("trailer", trailer),
    ("head cut off", head_cut_off),
    ("body cut off", body_cut_off),
    ("head too large", too_large),
    ("other protocol", other_protocol),
    ("rubbish", rubbish),
];

fn method(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    if g.one_in(10) {
        request.method.clear();
    } else {
        let byte = g.no_token();
        g.insert(&mut request.method, byte);
    }
    (request.bytes(), InHead)
}

fn target(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    if g.one_in(4) {
        request.target = g
            .pick("|ping|?x|http:/ping|:80|..|*x|\\ping|http//x/ping")
            .into();
    } else {
        let byte = match g.below(3) {
            0 => g.control(),
            1 => *g.choose(&[&b' ', &b'\t', &b'\r', &b'\n']),
            _ => 0x80 | g.number() as u8,
        };
        g.insert(&mut request.target, byte);
    }
    (request.bytes(), InHead)
}

fn version(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    request.version = g
        .pick(
            "|HTTP|HTTP/|HTTP/1|HTTP/1.|HTTP/.1|HTTP/1.1.1|HTTP/1.10|HTTP/01.1|http/1.1|Http/1.1|\
         HTTPS/1.1|HTTP/1,1|HTTP 1.1|HTTP/ 1.1|HTTP /1.1|HTTP/1.1 |HTTP/1.1\t|HTTP/1.x|HTTP/-1.1|\
         HTTP/+1.1|HTTP/0.9|HTTP/2|HTTP/2.0|HTTP/3.0|HTTP/9.9|HTTP/1.1\0|HTTP/1.1\r|ICY|RTSP/1.0|\
         HTTP\\1.1|HTTP/1.1;x|HTTP/1.1 HTTP/1.1|HTTP/\u{661}.1",
        )
        .into();
    (request.bytes(), InHead)
}

fn request_line(g: &mut Generator) -> (Vec<u8>, Shows) {
    let request = g.request();
    let Request {
        method,
        target,
        version,
        ..
    } = &request;
    let parts = [&method[..], b" ", target, b" ", version];
    let mut parts = parts.map(<[u8]>::to_vec).to_vec();
    match g.below(7) {
        0 => parts.insert(0, g.pick(" |\t|\0|\u{feff}|x ").into()),
        1 => parts.truncate(3),
        2 => parts.truncate(1),
        3 => parts.push(g.pick(" |\t| x| 1").into()),
        4 => parts.swap(0, 2),
        5 => parts.insert(2, b"/ ".to_vec()),
        _ => {
            let at = *g.choose(&[&1, &3]);
            parts[at] = g.pick("  |\t| \t|\x0b|\x0c|\r||\u{a0}").into();
        }
    }
    let head = request.head();
    let end = head.iter().position(|&b| b == b'\r').expect("lines end");
    (
        [&parts.concat(), &head[end..], &request.body].concat(),
        InHead,
    )
}

fn header_name(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    let index = g.below(request.headers.len());
    let line = &request.headers[index];
    let colon = line
        .iter()
        .position(|&b| b == b':')
        .expect("headers have one");
    let at = if g.one_in(2) {
        colon
    } else {
        g.below(colon + 1)
    };
    let byte = if g.one_in(3) { b' ' } else { g.no_token() };
    request.headers[index].insert(at, byte);
    (request.bytes(), InHead)
}

fn header_value(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    let byte = g.control();
    let mut value = b"some value".to_vec();
    g.insert(&mut value, byte);
    let name = g.pick("X-A: |Accept: |Content-Type: |X-Amzn-SageMaker-Custom-Attributes: ");
    let at = g.below(request.headers.len() + 1);
    request
        .headers
        .insert(at, [name.as_bytes(), &value].concat());
    (request.bytes(), InHead)
}

fn header_line(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    let line = g.pick("X-A|:|: x|x y z|GET /ping HTTP/1.1|=|{}|\0");
    let at = g.below(request.headers.len() + 1);
    request.headers.insert(at, line.into());
    (request.bytes(), InHead)
}

fn folded(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    let line =
        g.pick("X-A: b\r\n c|X-A: b\r\n\tc|X-A:\r\n b|X-A: b\r\n Content-Length: 3|X-A: b\r\n ");
    let at = g.below(request.headers.len() + 1);
    request.headers.insert(at, line.into());
    if g.one_in(4) {
        request.headers.rotate_left(at);
        request
            .headers
            .insert(0, b" X-B: before the first".to_vec());
    }
    (request.bytes(), InHead)
}

/// One or all line ends of the head lose their CR or their LF.
fn line_ends(g: &mut Generator) -> (Vec<u8>, Shows) {
    let request = g.request();
    let head = request.head();
    let ends: Vec<_> = (0..head.len()).filter(|&at| head[at] == b'\r').collect();
    let chosen = ends[g.below(ends.len())];
    let all = g.one_in(3);
    let lost = if g.one_in(3) { b'\n' } else { b'\r' };
    let mut bytes = Vec::new();
    for (at, &byte) in head.iter().enumerate() {
        let here = if lost == b'\r' {
            at
        } else {
            at.wrapping_sub(1)
        };
        let is_lost = byte == lost && ends.contains(&here) && (all || here == chosen);
        if !is_lost {
            bytes.push(byte);
        }
    }
    bytes.extend_from_slice(&request.body);
    (bytes, AtEnd)
}

fn content_length(g: &mut Generator) -> (Vec<u8>, Shows) {
    let request = match g.below(3) {
        0 => Request::new("GET", "/ping"),
        _ => g.request_with_length().without_header("Content-Length"),
    };
    let value = g.pick(
        "|-1|-0|+5|abc|1.5|1e1|0x10|5 5|5\t5|5, 6|5;|\"5\"|5x|x5|\u{665}|99999999999999999999999|\
         18446744073709551616|18446744073709551615|9223372036854775807|1000000000000000|\
         00000000000000000000000000000x",
    );
    (
        request
            .with_header(format!("Content-Length: {value}"))
            .bytes(),
        InHead,
    )
}

fn several_lengths(g: &mut Generator) -> (Vec<u8>, Shows) {
    let request = g.request_with_length();
    let length = request.body.len();
    let mut request = request.without_header("Content-Length");
    let right = format!("Content-Length: {length}");
    let chunked = "Transfer-Encoding: chunked".to_owned();
    let mut lines = match g.below(5) {
        0 => [right, format!("Content-Length: {}", length + 1)],
        1 => [right, "Content-Length: 0".to_owned()],
        2 => [right, "Content-Length: x".to_owned()],
        3 => [right, chunked],
        _ => ["Content-Length: 5".to_owned(), chunked],
    };
    if g.one_in(2) {
        lines.reverse();
    }
    for line in lines {
        request = request.with_header(line);
    }
    (request.bytes(), InHead)
}

fn transfer_encoding(g: &mut Generator) -> (Vec<u8>, Shows) {
    let request = Request::new("POST", "/invocations").with_chunks();
    let request = request.without_header("Transfer-Encoding");
    let value = g.pick(
        "gzip|identity|xchunked|chunkedx|chunked, gzip|gzip, chunked|chunked, chunked|\
         chunked chunked|chunked; q=1|\"chunked\"|chun ked|x|chunked, identity|\
         chunked\r\nTransfer-Encoding: chunked|gzip\r\nTransfer-Encoding: chunked",
    );
    (
        request
            .with_header(format!("Transfer-Encoding: {value}"))
            .bytes(),
        InHead,
    )
}

/// A request with chunks, up to the first chunk.
fn chunked(g: &mut Generator) -> Vec<u8> {
    let target = g.choose(&["/invocations", PREDICT]);
    let mut bytes = Request::new("POST", target).with_chunks().head();
    if g.one_in(2) {
        bytes.extend_from_slice(b"5\r\n     \r\n");
    }
    bytes
}

fn chunk_size(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut bytes = chunked(g);
    let line = g.pick(
        "|g|-1|+2|0x2| 2|\t2|2 2|2g|2,|\"2\"|\x002|2\x00|2;\x00|2;a=\x01|2;a\nb|2\r|FFFFFFFFFFFFFFFFF|\
         100000000000000000000002|FFFFFFFFFFFFFFFF|7FFFFFFFFFFFFFFF|40000001|\u{662}|two|=|{}",
    );
    bytes.extend_from_slice(format!("{line}\r\n{{}}\r\n0\r\n\r\n").as_bytes());
    (bytes, AtEnd)
}

fn chunk_end(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut bytes = chunked(g);
    let long = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(TOO_LARGE));
    bytes.extend_from_slice(
        g.choose(&[
            "2\r\n{}0\r\n\r\n",
            "2\r\n{ }\r\n0\r\n\r\n",
            "3\r\n{}\r\n0\r\n\r\n",
            "2\n{}\r\n0\r\n\r\n",
            "2\r\n{}\n0\r\n\r\n",
            "2\r{}\r\n0\r\n\r\n",
            "2\r\n{}\r0\r\n\r\n",
            "2\r\n{}\r\n0\n\n",
            "2\r\n{}\r\n0\r\n\n",
            "2\r\n{}\r\n0\r\r\n",
            "2\r\n{}\r\n0\r\nx",
            "2\r\n{}\r\n\r\n0\r\n\r\n",
            "2{}\r\n0\r\n\r\n",
            &long,
        ])
        .as_bytes(),
    );
    (bytes, AtEnd)
}

fn trailer(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut bytes = chunked(g);
    let line = match g.below(6) {
        0 => format!("X: {}", "x".repeat(TOO_LARGE)),
        1 => format!("X: a{}b", char::from(g.control())),
        _ => g
            .pick("no colon|: x|A : b| A: b|A: b\n|A: b\r\n c|\0|GET /ping HTTP/1.1")
            .into(),
    };
    bytes.extend_from_slice(format!("2\r\n{{}}\r\n0\r\n{line}\r\n\r\n").as_bytes());
    (bytes, AtEnd)
}

fn head_cut_off(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut bytes = g.request().head();
    bytes.truncate(1 + g.below(bytes.len() - 1));
    (bytes, AtEnd)
}

fn body_cut_off(g: &mut Generator) -> (Vec<u8>, Shows) {
    let request = match g.below(2) {
        0 => g.request_with_length(),
        _ => Request::new("POST", "/invocations").with_chunks(),
    };
    let mut bytes = request.bytes();
    bytes.truncate(bytes.len() - 1 - g.below(request.body.len()));
    (bytes, AtEnd)
}

fn too_large(g: &mut Generator) -> (Vec<u8>, Shows) {
    let mut request = g.request();
    let long = "x".repeat(TOO_LARGE);
    match g.below(8) {
        0 => request.method = long.into(),
        1 => request.target = format!("/{long}").into(),
        2 => request.target = format!("/ping?{long}").into(),
        3 => request.version = format!("HTTP/1.1{long}").into(),
        4 => request.headers.push(format!("X: {long}").into()),
        5 => request.headers.push(format!("{long}: x").into()),
        6 => request.headers.push(long.into()),
        _ => {
            let lines = (0..TOO_LARGE / 10).map(|n| format!("X-{n}: {n}").into());
            request.headers.extend(lines);
        }
    }
    (request.bytes(), InHead)
}

fn other_protocol(g: &mut Generator) -> (Vec<u8>, Shows) {
    let ping = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let hello = "\x16\x03\x01\0\x2f\x01\0\0\x2b\x03\x03 0123456789abcdef0123456789abcde\0\0\x04\x13\x01\x13\x02\x01\0";
    let settings =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x0c\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\0\x7f\x7f";
    let text = g.choose(&[
        hello,
        settings,
        "PRI * HTTP/2.0\r\n\r\n",
        "PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x05\0\x50",
        "SSH-2.0-client_1.0\r\n",
        "EHLO localhost\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "INFO\r\n",
        "OPTIONS sip:a@localhost SIP/2.0\r\n\r\n",
        "OPTIONS rtsp://localhost/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\x04\x01\0\x50\x7f\0\0\x01\0",
        "\x05\x01\0",
        "<?xml version=\"1.0\"?>\r\n\r\n",
        "{\"instances\": [1]}\r\n\r\n",
        "GET /ping\r\n",
        "GET /ping\r\n\r\n",
        "/ping\r\n",
        "\0\0\0\x05\x01hello",
    ]);
    let mut bytes = text.as_bytes().to_vec();
    if g.one_in(2) {
        bytes.extend_from_slice(ping.as_bytes());
    }
    (bytes, AtEnd)
}

fn rubbish(g: &mut Generator) -> (Vec<u8>, Shows) {
    let length = 1 + g.below(400);
    let printable = g.one_in(2);
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| match g.number() as u8 {
            byte if printable => b' ' + byte % 95,
            byte => byte,
        })
        .collect();
    if g.one_in(2) {
        bytes.extend_from_slice(b"\r\n\r\n");
    }
    (bytes, AtEnd)
}
