//! What the executable needs from the system: the C library, and no Python unless a model has a handler.

use std::process::Command;

use crate::support::{Setup, processes, setup, skipped};

#[test]
fn only_the_c_library_is_linked() {
    if !setup::is_on_path("ldd") {
        skipped("only_the_c_library_is_linked", "ldd is not installed");
        return;
    }
    let output = Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_sagemaker-tfs"))
        .output()
        .expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout);
    // A statically linked program is fine, too.
    for line in text
        .lines()
        .filter(|line| !line.contains("statically linked"))
    {
        let library = line.split_whitespace().next().unwrap_or_default();
        let library = library.rsplit('/').next().unwrap_or_default();
        let known = [
            "linux-vdso.",
            "libc.",
            "libgcc_s.",
            "libm.",
            "ld-linux",
            "ld-musl",
        ];
        assert!(
            known.iter().any(|name| library.starts_with(name)),
            "{library} in {text}"
        );
    }
    assert!(!text.contains("python"), "{text}");
}

#[test]
fn no_python_process_is_started_without_a_handler() {
    let server = Setup::new()
        .var("SAGEMAKER_GUNICORN_WORKERS", 3)
        .file("model/code/notes.txt", "")
        .start();
    server.assert_serves();
    let children = processes::children(server.pid());
    assert_eq!(children.len(), 1, "the model server alone: {children:?}");
    assert!(children[0].command_line.contains("fake_model_server"));
    assert!(!server.log().contains("Python"), "{}", server.log());
}
