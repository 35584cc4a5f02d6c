//! The wall clock may jump, even by hours, when a machine sets its time. Deadlines and pauses use a clock that never
//! jumps.

use std::fs;
use std::path::{Path, PathBuf};

/// Responses carry the time of day in the header `Date`. Signatures for S3 also need the time, but a library reads it.
const MAY_ASK: &str = "http/";

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("folders can be read");
    let paths = entries.map(|entry| entry.expect("folders can be read").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .collect()
}

/// No test can set the machine's clock, so this test looks for code that reads it.
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
