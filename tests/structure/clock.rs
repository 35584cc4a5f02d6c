//! The wall clock may jump, by hours when a machine finds out what time it is. Deadlines and pauses go by a clock that
//! nobody sets.

use std::fs;
use std::path::{Path, PathBuf};

/// What answers requests says the time of day in the header `Date`. S3's library has it in signatures.
const MAY_ASK: &str = "http/";

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources are there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .collect()
}

/// No test can set the clock of the machine, so this looks at who asks for it.
#[test]
fn only_the_date_header_reads_the_time_of_day() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&source);
    assert!(files.len() > 40, "{files:?}");
    for file in files {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let words = ["SystemTime", "Timestamp", "ClockId::Realtime", "time.time("];
        for word in words {
            let may = name.starts_with(MAY_ASK);
            assert!(may || !text.contains(word), "{name} has {word}");
        }
    }
}
