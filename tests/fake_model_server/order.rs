//! The file `fake_start` in a model's folder decides how a start with that model goes. It is read repeatedly, so a test
//! can change it while the process starts.
//!
//! | text | effect |
//! |---|---|
//! | `hold` | the ports stay closed for now |
//! | `exit` | the start fails, as with `FAKE_TFS_START_EXIT` |
//! | `exhaust` | the start fails for lack of memory |
//! | `kill` | SIGKILL ends the process |
//! | anything else, or no file | the start continues |

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Signal, getpid, kill_process};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The exit code of the real server.
const START_FAILED: i32 = 255;
/// The usual error.
pub const NO_FILE: &str = "Not found: no such file or directory";

/// Follows the files of all models in this config text. `Some`: the start must fail with this exit code and error.
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

/// The base paths. Tests choose paths without characters that would be escaped.
fn folders(config: &str) -> impl Iterator<Item = PathBuf> {
    let values = config.split("base_path:").skip(1);
    values.filter_map(|text| Some(Path::new(text.split('\'').nth(1)?).to_owned()))
}
