//! Multi-model mode: as many models as the default port range has room for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::support::models::assert_error;
use crate::support::{Setup, ports, processes, skipped};

/// The number of models that fit into the ports 9000-9999.
const MODELS: u16 = 499;
const THREADS: usize = 4;

/// Calls `work` with each of the names, from several threads.
fn for_all(names: &[String], work: impl Fn(&str) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(name);
                }
            });
        }
    });
}

#[test]
fn the_default_port_range_has_room_for_499_models() {
    let files = processes::raise_own_file_limit();
    if files.is_some_and(|files| files < 8192) {
        skipped(
            "the_default_port_range_has_room_for_499_models",
            "too few files may be open",
        );
        return;
    }
    let began = Instant::now();
    // Not recorded: reading the record takes time that grows with the square of the number of models.
    let server = Setup::multi_model(MODELS)
        .without_var("FAKE_TFS_RECORD")
        .start();
    let names: Vec<_> = (0..MODELS).map(|n| format!("model-{n:03}")).collect();
    for_all(&names, |name| {
        server.add_model(name);
        server.assert_loads(name);
    });
    eprintln!("{MODELS} models loaded after {:?}", began.elapsed());
    server.add_model("one-more");
    let text = "Memory exhausted: no available ports to load the model.";
    assert_error(&server.load("one-more"), 507, text);
    assert_eq!(server.model_servers().len(), usize::from(MODELS));

    let (mut seen, mut pages, mut query) = (Vec::new(), 0, String::new());
    loop {
        let (page, token) = server.page(&query);
        seen.extend(page);
        pages += 1;
        let Some(token) = token else { break };
        query = format!("?next_page_token={token}");
    }
    assert_eq!(seen, names, "each model once, sorted by name");
    assert!(pages > 1, "a list without a limit has pages, too");
    assert_eq!(server.loaded(), names);
    assert_eq!(server.ping().status, 200);
    for_all(&names, |name| server.assert_model_serves(name));

    // Unloading one model makes room for one.
    server.assert_unloads(&names[77]);
    server.assert_loads("one-more");
    assert_eq!(server.load(&names[77]).status, 507);
    server.assert_unloads("one-more");
    eprintln!("all used after {:?}", began.elapsed());

    let rest: Vec<_> = names
        .iter()
        .filter(|name| **name != names[77])
        .cloned()
        .collect();
    for_all(&rest, |name| server.assert_unloads(name));
    eprintln!("all unloaded after {:?}", began.elapsed());
    server.assert_no_model_left();
    assert!(processes::children(server.pid()).is_empty());
    assert!(
        server.threads_of_models().is_empty(),
        "{:?}",
        server.threads_of_models()
    );
    let first = server.port() + 1;
    assert!((first..first + 2 * MODELS).all(ports::is_free));
    server.assert_loads(&names[0]);
}
