//! What the file `fake_start` in a model's folder asks of a start with that model. It is read again and again, so that
//! a test decides while the process is starting.
//!
//! | text | effect |
//! |---|---|
//! | `hold` | the ports stay closed for now |
//! | `exit` | the start fails, as by `FAKE_TFS_START_EXIT` |
//! | `exhaust` | the same, for want of memory |
//! | `kill` | the process is ended by SIGKILL |
//! | anything else, or no file | the start goes on |

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Signal, getpid, kill_process};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// What the real server exits with.
const START_FAILED: i32 = 255;
/// The usual error.
pub const NO_FILE: &str = "Not found: no such file or directory";

/// Does what the files of all models in this config text say. `Some`: the start is to fail with this exit code and
/// error.
pub fn obey(config: &str) -> Option<(i32, &'static str)> {
    for folder in folders(config) {
        loop {
            let order = fs::read_to_string(folder.join("fake_start"));
            match order.as_deref().map(str::trim) {
                Ok("hold") => thread::sleep(POLL_INTERVAL),
                Ok("exit") => return Some((START_FAILED, NO_FILE)),
                Ok("exhaust") => {
                    let error = "Resource exhausted: OOM when allocating tensor with shape[9,9]";
                    return Some((START_FAILED, error));
                }
                Ok("kill") => {
                    let _ = kill_process(getpid(), Signal::KILL);
                }
                _ => break,
            }
        }
    }
    None
}

/// The base paths, which tests choose so that nothing in them is escaped.
fn folders(config: &str) -> impl Iterator<Item = PathBuf> {
    let values = config.split("base_path:").skip(1);
    values.filter_map(|text| Some(Path::new(text.split('\'').nth(1)?).to_owned()))
}
