//! Which files children have open: their standard streams, and in Python workers also the channels and the record of
//! calls. Children inherit nothing more: no client connection, no listening socket, no file of another child.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Connection, INSTANCES, LIMIT, Server, Setup, processes, request};

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Starts the server without the files that the caller of the tests left open, because the server would pass them on.
const CLEAN: &[&str] = &[
    "bash",
    "-c",
    "for file in /proc/$$/fd/*; do number=${file##*/}; ((number > 2)) && eval \"exec $number>&-\"; done; exec \"$@\"",
    "bash",
];

/// The open files of a process: number and name.
type Files = BTreeMap<u32, String>;

fn files(pid: u32) -> Files {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, name.display().to_string()))
        })
        .collect()
}

/// The kinds of all files except the standard streams. `None` if the standard streams are not those of a child.
fn others(mut files: Files) -> Option<Vec<String>> {
    let streams = [0, 1, 2].map(|number| files.remove(&number).unwrap_or_default());
    let is_right =
        streams[0] == "/dev/null" && streams[1].starts_with("pipe:[") && streams[1] == streams[2];
    let kind = |name: String| match name.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None => name,
    };
    let mut kinds: Vec<_> = files.into_values().map(kind).collect();
    kinds.sort_unstable();
    is_right.then_some(kinds)
}

/// Waits until a process has open exactly the standard streams and `expected`. It may briefly open other files.
#[track_caller]
fn assert_has(pid: u32, expected: &[&str]) {
    let until = Instant::now() + LIMIT;
    loop {
        let seen = files(pid);
        if others(seen.clone())
            .as_deref()
            .is_some_and(|kinds| kinds == expected)
        {
            return;
        }
        let late = Instant::now() >= until;
        assert!(
            !late,
            "process {pid} should have {expected:?} open, but has {seen:#?}"
        );
        thread::sleep(POLL_INTERVAL);
    }
}

/// Clients of all kinds: only connected, kept after a response, and within a request.
fn clients(server: &Server) -> Vec<Connection> {
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    let whole = request("POST", "/ping/../ping", &[], INSTANCES);
    for client in &mut clients[2..4] {
        client.send(&whole);
        client.response();
    }
    for client in &mut clients[4..] {
        client.send(&whole[..whole.len() - 1]);
    }
    clients
}

#[test]
fn model_servers_inherit_no_file_of_the_server() {
    let server = Setup::new().instances(3).wrapper(CLEAN).start();
    // An instance that ends before it was ever ready would end the server's start.
    for index in 0..3 {
        server.wait_for_log(&format!(
            "instance {index}: model half_plus_three is AVAILABLE"
        ));
    }
    let _clients = clients(&server);
    // Holds the model servers before they open files themselves.
    let hold = server.path("model/half_plus_three/fake_start");
    fs::write(&hold, "hold").unwrap();
    let old = [0, 1, 2].map(|index| server.model_server_pid(index));
    for pid in old {
        processes::signal(pid, Signal::KILL);
    }
    for index in 3..6 {
        assert_has(server.wait_for_start(index).pid, &[]);
    }
    fs::remove_file(&hold).unwrap();
    server.wait_until_healthy();
}

#[test]
fn model_servers_started_at_the_same_time_inherit_no_file_of_each_other() {
    let server = Setup::multi_model(6).wrapper(CLEAN).start();
    let _clients = clients(&server);
    let names = ["a", "b", "c", "d", "e", "f"];
    names.iter().for_each(|name| server.add_held_model(name));
    let mut loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
    for name in names {
        assert_has(server.wait_for_start_of(name, 0).pid, &[]);
        server.order_start(name, "");
    }
    for (name, load) in names.iter().zip(&mut loads) {
        crate::support::models::assert_loaded(&load.response(), name);
    }
}

