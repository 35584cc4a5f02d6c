//! Handlers run in the server's working directory or, if it is read-only, in a private folder.

use std::process::Command;

use crate::support::{Setup, skipped};

const WRITES: &str = "import os\n\
                      def handler(data, context):\n\
                      \x20   with open('written', 'w') as file:\n\
                      \x20       file.write('x')\n\
                      \x20   return os.getcwd(), 'text/plain'\n";

#[test]
fn handlers_run_in_the_servers_directory_if_it_is_writable() {
    let setup = Setup::new().handler(WRITES).file("here/there", "");
    let here = setup
        .path("here")
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    let change = format!("cd '{here}' && exec \"$0\" \"$@\"");
    let server = setup.wrapper(&["sh", "-c", &change]).start();
    assert_eq!(server.invoke("{}").text(), here);
    assert!(server.path("here/written").exists());
}

/// Permissions do not stop root from writing, so the directory is mounted read-only.
#[test]
fn handlers_run_in_a_private_folder_if_the_directory_is_read_only() {
    let setup = Setup::new().handler(WRITES).file("here/there", "");
    let here = setup
        .path("here")
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    let mount = format!(
        "mount --bind '{here}' '{here}' && mount -o remount,bind,ro '{here}' && cd '{here}'"
    );
    let possible = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{mount} && ! touch new")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        let why = "mounting needs root and unshare";
        skipped(
            "handlers_run_in_a_private_folder_if_the_directory_is_read_only",
            why,
        );
        return;
    }
    let start = format!("{mount} && exec \"$0\" \"$@\"");
    let server = setup
        .wrapper(&["unshare", "--mount", "sh", "-c", &start])
        .start();
    let folder = server.invoke("{}").text();
    let tmp = server
        .path("tmp")
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    assert!(folder.starts_with(&tmp), "{folder}");
    server.signal(rustix::process::Signal::TERM);
    let ended = server.wait_for_end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.assert_nothing_left();
}
