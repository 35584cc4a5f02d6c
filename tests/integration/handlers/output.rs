//! Handlers that print a lot, raise many exceptions or start processes do not harm the server.

use serde_json::json;

use crate::support::handlers::failed;
use crate::support::{Server, Setup, processes, wait_until};

/// About 50 MB of output, in lines and as a single line.
const FLOODS: [&str; 2] = ["('x' * 999 + chr(10)) * 50_000", "'x' * 50_000_000"];

#[test]
fn floods_of_output_neither_stop_the_server_nor_fill_its_memory() {
    let server = Setup::new().obedient_pair().start();
    server.obey(&json!({"n": 0}));
    let before = processes::memory(server.pid(), "VmRSS");
    for stream in ["stdout", "stderr"] {
        for flood in FLOODS {
            server.obey(&json!({"input": format!("sys.{stream}.write({flood})")}));
            assert_eq!(server.ping().status, 200);
        }
    }
    server.obey(&json!({"input": "os.write(1, b'\\xff\\0\\x1b[31m\\n'); print('the end')"}));
    wait_until("all output is in the log", || {
        server.log().contains("the end")
    });
    let growth = processes::memory(server.pid(), "VmRSS").saturating_sub(before);
    assert!(growth < 20 << 20, "{growth} bytes more");
    server.assert_handlers_serve(1);
}

#[test]
fn handlers_that_close_their_output_still_work() {
    let server = Setup::new().obedient_pair().start();
    let pid = server.python_worker_pid(0);
    for code in [
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(1); os.close(2)",
    ] {
        server.obey(&json!({"input": code}));
    }
    failed(
        &mut server.order(&json!({"input": "1 / 0"})),
        500,
        &["division"],
    );
    for n in 0..10 {
        server.obey(&json!({"n": n}));
    }
    assert_eq!(server.python_worker_pid(0), pid);
}

fn raise(server: &Server, times: usize) {
    // A local variable of 1 MB, which a leaked exception would keep alive.
    let code = "large = b'x' * (1 << 20); raise ValueError('again')";
    for n in 0..times {
        let function = ["input", "output"][n % 2];
        failed(&mut server.order(&json!({function: code})), 500, &["again"]);
    }
}

#[test]
fn a_thousand_exceptions_leak_no_memory() {
    const LEAK: u64 = 10 << 20;
    let server = Setup::new()
        .obedient_pair()
        .var("FAKE_TFS_RECORD_REQUESTS", 0)
        .start();
    let pids = [server.pid(), server.python_worker_pid(0)];
    raise(&server, 200);
    let before = pids.map(|pid| processes::memory(pid, "VmRSS"));
    raise(&server, 1_000);
    for (pid, before) in pids.into_iter().zip(before) {
        let growth = processes::memory(pid, "VmRSS").saturating_sub(before);
        assert!(growth < LEAK, "process {pid} grew by {growth} bytes");
    }
    assert_eq!(server.python_worker_pid(0), pids[1], "the same process");
}

/// A child that inherits the worker's ends of the channels could hide from the server that the worker is gone.
#[test]
fn forked_children_neither_hide_a_workers_death_nor_outlive_it() {
    for start in [
        "child = os.fork() or time.sleep(1000)",
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,)).start(); child = \
         multiprocessing.active_children()[0].pid",
        "child = subprocess.Popen(['sleep', '1000'], close_fds=False).pid",
    ] {
        let server = Setup::new().obedient_pair().start();
        let pid = server.python_worker_pid(0);
        let code = format!("{start}; note(child); os._exit(7)");
        let named = ["input_handler", "exited with code 7"];
        failed(&mut server.order(&json!({"input": code})), 500, &named);
        server.wait_for_new_worker(0, pid);
        let child = server.notes()[0].parse().expect("a process id");
        wait_until("the child is gone", || !processes::runs(child));
        server.assert_handlers_serve(1);
    }
}

/// Programs that handlers start inherit only the descriptors that the handlers pass on.
#[test]
fn programs_that_handlers_start_do_not_inherit_the_channels() {
    for class in ["gevent", "sync"] {
        let server = Setup::new()
            .worker_class(class)
            .handler(
                "import os, subprocess\n\
                 def handler(data, context):\n\
                 \x20   words = ['sh', '-c', 'ls -l /proc/$$/fd']\n\
                 \x20   output = subprocess.run(words, close_fds=False, capture_output=True).stdout\n\
                 \x20   return output, 'text/plain'\n",
            )
            .start();
        let text = server.invoke("{}").text();
        let files: Vec<_> = text.lines().filter_map(|l| l.split_once(" -> ")).collect();
        assert!(files.len() >= 3, "{text}");
        // Descriptors that the tests inherited from their caller do not count.
        let inherited = std::fs::read_dir("/proc/self/fd").expect("it can be read");
        let inherited: Vec<_> = inherited
            .filter_map(|e| std::fs::read_link(e.ok()?.path()).ok())
            .collect();
        for (_, to) in files {
            let is_ours = ["socket:", "memfd:", "anon_inode:"]
                .iter()
                .any(|kind| to.contains(kind));
            let is_inherited = inherited.iter().any(|file| file.to_str() == Some(to));
            assert!(!is_ours || is_inherited, "{text}");
        }
    }
}
