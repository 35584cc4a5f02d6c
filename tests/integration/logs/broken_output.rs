//! The log cannot be written, or nobody reads it: the server still serves and still shuts down.

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{INSTANCES, Server, Setup, processes, request, wait_until};

/// A pipe whose ends are both open in the server, so it is never closed. It holds 64 kB.
const NOBODY_READS: &str = "exec 2<>PIPE";
/// The same pipe, full and non-blocking from the start.
const FULL: &str = "exec 2<>PIPE; dd if=/dev/zero bs=1 count=100000 oflag=nonblock >&2 2>/dev/null";

/// A server whose standard streams the shell has redirected. Each request writes a log line.
fn setup(redirections: &str) -> Setup {
    let script = format!("{redirections}; exec \"$@\"");
    Setup::new()
        .var("SAGEMAKER_TFS_NGINX_LOGLEVEL", "info")
        .wrapper(&["sh", "-c", &script, "sh"])
}

/// The same with a named pipe in the server's directory: `PIPE` in `redirections`.
fn setup_with_pipe(redirections: &str) -> Setup {
    let setup = Setup::new();
    let pipe = setup.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let text = redirections.replace("PIPE", pipe.to_str().expect("UTF-8"));
    let script = format!("{text}; exec \"$@\"");
    setup
        .var("SAGEMAKER_TFS_NGINX_LOGLEVEL", "info")
        .wrapper(&["sh", "-c", &script, "sh"])
}

/// Makes the server write `bytes` bytes into its log, in lines with a path as long as lines may have.
fn write_log(server: &Server, bytes: usize) {
    const AT_ONCE: usize = 100;
    let path = format!("/{}", "x".repeat(254));
    let requests = request("GET", &path, &[], b"").repeat(AT_ONCE);
    let mut connection = server.connect();
    for _ in 0..bytes / path.len() / AT_ONCE {
        connection.send(&requests);
        for _ in 0..AT_ONCE {
            assert_eq!(connection.response().status, 404);
        }
    }
}

/// Asserts that the server serves, restarts a killed model server and shuts down properly.
#[track_caller]
fn assert_all_goes_on(server: Server) {
    server.assert_serves();
    processes::signal(server.model_server_pid(0), Signal::KILL);
    assert_eq!(server.invoke(INSTANCES).status, 200);
    server.wait_for_start(1);
    server.wait_until_healthy();
    server.signal(Signal::TERM);
    let began = Instant::now();
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[test]
fn the_server_works_with_closed_standard_streams() {
    for redirections in [
        "exec 2>&-",
        "exec >&- 2>&-",
        "exec <&- >&- 2>&-",
        "exec >/dev/full 2>/dev/full",
    ] {
        let server = setup(redirections).start();
        write_log(&server, 100_000);
        assert_all_goes_on(server);
    }
}

#[test]
fn the_server_works_when_the_reader_of_its_log_is_gone() {
    // The third descriptor is a reader until the writer is open.
    let server = setup_with_pipe("exec 3<>PIPE; exec >PIPE 2>&1; exec 3<&-").start();
    write_log(&server, 100_000);
    assert_all_goes_on(server);
}

#[test]
fn the_server_works_when_its_log_is_a_full_pipe() {
    for redirections in [NOBODY_READS, FULL] {
        let server = setup_with_pipe(redirections).start();
        write_log(&server, 1_000_000);
        assert_all_goes_on(server);
    }
}

/// The server keeps unread lines up to a limit, and writes them when the pipe is read again.
#[test]
fn an_unread_log_takes_little_memory_and_later_reports_lost_lines() {
    let server = setup_with_pipe(NOBODY_READS).start();
    write_log(&server, 1_000_000);
    let before = memory(&server);
    write_log(&server, 20_000_000);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 12_000_000, "{grown} bytes more");

    let mut reader = File::open(server.path("pipe")).expect("the pipe can be read");
    let text = thread::spawn(move || {
        let mut text = Vec::new();
        let mut piece = [0; 65536];
        let lost = b"lines of the log lost";
        while let Ok(read @ 1..) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..read]);
            let end = &text[text.len().saturating_sub(2 * piece.len())..];
            if end.windows(lost.len()).any(|window| window == lost) {
                break;
            }
        }
        String::from_utf8(text).expect("UTF-8")
    });
    wait_until("the log reports lost lines", || text.is_finished());
    let text = text.join().unwrap();
    assert!(text.contains("listening on"), "the oldest lines are kept");
    for line in text.lines() {
        assert!(line.starts_with("20"), "a whole line: {line:?}");
    }
    assert_all_goes_on(server);
}

fn memory(server: &Server) -> u64 {
    processes::memory(server.pid(), "VmRSS")
}

/// The server reads the output of its children even if it cannot log it.
#[cfg(feature = "python")]
#[test]
fn the_output_of_handlers_is_read_although_nobody_reads_the_log() {
    let server = setup_with_pipe(NOBODY_READS).obedient_pair().start();
    for n in 0..20 {
        server.obey(&serde_json::json!({"n": n, "input": "print('y' * 999_999)"}));
    }
    assert_all_goes_on(server);
}

/// Invalid settings still give their exit code.
#[test]
fn a_refused_start_ends_although_nobody_reads_the_reason() {
    for redirections in [FULL, "exec 2>/dev/full"] {
        let setup = setup_with_pipe(redirections);
        let ended = setup.var("SAGEMAKER_GUNICORN_WORKERS", "none").run();
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    }
}

#[test]
fn help_that_cannot_be_printed_causes_no_panic() {
    for (redirections, code) in [("exec >/dev/full", 1), ("exec >&-", 0)] {
        let ended = setup(redirections).command(&["--help"]).run();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
