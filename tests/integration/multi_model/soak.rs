//! Multi-model mode: everything at once, at random. Each answer must be that of the model that was asked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::http::Response;
use crate::support::models::{load_request, unload_request};
use crate::support::{Connection, Server, Setup, processes, request, wait_until};

const SEED: u64 = 20_261_123;
const MODELS: usize = 40;
/// Every so manieth model has a handler.
const HANDLER_EVERY: usize = 8;
/// What each thread does; all end sooner when the time is over.
const INVOCATIONS: usize = 3_000;
const CHANGES: usize = 400;
const KILLS: usize = 150;
/// Invocations from one kill to the next.
const PAUSE: usize = 100;
const TIME: Duration = Duration::from_secs(40);
const INVOKERS: u64 = 6;
const CHANGERS: u64 = 3;

const HANDLER: &str = "import helper\n\
                       def input_handler(data, context):\n    return data.read()\n\
                       def output_handler(response, context):\n    \
                           return f'{helper.WHO} {context.model_name} {response.text}', 'text/plain'\n";

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % limit as u64) as usize
    }
}

/// What the threads share.
struct Soak {
    server: Server,
    began: Instant,
    /// What was asked and answered how often.
    counts: Mutex<BTreeMap<(&'static str, u16), usize>>,
    changes_over: AtomicBool,
    number: AtomicUsize,
    kills: AtomicUsize,
}

fn name(index: usize) -> String {
    format!("model-{index}")
}

fn has_handler(index: usize) -> bool {
    index.is_multiple_of(HANDLER_EVERY)
}

impl Soak {
    fn is_over(&self) -> bool {
        self.began.elapsed() >= TIME
    }

    /// Notes an answer, which must be one of those documented.
    #[track_caller]
    fn count(&self, what: &'static str, answer: &Response, documented: &[u16]) {
        assert!(
            documented.contains(&answer.status),
            "seed {SEED}, {what}: {} {}",
            answer.status,
            answer.text()
        );
        if answer.status != 200 {
            answer.error();
        }
        let mut counts = self.counts.lock().expect("nobody failed");
        *counts.entry((what, answer.status)).or_default() += 1;
    }

    fn invoke(&self, mut random: Random) {
        let mut connection = self.server.connect();
        for _ in 0..INVOCATIONS {
            if self.is_over() {
                return;
            }
            let index = random.below(MODELS);
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let model = name(index);
            let body = format!("{{\"instances\": [\"{model} {number}\"]}}");
            let (path, headers) = match random.below(3) {
                0 => (
                    "/invocations".to_owned(),
                    vec![("X-Amzn-SageMaker-Target-Model", model.as_str())],
                ),
                _ => (format!("/models/{model}/invoke"), vec![]),
            };
            connection.send(&request("POST", &path, &headers, body.as_bytes()));
            let answer = connection.response();
            if answer.status == 200 {
                let expected = match has_handler(index) {
                    true => format!("{model}'s {model} {body}"),
                    false => body,
                };
                assert_eq!(answer.text(), expected, "seed {SEED}: an answer of another");
                self.count("invoke", &answer, &[200]);
            } else if has_handler(index) {
                // 500: its worker was killed in the call.
                self.count(
                    "invoke with handler",
                    &answer,
                    &[404, 500, 502, 503, 504, 507],
                );
            } else {
                self.count(
                    "invoke without handler",
                    &answer,
                    &[404, 502, 503, 504, 507],
                );
            }
        }
    }

