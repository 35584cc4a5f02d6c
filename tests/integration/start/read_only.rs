//! Disks that are read-only or full: read-only containers, a full folder for temporary files.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Setup, processes, skipped, wait_until};

/// Commands that start a program with its own mounts. Which of them works depends on the test's user.
const NAMESPACES: [&[&str]; 2] = [
    &["unshare", "--mount"],
    &["unshare", "--mount", "--map-root-user"],
];

/// Makes everything read-only except these folders.
fn read_only_but(folders: &[String]) -> String {
    let mut script = String::from(
        "while read -r _ place _; do mount -o remount,bind,ro \"$place\" 2>/dev/null; done </proc/self/mounts\n",
    );
    for folder in folders {
        let folder = format!("'{folder}'");
        script += &format!(
            "mount --bind {folder} {folder} && mount -o remount,bind,rw {folder} || exit 98\n"
        );
        script += &format!("touch {folder}/x && rm {folder}/x || exit 97\n");
    }
    // Otherwise the tests would prove nothing.
    script
        + "for place in / /tmp; do touch $place/sagemaker-tfs-x 2>/dev/null && exit 96; done\nexec \"$@\"\n"
}

/// Runs this script and then the server in a separate namespace, after a trial with the program `true`. `None`, with a
/// message, if the test may not create namespaces here.
fn in_namespace(setup: Setup, test: &str, script: &str) -> Option<Setup> {
    let runs = |words: &&&[&str]| {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["sh", "-c", script, "sh", "true"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let Some(words) = NAMESPACES.iter().find(runs) else {
        skipped(test, "the test may not mount here");
        return None;
    };
    Some(setup.wrapper(&[*words, &["sh", "-c", script, "sh"]].concat()))
}

fn folder(setup: &Setup, name: &str) -> String {
    setup.path(name).display().to_string()
}

#[test]
fn one_writable_folder_is_enough() {
    let setup = Setup::new();
    let script = read_only_but(&[folder(&setup, "tmp"), folder(&setup, "record")]);
    let Some(setup) = in_namespace(setup, "one_writable_folder_is_enough", &script) else {
        return;
    };
    let server = setup.start();
    server.assert_serves();
    processes::signal(server.model_server_pid(0), Signal::KILL);
    server.wait_for_start(1);
    server.wait_until_healthy();
    server.assert_serves();
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

#[cfg(feature = "python")]
#[test]
fn one_writable_folder_is_enough_for_handlers() {
    let setup = Setup::new().obedient_pair();
    let (tmp, record) = (folder(&setup, "tmp"), folder(&setup, "record"));
    let script = read_only_but(&[tmp, record.clone()]);
    let test = "one_writable_folder_is_enough_for_handlers";
    let Some(setup) = in_namespace(setup, test, &script) else {
        return;
    };
    let server = setup.var("HERE", &record).start();
    server.assert_handlers_serve(1);
    // Scripts may write to their working directory.
    server.obey(&serde_json::json!({"input": "open('something', 'w').write('text')"}));
    let old = server.kill_worker(0);
    server.wait_for_new_worker(0, old);
    server.assert_handlers_serve(1);
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

#[test]
fn a_start_without_a_writable_folder_is_refused_and_names_tmpdir() {
    let test = "a_start_without_a_writable_folder_is_refused_and_names_tmpdir";
    for named in [true, false] {
        let setup = Setup::new();
        let script = read_only_but(&[folder(&setup, "record")]);
        let tmp = folder(&setup, "tmp");
        let Some(setup) = in_namespace(setup, test, &script) else {
            return;
        };
        let (setup, place) = match named {
            true => (setup, tmp.as_str()),
            false => (setup.without_var("TMPDIR"), "/tmp"),
        };
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let reasons = ended.reasons();
        assert_eq!(reasons.len(), 1, "{}", ended.stderr);
        for text in ["TMPDIR", place, "Read-only file system"] {
            assert!(reasons[0].contains(text), "{text:?} in {}", reasons[0]);
        }
        assert!(ended.starts.is_empty(), "no model server was started");
        ended.assert_nothing_left();
    }
}

/// A folder for temporary files with 64 kB, all of them in use.
const FULL: &str = "mount -t tmpfs -o size=64k none 'TMP' || exit 98
dd if=/dev/zero of='TMP/filler' bs=4k 2>/dev/null
exec \"$@\"";

#[test]
fn a_full_folder_for_temporary_files_is_named_in_the_refusal() {
    let setup = Setup::new();
    let tmp = folder(&setup, "tmp");
    let script = FULL.replace("TMP", &tmp);
    let test = "a_full_folder_for_temporary_files_is_named_in_the_refusal";
    let Some(setup) = in_namespace(setup, test, &script) else {
        return;
    };
    let ended = setup.run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for text in ["TMPDIR", tmp.as_str(), "No space left on device"] {
        assert!(ended.stderr.contains(text), "{text:?} in {}", ended.stderr);
    }
    assert!(ended.starts.is_empty(), "no model server was started");
}

/// Loaded models are still served and restarted; only further loads fail.
#[test]
fn a_folder_that_fills_up_later_stops_no_loaded_model() {
    let setup = Setup::multi_model(2);
    let fill = setup.path("fill");
    // Only the server's namespace has the mount, so the server's own shell fills the folder on command.
    let script = format!(
        "mount -t tmpfs -o size=256k none 'TMP' || exit 98
[ \"$1\" = true ] || (while [ ! -e '{fill}' ]; do sleep 0.02; done
dd if=/dev/zero of='TMP/filler' bs=4k 2>/dev/null; rm '{fill}') >/dev/null 2>&1 &
exec \"$@\"",
        fill = fill.display()
    )
    .replace("TMP", &folder(&setup, "tmp"));
    let test = "a_folder_that_fills_up_later_stops_no_loaded_model";
    let Some(setup) = in_namespace(setup, test, &script) else {
        return;
    };
    let server = setup.start();
    server.add_loaded(&["first"]);
    fs::write(&fill, "").expect("files can be written");
    wait_until("the folder is full", || !fill.exists());

    server.add_model("second");
    let response = server.load("second");
    assert_eq!(
        response.status,
        507,
        "the client may unload other models: {}",
        response.text()
    );
    for text in ["No space left on device", "TMPDIR"] {
        assert!(response.error().contains(text), "{}", response.error());
    }
    server.assert_model_serves("first");
    let pid = server.last_start_of("first").pid;
    processes::signal(pid, Signal::KILL);
    server.wait_for_start(1);
    server.assert_model_serves("first");
    assert_eq!(server.ping().status, 200);
    server.assert_unloads("first");
    server.signal(Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_no_process_left();
}