#[test]
fn files_inherited_from_the_parent_process_are_reported_in_the_log() {
    let left_open = ["sh", "-c", "exec \"$@\" 9</etc/passwd", "sh"];
    let server = Setup::new().wrapper(&left_open).start();
    server.wait_for_log("the parent process left files open");
    let log = server.log();
    assert!(log.contains("9 (/etc/passwd)"), "{log}");
    let server = Setup::new().wrapper(CLEAN).start();
    assert!(
        !server.log().contains("left files open"),
        "{}",
        server.log()
    );
}

#[cfg(feature = "python")]
mod python {
    use serde_json::{Value, json};

    use super::*;
    use crate::support::setup::gevent_channels;
    use crate::support::{wait_for, wait_until};

    /// Makes every Python record, before anything else, which files it was started with: `site` imports this module.
    const AT_START: &str = r#"
import json, os
folder = "/proc/self/fd"
names = {}
for number in os.listdir(folder):
    try:
        names[number] = os.readlink(f"{folder}/{number}")
    except OSError:
        pass  # the folder itself
with open("/proc/self/cmdline") as line:
    words = line.read().split("\0")
with open(os.environ["AT_START"], "a") as notes:
    notes.write(json.dumps({"words": words, "files": names}) + "\n")
"#;

    fn recording(setup: Setup) -> Setup {
        let folder = setup.path("site").display().to_string();
        let notes = setup.path("at_start").display().to_string();
        setup
            .file("site/sitecustomize.py", AT_START)
            // A Python worker imports grpc and gevent if they are installed, and both open files.
            .file("site/grpc.py", "raise ImportError\n")
            .file("site/gevent.py", "raise ImportError\n")
            .var("PYTHONPATH", folder)
            .var("AT_START", notes)
    }

    /// The files of each recorded start whose command line contains this word.
    fn starts_with_word(server: &Server, word: &str) -> Vec<Files> {
        let text = fs::read_to_string(server.path("at_start")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let has_word = |start: &Value| {
            let words = start["words"].as_array().unwrap();
            words.iter().any(|w| w.as_str().unwrap().contains(word))
        };
        let of = |start: Value| {
            let files = start["files"].as_object().unwrap().iter();
            files
                .map(|(number, name)| {
                    let name = name.as_str().unwrap().to_owned();
                    (number.parse().unwrap(), name)
                })
                .collect()
        };
        lines.filter(has_word).map(of).collect()
    }

    /// The files of a Python worker with `count` channels.
    fn channels(count: usize) -> Vec<&'static str> {
        let mut expected = vec!["/memfd:calls (deleted)"];
        expected.resize(count + 1, "socket");
        expected
    }

    #[test]
    fn python_workers_have_only_their_channels_and_their_record_open() {
        for (class, count) in [("sync", 1), ("gthread", 3), ("gevent", gevent_channels(3))] {
            let setup = recording(Setup::new().instances(2).workers(3).obedient_pair());
            let server = setup
                .worker_class(class)
                .var("SAGEMAKER_GUNICORN_THREADS", 3)
                .wrapper(CLEAN)
                .start();
            let _clients = clients(&server);
            server.assert_handlers_serve(3);
            // One Python worker is started while all others have their channels.
            let old = server.kill_worker(1);
            server.wait_for_new_worker(1, old);

            let starts = starts_with_word(&server, "sagemaker-tfs-python");
            assert_eq!(starts.len(), 4, "{class}");
            for files in starts {
                let kinds = others(files.clone());
                let expected = channels(count).into_iter().map(str::to_owned);
                assert_eq!(kinds, Some(expected.collect()), "{class}: {files:#?}");
            }
            // The same later. Waiting for several channels takes one more file.
            let mut expected = channels(count);
            if class == "gevent" {
                expected.insert(1, "anon_inode");
            }
            let workers = server.python_workers();
            assert_eq!(workers.len(), 3);
            for worker in &workers {
                assert_has(worker.pid, &expected);
            }
            assert_nothing_is_shared(&server, &workers.iter().map(|w| w.pid).collect::<Vec<_>>());
        }
    }

