//! Running as a user without any privileges, on a file system where only the folder for temporary files is writable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::setup::fake_model_server;
use crate::support::{Setup, processes, skipped};

/// The user `nobody`, which every Linux has.
const NOBODY: &str = "65534";
/// Mounts everything read-only except two folders of the test, and becomes `nobody`.
const CONFINE: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1/tmp" "$1/tmp"
mount --bind "$1/record" "$1/record"
mount -o remount,bind,ro /
directory=$1
shift
# A read-only working directory, to see where handlers run.
cd /
if touch "$directory/bin/written" 2>/dev/null; then
  echo "$directory is on another file system than the root" >&2
  exit 1
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all "$@"
"#;

fn confined(directory: &Path) -> Vec<String> {
    let directory = directory.display().to_string();
    ["unshare", "--mount", "sh", "-c", CONFINE, "sh", &directory]
        .map(str::to_owned)
        .into()
}

/// Confines the setup: copies all programs to a place that the user `nobody` can read, and lets `nobody` write to the
/// folders. `None`, with a message, if this is not permitted here or `nobody` cannot run `probe`.
fn confine(test: &str, setup: Setup, probe: &str) -> Option<Setup> {
    let copy = |from: &str, name: &str| {
        let to = setup.path("bin").join(name);
        crate::support::processes::copy_program(from, &to);
        to
    };
    let program = copy(env!("CARGO_BIN_EXE_sagemaker-tfs"), "sagemaker-tfs");
    #[cfg(feature = "python")]
    copy(
        env!("CARGO_BIN_EXE_sagemaker-tfs-python"),
        "sagemaker-tfs-python",
    );
    let model_server = fake_model_server().display().to_string();
    let model_server = copy(&model_server, "fake_model_server");
    for (name, mode) in [("", 0o755), ("record", 0o777), ("tmp", 0o1777)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(setup.path(name), mode).expect("the test owns the files");
    }

    let words = confined(&setup.path(""));
    let probed = Command::new(&words[0])
        .args(&words[1..])
        // Through a shell, so that `nobody` looks up the programs.
        .args(["sh", "-c", probe])
        .output();
    let why = match probed {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(e) => Some(e.to_string()),
    };
    if let Some(why) = why {
        skipped(test, &format!("the server cannot be confined here: {why}"));
        return None;
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Some(
        setup
            .program(program)
            .flag("model-server", model_server.display())
            .wrapper(&words),
    )
}

/// Asserts that a process runs as `nobody` and has no privileges.
#[track_caller]
fn assert_confined(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    for expected in [
        format!("Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}"),
        "CapEff:\t0000000000000000".to_owned(),
        "CapPrm:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
    ] {
        assert!(status.contains(&expected), "{expected} in {status}");
    }
}

#[test]
fn a_server_runs_without_rights_and_with_one_writable_folder() {
    let test = "a_server_runs_without_rights_and_with_one_writable_folder";
    let Some(setup) = confine(test, Setup::new().instances(2), "true") else {
        return;
    };
    let server = setup.start();
    server.assert_serves();
    assert_confined(server.pid());
    assert_confined(server.model_server_pid(0));
    // The server can also end and start its children. A first start that fails would end it.
    server.wait_for_log("instance 0: model half_plus_three is AVAILABLE");
    processes::signal(server.model_server_pid(0), rustix::process::Signal::KILL);
    server.wait_for_start(2);
    server.wait_until_healthy();
    server.assert_serves();
    server.signal(rustix::process::Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

/// A folder that cannot be read does not keep the others from being served.
#[test]
fn an_unreadable_folder_in_the_model_directory_is_named() {
    let test = "an_unreadable_folder_in_the_model_directory_is_named";
    let setup = Setup::new().file("model/private/m/1/saved_model.pb", "");
    let private = setup.path("model/private");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o000)).expect("the test owns it");
    let Some(setup) = confine(test, setup, "true") else {
        return;
    };
    let server = setup.start();
    server.assert_serves();
    let text = format!(
        "not searched for models: {}: Permission denied",
        private.display()
    );
    server.wait_for_log(&text);
}

#[test]
fn a_script_that_cannot_be_read_is_not_passed_over() {
    let test = "a_script_that_cannot_be_read_is_not_passed_over";
    for (forbidden, named) in [
        ("code", "code cannot be used: Permission denied"),
        (
            "code/inference.py",
            "code/inference.py cannot be used: Permission denied",
        ),
        (
            "code/requirements.txt",
            "code/requirements.txt cannot be used: Permission denied",
        ),
        ("code/lib", "code/lib cannot be used: Permission denied"),
    ] {
        let mut setup = Setup::new();
        for file in ["inference.py", "requirements.txt", "lib/notes.txt"] {
            setup = setup.file(&format!("model/code/{file}"), "");
        }
        let path = setup.path("model").join(forbidden);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("the test owns it");
        let Some(setup) = confine(test, setup, "python3") else {
            return;
        };
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{forbidden}: {}", ended.stderr);
        let reasons = ended.reasons().join("\n");
        assert!(reasons.contains(named), "{forbidden}: {reasons}");
    }
}

#[test]
fn models_are_loaded_and_unloaded_without_rights() {
    let test = "models_are_loaded_and_unloaded_without_rights";
    let Some(setup) = confine(test, Setup::multi_model(2), "true") else {
        return;
    };
    let server = setup.start();
    server.add_loaded(&["a", "b"]);
    server.assert_model_serves("a");
    server.assert_unloads("a");
    server.assert_model_serves("b");
    assert_confined(server.pid());
}

#[test]
fn a_start_without_a_writable_folder_is_refused() {
    let test = "a_start_without_a_writable_folder_is_refused";
    let Some(setup) = confine(test, Setup::new(), "true") else {
        return;
    };
    let tmp = setup.path("bin").display().to_string();
    let ended = setup.var("TMPDIR", tmp).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reasons = ended.reasons().join("\n");
    assert!(reasons.contains("TMPDIR"), "{reasons}");
    assert!(reasons.contains("/bin"), "{reasons}");
}

#[cfg(feature = "python")]
#[test]
fn handlers_run_without_rights() {
    let test = "handlers_run_without_rights";
    let script = "import os\n\
                  def handler(data, context):\n    \
                      open('written', 'w').close()\n    \
                      return f'{os.getuid()} {os.getcwd()}', 'text/plain'\n";
    let setup = Setup::new().handler(script);
    // `nobody` may find another Python than the test does, or may not be able to read the test's Python library.
    let version = "import sys; print(sys.version_info[:2])";
    let version = Command::new("python3").args(["-c", version]).output();
    let version = String::from_utf8(version.expect("python3 runs").stdout);
    let probe = format!(
        "python3 -c 'import sys; sys.exit(sys.version_info[:2] != {})' && {{ '{}'; [ $? -ne 127 ]; }}",
        version.expect("text").trim(),
        setup.path("bin/sagemaker-tfs-python").display()
    );
    let Some(setup) = confine(test, setup, &probe) else {
        return;
    };
    let tmp = setup.path("tmp").display().to_string();
    let server = setup.start();
    let response = server.invoke("{}");
    assert_eq!(response.status, 200, "{}", response.text());
    let text = response.text();
    assert!(text.starts_with(&format!("{NOBODY} {tmp}")), "{text}");
    assert_confined(server.python_worker_pid(0));
}
