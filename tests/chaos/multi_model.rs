//! Multi-model mode: models are loaded, asked and unloaded at random while their processes are killed. Each answer must
//! be that of the model that was asked, or an error that docs/MULTI_MODEL.md lists for the request; in the end nothing is
//! left of any model.

use serde_json::json;

use crate::expected::{Content, Request};
use crate::requests::{Make, Maker};
use crate::support::{Server, processes, wait_until};

pub const MODELS: usize = 40;
/// Every model whose number is a multiple of this has a handler.
const HANDLER_EVERY: usize = 8;
/// Client connections may still be closing when descriptors are counted.
const CLOSING: usize = 4;

pub const REQUESTS: &[(f64, Make)] = &[
    (24.0, invoke),
    (3.0, load),
    (3.0, unload),
    (1.0, describe),
    (1.0, list),
];

pub fn name(model: usize) -> String {
    format!("model-{model}")
}

fn has_handler(model: usize) -> bool {
    model.is_multiple_of(HANDLER_EVERY)
}

fn invoke(maker: &mut Maker) -> Request {
    let number = maker.chance.usize(..MODELS);
    let model = name(number);
    let body = format!("{{\"instances\": [\"{model} {}\"]}}", maker.mark);
    // 500: its worker was killed in the call.
    let (kind, expected, documented): (_, _, &[u16]) = match has_handler(number) {
        true => (
            "model with handler",
            format!("{model}'s {model} {body}"),
            &[404, 500, 502, 503, 504, 507],
        ),
        false => ("model", body.clone(), &[404, 502, 503, 504, 507]),
    };
    let content = Content::Bytes(expected.into_bytes());
    let mut request = ask(maker, kind, body, content, documented);
    if has_handler(number) {
        request.answer_header = Some(("content-type", "text/plain"));
    }
    match maker.chance.u8(..3) {
        0 => request.header("X-Amzn-SageMaker-Target-Model", model),
        _ => request.at("POST", format!("/models/{model}/invoke")),
    }
}

fn load(maker: &mut Maker) -> Request {
    let model = name(maker.chance.usize(..MODELS));
    let url = maker.models.join(&model).join("model");
    let body = json!({"model_name": model, "url": url}).to_string();
    let text = format!("Successfully loaded model {model}, listening on rest port ");
    let content = Content::Begins("success", text);
    ask(maker, "load", body, content, &[409, 507]).at("POST", "/models")
}

fn unload(maker: &mut Maker) -> Request {
    let model = name(maker.chance.usize(..MODELS));
    let text = format!("Successfully unloaded model {model}.");
    let content = Content::Is("success", text);
    ask(maker, "unload", "", content, &[404]).at("DELETE", format!("/models/{model}"))
}

fn describe(maker: &mut Maker) -> Request {
    let path = format!("/models/{}", name(maker.chance.usize(..MODELS)));
    let documented = &[404, 502, 503, 504];
    ask(maker, "describe", "", Content::Anything, documented).at("GET", path)
}

fn list(maker: &mut Maker) -> Request {
    ask(maker, "list", "", Content::Anything, &[]).at("GET", "/models?limit=7")
}

fn ask(
    maker: &Maker,
    kind: &'static str,
    body: impl Into<Vec<u8>>,
    content: Content,
    documented: &'static [u16],
) -> Request {
    let mut request = maker.good(kind, body, "application/json", content);
    request.documented = documented;
    request.is_plain = true;
    request
}

/// Writes the models to disk.
pub fn make_models(server: &Server) {
    for number in 0..MODELS {
        let model = name(number);
        server.add_model(&model);
        if has_handler(number) {
            let script = include_str!("handlers/named.py");
            server.model_file(&model, "code/inference.py", script);
            server.model_file(&model, "code/helper.py", &format!("NAME = \"{model}'s\"\n"));
        }
    }
}

/// Unloads all models.
pub fn unload_all(server: &Server) {
    for model in server.loaded() {
        server.assert_unloads(&model);
    }
}

/// After the faults: models that are loaded still serve, all others can be loaded, and after unloading them nothing is
/// left of any.
pub fn look_after(server: &Server, descriptors_before: usize) {
    for number in 0..MODELS {
        let model = name(number);
        let answer = server.load(&model);
        assert!([200, 409].contains(&answer.status), "{}", answer.text());
        server.assert_model_serves(&model);
    }
    unload_all(server);
    server.assert_no_model_left();
    let children = processes::children(server.pid());
    assert!(children.is_empty(), "{children:?}");
    wait_until("all threads of models have ended", || {
        server.threads_of_models().is_empty()
    });
    wait_until("no descriptor is left open", || {
        server.open_files() <= descriptors_before + CLOSING
    });
}
