//! Running as a user who may do nothing in particular, on a file system of which only the folder for temporary files
//! can be written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::setup::fake_model_server;
use crate::support::{Setup, processes, setup, skipped};

/// A user whom every Linux has.
const NOBODY: &str = "65534";
/// Mounts everything read-only but two folders of the test's own, and becomes nobody.
const CONFINE: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1/tmp" "$1/tmp"
mount --bind "$1/record" "$1/record"
mount -o remount,bind,ro /
directory=$1
shift
# A read-only place to be in, for what handlers do there.
cd /
! touch "$directory/bin/written" 2>/dev/null
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all "$@"
"#;

/// Whether we may do all that, and `program` can be used by others than us.
fn is_permitted(test: &str, program: &str, args: &[&str]) -> bool {
    let temp = tempfile::tempdir().expect("a temporary directory");
    for folder in ["tmp", "record", "bin"] {
        fs::create_dir(temp.path().join(folder)).expect("it can be used");
    }
    let words = confined(temp.path());
    let output = Command::new(&words[0])
        .args(&words[1..])
        .arg(program)
        .args(args)
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(e) => e.to_string(),
    };
    skipped(test, &format!("no confined {program} here: {why}"));
    false
}

fn confined(directory: &Path) -> Vec<String> {
    let directory = directory.display().to_string();
    ["unshare", "--mount", "sh", "-c", CONFINE, "sh", &directory]
        .map(str::to_owned)
        .into()
}

/// A setup that runs confined: with copies of all programs that nobody can get at, and folders nobody can write to.
fn confine(setup: Setup) -> Setup {
    let copy = |from: &Path, name: &str| {
        let to = setup.path("bin").join(name);
        fs::copy(from, &to).expect("files can be copied");
        to
    };
    let program = copy(
        Path::new(env!("CARGO_BIN_EXE_sagemaker-tfs")),
        "sagemaker-tfs",
    );
    #[cfg(feature = "python")]
    copy(
        Path::new(env!("CARGO_BIN_EXE_sagemaker-tfs-python")),
        "sagemaker-tfs-python",
    );
    let model_server = copy(&fake_model_server(), "fake_model_server");
    let mode = |path: PathBuf, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).expect("it is ours");
    };
    mode(setup.path(""), 0o755);
    mode(setup.path("record"), 0o777);
    mode(setup.path("tmp"), 0o1777);
    let words = confined(&setup.path(""));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    setup
        .program(program)
        .flag("model-server", model_server.display())
        .wrapper(&words)
}

/// Asserts that a process can do nothing that is not everybody's right.
#[track_caller]
fn assert_confined(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
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
fn a_server_needs_no_rights_and_one_folder_to_write_to() {
    if !is_permitted(
        "a_server_needs_no_rights_and_one_folder_to_write_to",
        "true",
        &[],
    ) {
        return;
    }
    let server = confine(Setup::new().instances(2)).start();
    server.assert_serves();
    assert_confined(server.pid());
    assert_confined(server.model_server_pid(0));
    // It may also end and start its children.
    processes::signal(server.model_server_pid(0), rustix::process::Signal::KILL);
    server.wait_for_start(2);
    server.wait_until_healthy();
    server.assert_serves();
    server.signal(rustix::process::Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}

#[test]
fn models_are_loaded_and_unloaded_there_too() {
    if !is_permitted("models_are_loaded_and_unloaded_there_too", "true", &[]) {
        return;
    }
    let server = confine(Setup::multi_model(2)).start();
    server.add_loaded(&["a", "b"]);
    server.assert_model_serves("a");
    server.assert_unloads("a");
    server.assert_model_serves("b");
    assert_confined(server.pid());
}

#[test]
fn without_a_folder_to_write_to_it_says_so() {
    if !is_permitted("without_a_folder_to_write_to_it_says_so", "true", &[]) {
        return;
    }
    let setup = confine(Setup::new());
    let tmp = setup.path("bin").display().to_string();
    let ended = setup.var("TMPDIR", tmp).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reasons = ended.reasons().join("\n");
    assert!(reasons.contains("TMPDIR"), "{reasons}");
    assert!(reasons.contains("/bin"), "{reasons}");
}

#[cfg(feature = "python")]
#[test]
fn handlers_run_there_too() {
    // The Python that handlers run in may be one of root's own.
    let test = "handlers_run_there_too";
    assert!(setup::is_on_path("python3"));
    let python = crate::handler_python::python3();
    if !is_permitted(test, &python, &["-c", ""]) {
        return;
    }
    let script = "import os\n\
                  def handler(data, context):\n    \
                      open('written', 'w').close()\n    \
                      return f'{os.getuid()} {os.getcwd()}', 'text/plain'\n";
    let setup = confine(Setup::new().handler(script));
    let tmp = setup.path("tmp").display().to_string();
    let server = setup.start();
    let answer = server.invoke("{}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    assert!(text.starts_with(&format!("{NOBODY} {tmp}")), "{text}");
    assert_confined(server.python_worker_pid(0));
}