    fn change(&self, mut random: Random) {
        let mut connection = self.server.connect();
        for _ in 0..CHANGES {
            if self.is_over() {
                return;
            }
            let model = name(random.below(MODELS));
            let mut ask = |bytes: &[u8]| {
                connection.send(bytes);
                connection.response()
            };
            match random.below(8) {
                0..3 => {
                    let answer = ask(&unload_request(&model));
                    self.count("unload", &answer, &[200, 404]);
                }
                3..6 => {
                    let answer = ask(&load_request(&model, &self.server.url(&model)));
                    self.count("load", &answer, &[200, 409, 507]);
                }
                6 => {
                    let answer = ask(&request("GET", &format!("/models/{model}"), &[], b""));
                    self.count("describe", &answer, &[200, 404, 502, 503, 504]);
                }
                _ => {
                    let answer = ask(&request("GET", "/models?limit=7", &[], b""));
                    self.count("list", &answer, &[200]);
                    assert_eq!(self.server.ping().status, 200);
                }
            }
        }
    }

    /// Kills model servers and Python workers.
    fn kill(&self, mut random: Random) {
        for _ in 0..KILLS {
            let before = self.number.load(Ordering::Relaxed);
            // Spread over the run, whatever its speed.
            while self.number.load(Ordering::Relaxed) < before + PAUSE {
                if self.changes_over.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
            let mut all = processes::children(self.server.pid());
            let python = random.below(3) == 0;
            all.retain(|p| {
                p.state != 'Z' && p.command_line.contains("sagemaker-tfs-python") == python
            });
            if !all.is_empty() {
                let victim = &all[random.below(all.len())];
                processes::signal(victim.pid, Signal::KILL);
                self.kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn models_come_and_go_and_die_and_nobody_gets_the_answer_of_another() {
    let server = Setup::multi_model(MODELS as u16)
        .var("FAKE_TFS_ANSWER", "echo")
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    for index in 0..MODELS {
        let model = name(index);
        server.add_model(&model);
        if has_handler(index) {
            server.model_file(&model, "code/inference.py", HANDLER);
            server.model_file(&model, "code/helper.py", &format!("WHO = \"{model}'s\"\n"));
        }
    }
    // What is made once and stays.
    server.assert_loads(&name(0));
    server.assert_unloads(&name(0));
    let files_before = server.open_files();
    (0..MODELS)
        .filter(|i| i.is_multiple_of(2))
        .for_each(|index| server.assert_loads(&name(index)));

    let soak = Soak {
        server,
        began: Instant::now(),
        counts: Mutex::default(),
        changes_over: AtomicBool::new(false),
        number: AtomicUsize::new(0),
        kills: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let soak = &soak;
        let random = |thread: u64| Random(SEED.wrapping_mul(2 * thread + 3));
        scope.spawn(move || soak.kill(random(0)));
        let invokers = (0..INVOKERS).map(|n| scope.spawn(move || soak.invoke(random(100 + n))));
        let changers = (0..CHANGERS).map(|n| scope.spawn(move || soak.change(random(200 + n))));
        let threads: Vec<_> = invokers
            .collect::<Vec<_>>()
            .into_iter()
            .chain(changers)
            .collect();
        let ends: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().is_ok())
            .collect();
        soak.changes_over.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(|&well| well), "seed {SEED}");
    });
    let seconds = soak.began.elapsed().as_secs();
    let Soak {
        server,
        counts,
        kills,
        ..
    } = soak;
    let counts = counts.into_inner().expect("nobody failed");
    eprintln!("{seconds} s, {kills:?} kills, {counts:?}");
    for what in ["invoke", "load", "unload"] {
        assert!(
            counts.contains_key(&(what, 200)),
            "{what} never succeeded: {counts:?}"
        );
    }

    // All that is loaded still serves, and everything else can be loaded.
    for index in 0..MODELS {
        let answer = server.load(&name(index));
        assert!([200, 409].contains(&answer.status), "{}", answer.text());
        server.assert_model_serves(&name(index));
    }
    for model in server.loaded() {
        server.assert_unloads(&model);
    }
    server.assert_no_model_left();
    assert!(processes::children(server.pid()).is_empty());
    wait_until("all threads of models have ended", || {
        server.threads_of_models().is_empty()
    });
    // Connections to us are still being closed.
    wait_until("no file is left open", || {
        server.open_files() <= files_before + 4
    });
    assert!(Connection::try_open(server.port()).is_ok());
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}