    /// Asserts that no two processes share an end of a channel.
    #[track_caller]
    fn assert_nothing_is_shared(server: &Server, workers: &[u32]) {
        let mut seen = BTreeMap::new();
        for pid in [&[server.pid()], workers].concat() {
            let sockets = files(pid)
                .into_values()
                .filter(|n| n.starts_with("socket:"));
            // A process may have the same socket twice.
            for socket in std::collections::BTreeSet::from_iter(sockets) {
                let other = seen.insert(socket.clone(), pid);
                assert_eq!(other, None, "{pid} and another have {socket}");
            }
        }
    }

    #[test]
    fn pip_and_the_query_for_paths_inherit_no_file_in_multi_model_mode() {
        let server = recording(Setup::multi_model(3)).wrapper(CLEAN).start();
        let _clients = clients(&server);
        let names = ["a", "b", "c"];
        for name in names {
            server.add_model(name);
            let script = "def handler(data, context):\n    return b'x', 'text/plain'\n";
            server.model_file(name, "code/inference.py", script);
            server.model_file(name, "code/requirements.txt", "# nothing\n");
        }
        let mut loads: Vec<_> = names.iter().map(|name| server.begin_load(name)).collect();
        for (name, load) in names.iter().zip(&mut loads) {
            crate::support::models::assert_loaded(&load.response(), name);
        }
        for (word, at_least) in [("print(sys.prefix)", 1), ("requirements.txt", 3)] {
            let starts = starts_with_word(&server, word);
            assert!(starts.len() >= at_least, "{word}: {starts:?}");
            for files in starts {
                assert_eq!(others(files.clone()), Some(vec![]), "{word}: {files:#?}");
            }
        }
        let workers = starts_with_word(&server, "sagemaker-tfs-python");
        assert_eq!(workers.len(), 3);
        for files in workers {
            let expected = channels(gevent_channels(1)).into_iter().map(str::to_owned);
            assert_eq!(others(files), Some(expected.collect()));
        }
    }

    #[test]
    fn pip_and_the_query_for_paths_inherit_no_file_in_single_model_mode() {
        let setup = Setup::new()
            .obedient_handler()
            .file("model/code/requirements.txt", "# nothing\n");
        let server = recording(setup).wrapper(CLEAN).start();
        let pip = starts_with_word(&server, "requirements.txt");
        assert_eq!(pip.len(), 1);
        assert_eq!(others(pip[0].clone()), Some(vec![]), "{pip:#?}");
        // This query has its own pipes.
        let asked = starts_with_word(&server, "print(sys.prefix)");
        assert!(!asked.is_empty());
        for files in asked {
            assert_eq!(Vec::from_iter(files.keys()), [&0, &1, &2], "{files:#?}");
        }
    }

    #[test]
    fn processes_that_scripts_start_inherit_only_the_standard_streams() {
        let server = Setup::new().wrapper(CLEAN).obedient_handler().start();
        server.assert_handlers_serve(1);
        let _clients = clients(&server);
        // Each process stays until the test has seen it.
        let sleep = "['sh', '-c', 'while [ ! -e \"$HERE/seen\" ]; do sleep 0.02; done']";
        let ways = [
            format!("subprocess.Popen({sleep})"),
            format!("subprocess.Popen({sleep}, close_fds=False)"),
            format!("os.posix_spawnp('sh', {sleep}, os.environ)"),
            format!("os.spawnvp(os.P_NOWAIT, 'sh', {sleep})"),
        ];
        for way in &ways {
            server.obey(&json!({"handler": way}));
        }
        let worker = server.python_worker_pid(0);
        let started = wait_for("all processes run", || {
            let mut children = processes::children(worker);
            children.retain(|child| child.command_line.starts_with("sh "));
            (children.len() == ways.len()).then_some(children)
        });
        for child in started {
            assert_has(child.pid, &[]);
        }
        server.open_gate("seen");
        wait_until("the processes end", || {
            let children = processes::children(worker);
            children.iter().all(|child| child.state == 'Z')
        });
    }
}
